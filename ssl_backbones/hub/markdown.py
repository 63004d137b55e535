"""Tables and figures as a card spells them."""

from __future__ import annotations

from typing import Any

NOT_MEASURED = "not measured"


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table; None reads as not recorded."""
    cells = [["not recorded" if cell is None else str(cell) for cell in row] for row in rows]
    lines = ["|".join(["", *(f" {cell} " for cell in row), ""]) for row in [list(head), *cells]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def joined(*parts: Any) -> str | None:
    """Parts with commas between, or None where the first is missing."""
    return None if parts[0] is None else ", ".join(str(part) for part in parts if part is not None)


def percent(value: float) -> float:
    """A share in [0, 1] as a percentage with one decimal."""
    return round(100 * value, 1)


def share(value: float | None, interval: tuple[float, float] | None = None, unit: str = "%") -> str:
    """A share, or a difference of two in points, in words; with its interval where there is one."""
    if value is None:
        return NOT_MEASURED
    return f"{percent(value)} {unit}" + (f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else "")


def number(value: float | None) -> str:
    """A plain figure with three digits, or that it was not measured."""
    return NOT_MEASURED if value is None else f"{value:.3g}"
