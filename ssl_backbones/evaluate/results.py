"""What an evaluation found, as results.json has it: the numbers, and all it takes to find them again.

    protocol, model, weights_sha256     what was asked, and of which weights
    numbers                             name: {value, low, high, ...}; an accuracy in [0, 1] with its 95% interval
    settings, seed, command             how it was asked
    data, validation                    {source, images, fingerprint}; validation is null where there is none
    compute, versions, date             on what

Whatever else a protocol has to tell (a sweep, the classes one by one) stands beside these under names of its own.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ssl_backbones.data import Images
from ssl_backbones.distributed import world_size
from ssl_backbones.files import write_json
from ssl_backbones.metrics import wilson_interval
from ssl_backbones.runs.versions import versions

Number = Mapping[str, Any]
"""A value and, where one is known, the 95% interval around it (low, high); and what else there is to say of it."""


def write_results(
    folder: str | Path,
    *,
    protocol: str,
    model: str,
    weights_sha256: str,
    data: Images,
    numbers: Mapping[str, Number],
    settings: Mapping[str, Any],
    seed: int,
    device: torch.device | str,
    precision: str,
    validation: Images | None = None,
    sources: tuple[str, str] = ("", ""),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put results.json in place as a whole, and return what it holds.

    `sources` are what was given as data and as validation; `more` is what the protocol tells beside its numbers.
    """
    for name, number in numbers.items():
        if "value" not in number:
            raise ValueError(f"the number {name!r} is {dict(number)}, which holds no value.")
    results = {
        "protocol": protocol,
        "model": model,
        "weights_sha256": weights_sha256,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(),
        "seed": seed,
        "settings": dict(settings),
        "data": about(data, sources[0]),
        "validation": None if validation is None else about(validation, sources[1]),
        "numbers": {name: dict(number) for name, number in numbers.items()},
        "compute": {"device": str(device), "processes": world_size(), "precision": precision},
        "versions": versions(),
    }
    taken = sorted(set(more or {}) & set(results))
    if taken:
        raise ValueError(f"results have {taken[0]!r} already; give what a protocol tells beside it another name.")
    results |= more or {}
    write_json(Path(folder) / "results.json", results)
    return results


def proportion(correct: int, total: int) -> dict[str, float | int]:
    """An accuracy as a number of results.json: with its 95% interval, and the counts that it is made of."""
    interval = wilson_interval(correct, total)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "correct": correct, "of": total}


def about(images: Images, source: str) -> dict[str, Any]:
    """Which images, wherever they lie."""
    return {"source": source, "images": len(images), "fingerprint": images.fingerprint}


def command() -> str:
    """The words that started this process, as a shell takes them."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def percent(number: Number) -> str:
    """An accuracy for a person: 71.3% (69.8 to 72.7)."""
    return f"{number['value']:.1%} ({100 * number['low']:.1f} to {100 * number['high']:.1f})"
