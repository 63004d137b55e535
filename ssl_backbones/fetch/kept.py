"""Files that were fetched or imported, kept under the name of their tag, with a record of what they are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_backbones.credentials import without_credentials
from ssl_backbones.files import file_digest, read_object, write_json
from ssl_backbones.registry.errors import PretrainedWeightsError

RECORD = "record.json"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Kept:
    """A publisher's file as it came, and what it was when it came."""

    path: Path
    """Its place in the cache."""
    came_from: str
    """The address, without what opens it, or the name of the file that was imported."""
    size: int
    """Bytes."""
    sha256: str
    """Digest of its content."""


def folder_of(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that keeps the file of a tag: below torch's own cache, which TORCH_HOME moves."""
    root = Path(cache_dir) if cache_dir else Path(torch.hub.get_dir()) / "checkpoints"
    return root / "ssl-backbones" / name


def record(folder: Path, came_from: str) -> None:
    """Write down what the file in a folder is: without its record it counts as not there."""
    path = folder / CHECKPOINT
    said = {"came_from": without_credentials(came_from), "size": path.stat().st_size, "sha256": file_digest(path)}
    write_json(folder / RECORD, said)


def recall(folder: Path) -> Kept | None:
    """The file that is kept in a folder, None if there is none; PretrainedWeightsError if it is not what it was."""
    path = folder / CHECKPOINT
    if not (folder / RECORD).exists() or not path.exists():
        return None
    said = read_object(folder / RECORD, "delete its folder to fetch the weights anew", PretrainedWeightsError)
    try:
        kept = Kept(path, str(said["came_from"]), int(said["size"]), str(said["sha256"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _changed(folder, f"its {RECORD} is not what was written") from error
    size = path.stat().st_size
    if size != kept.size:
        raise _changed(folder, f"it has {size} bytes, and had {kept.size}")
    if file_digest(path) != kept.sha256:
        raise _changed(folder, "its sha256 is another")
    return kept


def check_md5(path: Path, wanted: str, name: str) -> None:
    """Refuse a file whose md5 does not begin as its publisher says."""
    if wanted and not re.match(wanted, found := file_digest(path, "md5")):
        raise PretrainedWeightsError(
            f"{path.name!r} is not the file that is published as {name!r}: its md5 begins {found[:8]} and the "
            f"publisher's {wanted}; download it again, or make it a folder with `ssl-backbones convert FILE --out DIR`"
        )


def _changed(folder: Path, why: str) -> PretrainedWeightsError:
    return PretrainedWeightsError(
        f"the file kept in {str(folder)!r} is not what was fetched ({why}): delete that folder to fetch it anew"
    )
