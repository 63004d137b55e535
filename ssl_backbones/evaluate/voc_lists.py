"""The lists of images in Pascal VOC's ImageSets, a folder of them for each task. Everingham et al., 2010."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_backbones.checks import few
from ssl_backbones.data import ImageSourceError
from ssl_backbones.files import regular


def list_file(folder: Path, names: Sequence[str], way_out: str) -> Path:
    """The first list that is there of those named; ImageSourceError, with the way out, where none is."""
    files = [folder / f"{name}.txt" for name in names]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        # VOC's lists of one class, such as cat_train, stand behind those of all.
        there = sorted((file.stem for file in folder.glob("*.txt")), key=lambda name: ("_" in name, name))
        raise ImageSourceError(f"{str(files[0])!r} does not exist: {way_out} (lists there: {few(there, 8) or 'none'})")
    return found


def names_in(file: Path) -> list[str]:
    """The images that a list names, the first word of each line; ImageSourceError where it names none."""
    text = regular(file).read_text(encoding="utf-8", errors="replace")
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not names:
        raise ImageSourceError(f"{str(file)!r} names no image: write a name on each line, without .jpg")
    return names
