"""Measure what repeatable operations cost on a CPU: python benchmarks/deterministic.py

Steps of a method (`Loop.descend` on one batch) as they are, in torch's deterministic algorithms, and in these without
the numbers that torch then writes into fresh memory; all three take turns in one process. `--deterministic` switches on
a GPU alone, where the cost is another one: of `cudnn.benchmark`, of atomic additions and of cuBLAS' workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from method_steps import PACKAGES, steps_of
from steps import CONFIGS, Case, Step, command_of_cases, measure_cases
from timing import circumstances, clock_of, in_turn, on_threads, quartiles

from ssl_backbones.train.processes import meet

METHODS = ("byol", "lewel_b", "moco_v2", "lewel_m")


@contextmanager
def algorithms(deterministic: bool, fill: bool) -> Iterator[None]:
    """Context manager: compute by deterministic algorithms or not, with fresh memory filled or as it is found."""
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def way(step: Step, deterministic: bool, fill: bool) -> Callable[[], None]:
    """The step, computed so."""

    def work() -> None:
        with algorithms(deterministic, fill):
            step()

    return work


def measure(case: Case, names: Sequence[str], rounds: int, device: torch.device) -> dict[str, Any]:
    """Times of the methods' steps in one case, and their ratios."""
    kind, clock = clock_of(device)
    rows = []
    for name, step in steps_of(case, names, "fp32", "contiguous", device).items():
        ways = {
            "plain": way(step, False, True),
            "deterministic": way(step, True, True),
            "unfilled": way(step, True, False),
        }
        seconds = in_turn(ways, rounds, clock)
        ratios = {f"{one}_to_plain": quartiles(seconds[one] / seconds["plain"], 3) for one in list(ways)[1:]}
        rows.append({"method": name, "ms": quartiles(seconds["plain"] * 1e3, 2), **ratios})
    return {"clock": kind, "methods": rows}


def say(case: dict[str, Any]) -> None:
    """Print a case as a table."""
    for row in case["methods"]:
        one, other = row["deterministic_to_plain"], row["unfilled_to_plain"]
        print(
            f"  {case['case']} {row['method']:10} {row['ms']['median']:9.1f} ms  deterministic {one['median']:.3f} "
            f"[{one['q1']:.3f}, {one['q3']:.3f}] x, memory not filled {other['median']:.3f} "
            f"[{other['q1']:.3f}, {other['q3']:.3f}] x",
            flush=True,
        )


def main() -> None:
    """Measure, print and write."""
    parser = command_of_cases(__file__, __doc__, ["resnet18@64"])
    parser.add_argument("--methods", nargs="+", choices=list(CONFIGS), default=METHODS)
    options = parser.parse_args()
    device = meet()
    on_threads(options.threads)
    about = circumstances(PACKAGES, device) | {"rounds": options.rounds}
    measure_cases(
        options, about, lambda case: measure(case, options.methods, options.rounds, device), say, lambda rows: []
    )


if __name__ == "__main__":
    main()
