"""Experiment trackers: somebody else's programs, on somebody else's networks, whose failures do not stop a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ssl_backbones.files import write_file

PROJECT = "ssl-backbones"
"""The name under which trackers gather all runs, and of their folder in that of a run."""

Tracker = Callable[[dict[str, float], int], Any]
"""Called with the values of a step and the step: `accelerator.log` and every tracker's `log` are."""


@contextmanager
def mentioned(tell: Callable[[str], None], number: int = 0, before: set[int] | None = None) -> Iterator[None]:
    """Context manager: tell what a tracker raises, once for each of those that failed `before`, and go on."""
    try:
        yield
    except Exception as error:
        if before is None or number not in before:
            tell(f"warning: a tracker failed, and training goes on ({type(error).__name__}: {error})")
        if before is not None:
            before.add(number)


def run_id(folder: Path, anew: bool) -> str:
    """The id by which trackers know the run of a folder: drawn as it begins `anew`, and the same when it goes on."""
    kept = folder / PROJECT / "id"
    if anew or not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        write_file(kept, uuid4().hex.encode())
    return kept.read_text().strip()


def name_and_id(name: str, drawn: str) -> dict[str, dict[str, str]]:
    """The arguments, by tracker, that name a run and its id; W&B's own variables come first."""
    known_as, run = os.environ.get("WANDB_NAME") or name, os.environ.get("WANDB_RUN_ID") or drawn
    return {"wandb": {"name": known_as, "id": run, "resume": "allow"}, "mlflow": {"run_name": name}}


def settings(plain: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Every value of a recipe by its dotted name, as trackers take them: what is neither number nor text as text."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in plain.items():
        if isinstance(value, Mapping):
            found |= settings(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, int | float | str) else str(value)
    return found
