"""Files written whole or not at all, and the digests by which they are known."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk; its mode is what the umask leaves of 0666."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in place as a whole: whoever looks sees the old content or the new, never a part."""
    beside = path.with_name(f".tmp-{path.name}")
    write_file(beside, content)
    os.replace(beside, path)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Put a value in place as JSON that reads back equal; NaN and infinity, which JSON lacks, are a ValueError."""
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def digest(sealed: Mapping[str, Any]) -> str:
    """The sha256 of an object without its own; every schema keeps this rule."""
    content = {key: value for key, value in sealed.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
