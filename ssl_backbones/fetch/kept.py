"""Files that were fetched or imported, kept under the name of their tag, with a record of what they are."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ssl_backbones.registry.registry import PretrainedWeightsError

RECORD = "record.json"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Kept:
    """A publisher's file as it came, and what it was when it came."""

    path: Path
    came_from: str
    """The address, or the name of the file that was imported."""
    size: int
    """Bytes."""
    sha256: str

    def write(self) -> None:
        """Record the file, in one step: without its record it counts as not there."""
        record = {key: value for key, value in asdict(self).items() if key != "path"}
        beside = self.path.with_name(f".{RECORD}.{os.getpid()}")
        beside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        beside.replace(self.path.with_name(RECORD))


def folder_of(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where the file of a tag is kept: below torch's own cache, which TORCH_HOME moves."""
    root = Path(cache_dir) if cache_dir else Path(torch.hub.get_dir()) / "checkpoints"
    return root / "ssl-backbones" / name


def recall(folder: Path) -> Kept | None:
    """The file that is kept in a folder, None if there is none; PretrainedWeightsError if it is not what it was."""
    path = folder / CHECKPOINT
    try:
        record = json.loads((folder / RECORD).read_bytes())
        kept = Kept(path, str(record["came_from"]), int(record["size"]), str(record["sha256"]))
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _changed(folder, f"its {RECORD} cannot be read") from error
    if size != kept.size:
        raise _changed(folder, f"it has {size} bytes, and had {kept.size}")
    if digest(path, "sha256") != kept.sha256:
        raise _changed(folder, "its sha256 is another")
    return kept


def digest(path: Path, kind: str) -> str:
    """The hash of a file, by which it is recognised; of md5 no safety is expected."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def check_md5(path: Path, wanted: str, name: str) -> None:
    """Refuse a file whose md5 does not begin as its publisher says."""
    if wanted and not re.match(wanted, found := digest(path, "md5")):
        raise PretrainedWeightsError(
            f"{path.name!r} is not the file that is published as {name!r}: its md5 begins {found[:8]} and the "
            f"publisher's {wanted}; download it again, or make it a folder with `ssl-backbones convert FILE --out DIR`"
        )


def _changed(folder: Path, why: str) -> PretrainedWeightsError:
    return PretrainedWeightsError(
        f"the file kept in {str(folder)!r} is not what was fetched ({why}): delete that folder to fetch it anew"
    )
