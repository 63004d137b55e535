"""The whole state of a run on the disk, in folders that are complete or not there at all. No pickle.

`step-00001234/` holds one safetensors file per part of the state, one per rank for what ranks do not share, and
MANIFEST.json, written last, with the scalars and the size and sha256 of every file. It is written as `.tmp-step-*` and
renamed; older ones go only after that.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ssl_backbones.files import create_file, file_digest, object_digest, sync_folder, write_file
from ssl_backbones.refusal import Refusal

SCHEMA = 1
MANIFEST = "MANIFEST.json"
PART = re.compile(r"(?!rank-)[A-Za-z0-9_][A-Za-z0-9_-]*")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.safetensors")
VISIBLE_WITHIN = 30.0
"""Seconds until what one machine wrote must be seen by another that shares the file system."""


class CheckpointError(Refusal, RuntimeError):
    """A checkpoint that cannot be written, read or used, and what to do about it."""


class TornError(CheckpointError):
    """One checkpoint that is not what was written; an older one may be."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run was when it was saved."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """Part to name to tensor, on the CPU."""
    own: dict[str, Tensor]
    """What this rank alone had saved; rank 0's where this rank did not exist then."""
    scalars: dict[str, Any]
    made_with: dict[str, Any]
    """Versions, threads and processes at the time."""
    skipped: tuple[str, ...] = ()
    """Newer checkpoints that could not be used, each with the reason."""

    def changed(self, world_size: int = 1) -> list[str]:
        """What differs from the time of saving and may keep the rest of the run from being bit-identical."""
        now = surroundings(world_size)
        return [f"{key} {old} -> {now.get(key)}" for key, old in self.made_with.items() if now.get(key) != old]


def surroundings(world_size: int) -> dict[str, Any]:
    """What, beside the state itself, decides the last bits of a result."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "num_threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def alone() -> None:
    """The barrier of a single process."""


def same(value: Any) -> Any:
    """The broadcast of a single process."""
    return value


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
    failure: Exception | None = None

    def share(work: Callable[..., None], *arguments: Any) -> None:
        """Do this rank's share unless something failed, and meet the others either way: none is left waiting."""
        nonlocal failure
        try:
            if failure is None:
                work(*arguments)
        except Exception as error:
            failure = error
        barrier()

    if rank == 0:
        share(begin, writing)
        share(write_tensors, writing, tensors, own, rank)
        share(commit, writing, target, step, scalars, world_size if own is not None else 0, world_size)
        share(prune, folder, step, keep, best)
    else:
        share(alone)
        share(write_tensors, writing, {}, own, rank)
        share(alone)
        share(wait_for, target / MANIFEST)
    if failure is not None:
        if rank == 0:
            shutil.rmtree(writing, ignore_errors=True)
        raise explained(failure, folder, step, tensors) from failure
    return target


def folder_name(step: int) -> str:
    """The name of the folder of a step's checkpoint."""
    return f"step-{step:08d}"


def begin(writing: Path) -> None:
    """Clear what a killed process left half done, and open the folder to write in."""
    writing.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (*writing.parent.glob(".tmp-step-*"), *writing.parent.glob(".tmp-old-*")):
        shutil.rmtree(leftover)
    writing.mkdir()


def write_tensors(
    writing: Path, tensors: Mapping[str, Mapping[str, Tensor]], own: Mapping[str, Tensor] | None, rank: int
) -> None:
    """Write the shared parts given, and what is this rank's own."""
    wait_for(writing)
    for part, named in tensors.items():
        if not PART.fullmatch(part):
            raise ValueError(f"{part!r} cannot name a part of a checkpoint; use letters, digits, - and _, not rank-...")
        create_file(writing / f"{part}.safetensors", serialized(named))
    if own is not None:  # a rank's file is there whole or not at all: rank 0 cannot know its checksum
        write_file(writing / f"rank-{rank:05d}.safetensors", serialized(own))


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
        wait_for(writing / f"rank-{rank:05d}.safetensors")
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
    if target.exists():
        try:
            verify(target)
        except CheckpointError:
            set_aside(target)
        else:
            shutil.rmtree(writing)
            return
    os.rename(writing, target)
    sync_folder(target.parent)


def entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file: its size in bytes and its sha256."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


def set_aside(path: Path) -> None:
    """Take a checkpoint out of the list in one move, to be deleted now or, after a kill, at the next save."""
    aside = path.with_name(f".tmp-old-{path.name}")
    os.rename(path, aside)
    shutil.rmtree(aside)


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


