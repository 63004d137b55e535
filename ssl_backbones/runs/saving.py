"""The whole state of a run written to the disk, in folders that are complete or not there at all.

A checkpoint (`runs/manifest.py`) is written as `.tmp-step-*` and renamed; older ones go only after that.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ssl_backbones.files import create_file, object_digest, sync_folder, write_file
from ssl_backbones.runs.checkpoint import surroundings
from ssl_backbones.runs.manifest import (
    MANIFEST,
    SCHEMA,
    CheckpointError,
    entry,
    folder_name,
    is_whole,
    listed,
    part_file,
    rank_file,
    wait_for,
)


def alone() -> None:
    """The barrier of a single process."""


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    scalars: Mapping[str, Any],
    *,
    own: Mapping[str, Tensor] | None = None,
    keep: int = 2,
    best: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    barrier: Callable[[], None] = alone,
) -> Path:
    """Write the state after `step` steps, delete what is older than the last `keep` and not `best`; return its folder.

    All ranks call it together. `tensors` (part to name to tensor) and `scalars` (plain JSON) are shared and rank 0's
    are written; `own` is this rank's, given by every rank or by none. A step already saved whole is left as it is.
    When a rank fails, all raise, and the checkpoints before are as they were.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} would leave no checkpoint; keep at least 1, better 2")
    writing, target = folder / f".tmp-{folder_name(step)}", folder / folder_name(step)
    shares = Shares(barrier)
    shares.do(begin_writing, writing) if rank == 0 else shares.do(alone)
    shares.do(write_tensors, writing, tensors if rank == 0 else {}, own, rank)
    if rank == 0:
        shares.do(commit, writing, target, step, scalars, world_size if own is not None else 0, world_size)
        shares.do(prune, folder, step, keep, best)
    else:
        shares.do(alone)
        shares.do(wait_for, target / MANIFEST)
    if shares.failure is not None:
        if rank == 0:
            shutil.rmtree(writing, ignore_errors=True)
        raise save_error(shares.failure, folder, step, tensors) from shares.failure
    return target


class Shares:
    """The shares of one work that all ranks do side by side, meeting after each."""

    def __init__(self, barrier: Callable[[], None]) -> None:
        self.barrier = barrier
        self.failure: Exception | None = None

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do this rank's share unless something failed, and meet the others either way: none is left waiting."""
        try:
            if self.failure is None:
                work(*arguments)
        except Exception as error:
            self.failure = error
        self.barrier()


def begin_writing(writing: Path) -> None:
    """Clear what a killed process left half done, and open the folder to write in."""
    writing.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (*writing.parent.glob(".tmp-step-*"), *writing.parent.glob(".tmp-old-*")):
        delete(leftover)
    writing.mkdir()


def write_tensors(
    writing: Path, tensors: Mapping[str, Mapping[str, Tensor]], own: Mapping[str, Tensor] | None, rank: int
) -> None:
    """Write the shared parts given, and what is this rank's own."""
    wait_for(writing)
    for part, named in tensors.items():
        create_file(writing / part_file(part), serialized(named))
    if own is not None:  # a rank's file is there whole or not at all: rank 0 cannot know its checksum
        write_file(writing / rank_file(rank), serialized(own))


def serialized(named: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors, each with memory of its own, whatever they shared or were a view of."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in named.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        apart[name] = tensor
    content: bytes = safetensors.torch.save(apart)
    return content


def commit(writing: Path, target: Path, step: int, scalars: Mapping[str, Any], ranks: int, world_size: int) -> None:
    """Write the manifest over all files, and give the folder its name."""
    for rank in range(ranks):
        wait_for(writing / rank_file(rank))
    plain = json.loads(json.dumps(scalars, allow_nan=False))
    if plain != scalars:
        raise ValueError("the scalars of a checkpoint must read back equal: lists for tuples, and strings for keys")
    manifest = {
        "schema": SCHEMA,
        "step": step,
        "files": {path.name: entry(path) for path in sorted(writing.glob("*.safetensors"))},
        "scalars": plain,
        "made_with": surroundings(world_size),
    }
    manifest["sha256"] = object_digest(manifest)
    create_file(writing / MANIFEST, json.dumps(manifest, indent=1).encode())
    sync_folder(writing)
    if is_whole(target):
        shutil.rmtree(writing)
        return
    if target.exists():
        set_aside(target)
    os.rename(writing, target)
    sync_folder(target.parent)


def set_aside(path: Path) -> None:
    """Take a checkpoint out of the list in one move, to be deleted now or, after a kill, at the next save."""
    aside = path.with_name(f".tmp-old-{path.name}")
    os.rename(path, aside)
    delete(aside)


def delete(path: Path) -> None:
    """Delete a folder and all that is in it, or a file or link that has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def prune(folder: Path, step: int, keep: int, best: int | None) -> None:
    """Delete all but the last `keep` whole checkpoints up to `step`, and the best one.

    Later ones are of a future that was given up: they could not be read when this run was resumed.
    """
    last = {step}
    for other, path in listed(folder):
        if other < step and len(last) < keep and is_whole(path):
            last.add(other)
        if other in last or other == best:
            continue
        try:
            set_aside(path)
        except OSError as error:  # the new one is safe: no reason to stop a run
            warnings.warn(f"the old checkpoint {path} could not be deleted: {error}", stacklevel=2)


def save_error(error: Exception, folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> Exception:
    """The error of a failed save; one of the file system with the space needed and left."""
    if not isinstance(error, OSError):
        return error
    needed = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free"
    except OSError:
        free = "the folder cannot be reached"
    reason = f"{error.filename}: {error.strerror}" if error.strerror else f"{error}"
    return CheckpointError(
        f"the checkpoint of step {step} could not be written to {folder} ({reason}): it needs {needed / 1e6:.1f} MB "
        f"and {free}; make room or mend the folder and start the same command again, the checkpoints before it are "
        "whole"
    )
