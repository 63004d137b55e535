"""The whole state of a run written to the disk, in folders that are complete or not there at all.

A checkpoint (`runs/manifest.py`) is written as `.tmp-step-*` and renamed; older ones go only after that.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ssl_backbones.distributed import first_decides, in_every_process, rank, world_size
from ssl_backbones.files import create_file, object_digest, sync_folder, write_file
from ssl_backbones.host_memory import is_out_of_memory
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

State = Mapping[str, Mapping[str, Tensor]]
"""Part to name to tensor."""


def save(
    folder: Path,
    step: int,
    tensors: State,
    scalars: Mapping[str, Any],
    *,
    own: Mapping[str, Tensor] | None = None,
    keep: int = 2,
    best: int | None = None,
) -> Path:
    """Write the state after `step` steps, delete what is older than the last `keep` and not `best`; return its folder.

    All ranks call it together. `tensors` and `scalars` (plain JSON) are shared and rank 0's are written; `own` is this
    rank's, given by every rank or by none. A step already saved whole is left as it is. When a rank fails, all raise,
    and the checkpoints before are as they were.
    """
    begun = begin(folder, step, tensors, scalars, own=own, keep=keep, best=best)
    first_decides(lambda: begun.finish(tensors, own))
    return begun.target


def begin(
    folder: Path,
    step: int,
    tensors: State,
    scalars: Mapping[str, Any],
    *,
    own: Mapping[str, Tensor] | None,
    keep: int,
    best: int | None,
) -> Begun:
    """Begin a checkpoint, in all ranks together: all but the first write what they alone have, and are done with it.

    ValueError for scalars that would not read back equal, and for a `keep` that leaves nothing.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} would leave no checkpoint; keep at least 1, better 2")
    plain = json.loads(json.dumps(scalars, allow_nan=False))
    if plain != scalars:
        raise ValueError("the scalars of a checkpoint must read back equal: lists for tuples, and strings for keys")
    size = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
    ranks = world_size() if own is not None else 0
    begun = Begun(folder, step, size, plain, surroundings(world_size()), ranks, keep, best)
    first_decides(begun.open)
    if ranks > 1:
        with telling_of(begun):
            in_every_process(lambda: begun.write_own(own or {}) if rank() > 0 else None)
    return begun


@dataclass(frozen=True)
class Begun:
    """A checkpoint that is being written: its folder has no name yet."""

    folder: Path
    step: int
    size: int
    """Bytes of the tensors that are shared."""
    scalars: Mapping[str, Any]
    made_with: Mapping[str, Any]
    ranks: int
    """Ranks that have tensors of their own."""
    keep: int
    best: int | None

    @property
    def target(self) -> Path:
        """The folder by the name that it gets when it is complete."""
        return self.folder / folder_name(self.step)

    @property
    def writing(self) -> Path:
        """The folder by its name until then."""
        return self.folder / f".tmp-{folder_name(self.step)}"

    def open(self) -> None:
        """Make the folder; CheckpointError where it cannot be written."""
        with telling_of(self):
            begin_writing(self.writing)

    def write_own(self, own: Mapping[str, Tensor]) -> None:
        """Write the tensors (...) of this rank alone, whole or not at all: rank 0 cannot know their checksum."""
        with telling_of(self):
            wait_for(self.writing)
            write_file(self.writing / rank_file(rank()), serialized(own))

    def finish(self, tensors: State, own: Mapping[str, Tensor] | None) -> None:
        """Write all else, give the folder its name, and delete older ones: rank 0's part, which waits for nobody.

        CheckpointError where it cannot be written; nothing of it is left then.
        """
        with telling_of(self):
            for part, named in tensors.items():
                create_file(self.writing / part_file(part), serialized(named))
            if own is not None:
                create_file(self.writing / rank_file(0), serialized(own))
            commit(self)
            prune(self.folder, self.step, self.keep, self.best)


@contextmanager
def telling_of(begun: Begun) -> Iterator[None]:
    """Context manager: clear away what was begun after an error; of the disk or memory, it becomes CheckpointError."""
    try:
        yield
    except Exception as error:
        if rank() == 0:
            shutil.rmtree(begun.writing, ignore_errors=True)
        if isinstance(error, OSError):
            raise CheckpointError(disk_sentence(error, begun)) from error
        if is_out_of_memory(error):
            raise CheckpointError(memory_sentence(begun)) from error
        raise


def begin_writing(writing: Path) -> None:
    """Clear what a killed process left half done, and open the folder to write in."""
    writing.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (*writing.parent.glob(".tmp-step-*"), *writing.parent.glob(".tmp-old-*")):
        delete(leftover)
    writing.mkdir()


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


def commit(begun: Begun) -> None:
    """Write the manifest over all files, and give the folder its name."""
    writing, target = begun.writing, begun.target
    for number in range(begun.ranks):
        wait_for(writing / rank_file(number))
    manifest = {
        "schema": SCHEMA,
        "step": begun.step,
        "files": {path.name: entry(path) for path in sorted(writing.glob("*.safetensors"))},
        "scalars": begun.scalars,
        "made_with": begun.made_with,
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


def memory_sentence(begun: Begun) -> str:
    """The message on a checkpoint that the host's memory had no space for, with the bytes of its tensors."""
    return (
        f"the checkpoint of step {begun.step} could not be written, as this machine's memory ran out: its tensors have "
        f"{begun.size / 1e6:.1f} MB, which are copied to be written; free memory and start the same command again, the "
        "checkpoints before it are whole"
    )


def disk_sentence(error: OSError, begun: Begun) -> str:
    """The message on a checkpoint that the file system did not take, with the space needed and left."""
    try:
        free = f"{shutil.disk_usage(begun.folder).free / 1e6:.1f} MB are free"
    except OSError:
        free = "the folder cannot be reached"
    reason = f"{error.filename}: {error.strerror}" if error.strerror else f"{error}"
    return (
        f"the checkpoint of step {begun.step} could not be written to {begun.folder} ({reason}): it needs "
        f"{begun.size / 1e6:.1f} MB and {free}; make room or mend the folder and start the same command again, the "
        "checkpoints before it are whole"
    )