def listed(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder, whole or not, the newest first."""
    steps = [
        (int(path.name.removeprefix("step-")), path) for path in folder.glob("step-*") if path.name[5:].isdecimal()
    ]
    return sorted(((step, path) for step, path in steps if path.name == folder_name(step)), reverse=True)


def wait_for(path: Path) -> None:
    """Return once a path can be seen from this machine; a shared file system may take its time."""
    give_up = time.monotonic() + VISIBLE_WITHIN
    while not path.exists():
        if time.monotonic() > give_up:
            raise CheckpointError(
                f"{path} did not appear within {VISIBLE_WITHIN:g} s: the process that should have written it failed "
                "(see its own message), or the processes do not share this file system"
            )
        time.sleep(0.05)


def explained(error: Exception, folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> Exception:
    """The error of a failed save; one of the file system with the space needed and left."""
    if not isinstance(error, OSError):
        return error
    needed = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free"
    except OSError:
        free = "the folder cannot be reached"
    return CheckpointError(
        f"the checkpoint of step {step} could not be written to {folder} ({error}): it needs {needed / 1e6:.1f} MB and "
        f"{free}; make room or mend the folder and start the same command again, the checkpoints before it are whole"
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, itself unharmed and of this version; the files it lists are not looked at."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise TornError("it has no MANIFEST.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TornError(f"its MANIFEST.json cannot be read ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("sha256") != object_digest(manifest):
        raise TornError("its MANIFEST.json is not what was written")
    if manifest["schema"] != SCHEMA:
        raise CheckpointError(
            f"{path} was written in checkpoint format {manifest['schema']} and this version reads {SCHEMA}; "
            "resume with the version that wrote it, or start a new run in another folder"
        )
    if folder_name(manifest["step"]) != path.name:
        raise TornError(f"it was saved at step {manifest['step']}")
    return manifest


def verify(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, after every file has been found to be what was written; or TornError."""
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        if not FILE.fullmatch(name):
            raise TornError(f"it lists a file {name!r}")
        try:
            found = entry(path / name)
        except OSError as error:
            raise TornError(f"{name} cannot be read ({error.strerror})") from error
        if found["size"] != expected["size"]:
            raise TornError(f"{name} has {found['size']} bytes instead of {expected['size']}")
        if found != expected:
            raise TornError(f"{name} is not what was written (sha256)")
    return manifest


def is_whole(path: Path) -> bool:
    """Whether a checkpoint could be resumed from."""
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def load_latest(folder: Path, *, rank: int = 0, broadcast: Callable[[Any], Any] = same) -> Checkpoint | None:
    """The newest whole checkpoint, with the newer ones it had to skip; None where there are none at all.

    All ranks call it together: rank 0 chooses, and `broadcast` hands its choice (plain JSON) to the others. Where
    there are checkpoints and none is whole, or one is of another version, all ranks raise CheckpointError.
    """
    chosen: dict[str, Any] = {}
    if rank == 0:
        try:
            chosen = choose(folder)
        except Exception as error:
            chosen = {"error": f"{error}"}
    chosen = broadcast(chosen)
    if "error" in chosen:
        raise CheckpointError(chosen["error"])
    if chosen["step"] is None:
        return None
    return read(folder / folder_name(chosen["step"]), rank, tuple(chosen["skipped"]))


def choose(folder: Path) -> dict[str, Any]:
    """The step of the newest whole checkpoint, None without any, and why newer ones were skipped."""
    skipped: list[str] = []
    for step, path in listed(folder):
        try:
            verify(path)
            return {"step": step, "skipped": skipped}
        except TornError as error:
            skipped.append(f"{path.name}: {error}")
    if skipped:
        raise CheckpointError(
            f"none of the {len(skipped)} checkpoints in {folder} is whole ({'; '.join(skipped)}); "
            "restore one from a copy, or delete the folder to start from the beginning"
        )
    return {"step": None, "skipped": skipped}


def read(path: Path, rank: int, skipped: tuple[str, ...]) -> Checkpoint:
    """A checkpoint as a rank sees it."""
    wait_for(path / MANIFEST)
    manifest = read_manifest(path)
    files = set(manifest["files"])
    shared = sorted(name for name in files if not name.startswith("rank-"))
    mine = f"rank-{rank:05d}.safetensors"
    mine = mine if mine in files else "rank-00000.safetensors"
    return Checkpoint(
        step=manifest["step"],
        tensors={name.removesuffix(".safetensors"): read_tensors(path / name) for name in shared},
        own=read_tensors(path / mine) if mine in files else {},
        scalars=manifest["scalars"],
        made_with=manifest["made_with"],
        skipped=skipped,
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in memory of their own: a map of the file would break when the file is deleted."""
    tensors: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
    return tensors
