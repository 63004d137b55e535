"""Checkpoints of a few numbers, how to damage and compare them, and a process to save them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_backbones.runs.saving import save


def state(step: int) -> dict[str, dict[str, Tensor]]:
    """A small state that tells which step it is of."""
    return {
        "method": {"weight": torch.full((3, 2), float(step)), "steps": torch.tensor(step)},
        "optimizer": {"momentum_buffer@weight": torch.arange(6.0) + step},
    }


def put(folder: Path, step: int, **more: Any) -> Path:
    return save(folder, step, state(step), {"epoch": step // 10, "best": 0.1 * step}, **more)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def equal(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    """True if the same parts hold the same names with the same bits."""
    same = one.keys() == other.keys() and all(one[part].keys() == other[part].keys() for part in one)
    pairs = ((one[part][name], other[part][name]) for part in one for name in one[part]) if same else ()
    return same and all(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def flip(path: Path, at: int = -1) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
