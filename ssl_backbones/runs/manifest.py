"""The format of a checkpoint: the folder's name, the files in it, and the manifest that tells whether they are whole.

`step-00001234/` holds one safetensors file per part of the state, one per rank for what ranks do not share, and
MANIFEST.json, written last, with the scalars and the size and sha256 of every file. No pickle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from ssl_backbones.files import content_of, file_digest, object_digest, object_in
from ssl_backbones.refusal import Refusal
from ssl_backbones.shared_disk import VISIBLE_WITHIN, appears
from ssl_backbones.typed.values import check_form

SCHEMA = 1
MANIFEST = "MANIFEST.json"
PART = re.compile(r"(?!rank-)[A-Za-z0-9_][A-Za-z0-9_-]*")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.safetensors")


class Entry(TypedDict):
    """A file of a checkpoint."""

    size: int
    sha256: str


class Manifest(TypedDict):
    """The parts of a manifest that `runs/saving.py` writes."""

    step: int
    files: dict[str, Entry]
    scalars: dict[str, Any]
    made_with: dict[str, Any]


class CheckpointError(Refusal, RuntimeError):
    """A checkpoint that cannot be written, read or used, and what to do about it."""


class TornError(CheckpointError):
    """A checkpoint, or all of a folder, that is not what was written."""


def folder_name(step: int) -> str:
    """The name of the folder of a step's checkpoint."""
    return f"step-{step:08d}"


def part_file(part: str) -> str:
    """The name of the file of a part that all ranks share; ValueError for a part that cannot be a file's name."""
    if not PART.fullmatch(part):
        raise ValueError(f"{part!r} cannot name a part of a checkpoint; use letters, digits, - and _, not rank-...")
    return f"{part}.safetensors"


def rank_file(rank: int) -> str:
    """The name of the file of what one rank alone has."""
    return f"rank-{rank:05d}.safetensors"


def listed(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder, whole or not, the newest first."""
    steps = [
        (int(path.name.removeprefix("step-")), path) for path in folder.glob("step-*") if path.name[5:].isdecimal()
    ]
    return sorted(((step, path) for step, path in steps if path.name == folder_name(step)), reverse=True)


def last_step(folder: Path) -> int:
    """The step of the newest checkpoint in a folder, whole or not; 0 where there is none."""
    return max((step for step, _ in listed(folder)), default=0)


def manifests(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the manifests of the checkpoints in a folder that can be read, the newest first."""
    for _, path in listed(folder):
        with suppress(CheckpointError):
            yield read_manifest(path)


def entry(path: Path) -> dict[str, Any]:
    """A file's entry in the manifest: its size in bytes and its sha256."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, unharmed and of this version; the files it lists are not looked at.

    Raises TornError for one that is not what was written, and CheckpointError for one of another version.
    """
    try:
        manifest = object_in(content_of(path / MANIFEST))
    except FileNotFoundError:
        raise TornError(f"it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise TornError(f"its {MANIFEST} cannot be read ({error})") from error
    if manifest.get("sha256") != object_digest(manifest):
        raise TornError(f"its {MANIFEST} is not what was written")
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} was written in checkpoint format {manifest.get('schema')} and this version reads {SCHEMA}; "
            "resume with the version that wrote it, or start a new run in another folder"
        )
    try:
        check_form(Manifest, manifest)
    except ValueError as error:
        raise TornError(f"its {MANIFEST} is not of the form that is written here ({str(error).rstrip('.')})") from error
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
        if found["sha256"] != expected["sha256"]:
            raise TornError(f"{name} is not what was written (sha256)")
    return manifest


def is_whole(path: Path) -> bool:
    """True if a checkpoint could be resumed from."""
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def wait_for(path: Path) -> None:
    """Return once a path can be seen from this machine; CheckpointError where it does not appear in time."""
    if not appears(path):
        raise CheckpointError(
            f"{path} did not appear within {VISIBLE_WITHIN:g} s: the process that should have written it failed "
            "(see its own message), or the processes do not share this file system"
        )
