"""The state of a run as it was saved last, found and read: the newest checkpoint that is whole counts.

Its format is told in `runs/manifest.py`, and it is written by `runs/saving.py`.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ssl_backbones.devices import gpu_here
from ssl_backbones.distributed import first_decides, rank
from ssl_backbones.runs.manifest import (
    MANIFEST,
    CheckpointError,
    TornError,
    listed,
    part_file,
    rank_file,
    read_manifest,
    verify,
    wait_for,
)
from ssl_backbones.runs.versions import code_versions

FIRST = "0.1.0.dev0"
"""The version of this package whose first checkpoints do not tell it."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run when it was saved."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """Part to name to tensor, on the CPU."""
    own: dict[str, Tensor]
    """The tensors that this rank alone had saved; rank 0's where this rank did not exist then."""
    scalars: dict[str, Any]
    made_with: dict[str, Any]
    """Versions, threads and processes at the time."""
    skipped: tuple[str, ...] = ()
    """Newer checkpoints that could not be used, each with the reason."""

    def changed(self, world_size: int = 1) -> list[str]:
        """The differences from the time of saving that may keep the rest of the run from being bit-identical."""
        now, before = surroundings(world_size), {"ssl-backbones": FIRST} | self.made_with
        return [f"{key} {old} -> {now.get(key)}" for key, old in before.items() if now.get(key) != old]


def surroundings(world_size: int) -> dict[str, Any]:
    """The surroundings that decide the last bits of a result, beside the state itself."""
    return {
        **code_versions(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "gpu": torch.cuda.get_device_name() if gpu_here() else None,
        "num_threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, with the newer ones it had to skip; None where there are none at all.

    All ranks call it together, and rank 0 chooses. Where there are checkpoints and none is whole, or one is of another
    version, it raises CheckpointError, and the others raise OtherRankError with the same sentence.
    """
    path, skipped = first_decides(lambda: newest_for_a_run(folder))
    return None if path is None else read(path, rank(), tuple(skipped))


def newest_for_a_run(folder: Path) -> tuple[Path | None, list[str]]:
    """As `newest_whole`, with the way out of a run that goes on; CheckpointError."""
    try:
        return newest_whole(folder)
    except TornError as error:
        raise CheckpointError(f"{error}, or delete the folder to start from the beginning") from error


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, None where there are none at all, and why newer ones were skipped.

    Raises TornError where there are checkpoints and none is whole, and CheckpointError where the newest that may be
    whole is of another version.
    """
    skipped: list[str] = []
    for _, path in listed(folder):
        try:
            verify(path)
            return path, skipped
        except TornError as error:
            skipped.append(f"{path.name}: {error}")
    if skipped:
        raise TornError(
            f"none of the {len(skipped)} checkpoints in {folder} is whole ({'; '.join(skipped)}); restore one from a "
            "copy"
        )
    return None, skipped


def read(path: Path, rank: int, skipped: tuple[str, ...]) -> Checkpoint:
    """A checkpoint as a rank sees it."""
    wait_for(path / MANIFEST)
    manifest = read_manifest(path)
    shared = sorted(name.removesuffix(".safetensors") for name in manifest["files"] if not name.startswith("rank-"))
    own = next((name for name in (rank_file(rank), rank_file(0)) if name in manifest["files"]), None)
    return Checkpoint(
        step=manifest["step"],
        tensors={part: read_part(path, part) for part in shared},
        own=read_tensors(path / own) if own else {},
        scalars=manifest["scalars"],
        made_with=manifest["made_with"],
        skipped=skipped,
    )


def read_part(path: Path, part: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint, by name, on the CPU; CheckpointError where it has no such part."""
    return read_tensors(path / part_file(part))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in memory of their own: a map of the file would break when the file is deleted."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); restore the checkpoint from a copy") from error
    return tensors
