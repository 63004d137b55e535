"""Training, validation and test photos that lie side by side, told apart by the names of files and folders."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from ssl_backbones.data.decode import SUFFIXES

TRAIN, VALIDATION, TEST = ("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing")
SPLITS = (*TRAIN, *VALIDATION, *TEST)

Spec = str | Path | Sequence[str | Path]
"""What stands behind `--data`: a path, a pattern, the name of a dataset on the Hub, or a list of parquet files."""


def parquet_files(spec: Spec) -> list[Path]:
    """The parquet files that a source means, those to train on where they are divided; none if it means no parquet."""
    if not isinstance(spec, str | Path):
        files = [Path(file).expanduser() for file in spec]
        return files if all(file.suffix == ".parquet" for file in files) else []
    path = Path(spec).expanduser()
    if path.is_dir():
        files = parquet_in(path) or parquet_in(path / "data")
        return of_split(files, TRAIN) or [file for file in files if split_of(file) is None] or files
    if path.suffix == ".parquet" and not path.exists() and glob.has_magic(str(path)):
        return sorted(Path(file) for file in glob.glob(str(path)))
    return [path] if path.suffix == ".parquet" else []


def parquet_in(folder: Path) -> list[Path]:
    """The parquet files of a folder, hidden ones aside."""
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def parquet_kept_out(files: Sequence[Path]) -> list[Path]:
    """The validation files, or else the test files, beside training files."""
    if any(split_of(file) not in TRAIN for file in files):
        return []
    beside = sorted({other for file in files for other in parquet_in(file.parent)})
    return of_split(beside, VALIDATION) or of_split(beside, TEST)


def of_split(files: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The files of the first of these splits that has any."""
    return next((found for name in names if (found := [file for file in files if split_of(file) == name])), [])


def split_of(file: Path) -> str | None:
    """The split that a file's name begins with, as in `train-00000-of-00002.parquet`."""
    word = re.split(r"[-_.]", file.name.lower(), maxsplit=1)[0]
    return word if word in SPLITS else None


def training_folder(path: Path) -> Path:
    """The folder `train` of a folder that holds splits and no image of its own; otherwise the folder itself."""
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir()]
    train = [folder for folder in folders if folder.name.lower() in TRAIN]
    loose = any(entry.name.lower().endswith(SUFFIXES) for entry in entries if entry not in folders)
    divided = not loose and all(folder.name.lower() in SPLITS for folder in folders)
    return train[0] if divided and train else path


def folder_kept_out(path: Path) -> Path | None:
    """The validation folder, or else the test folder, beside the training folder."""
    train = training_folder(path).absolute()
    if train.name.lower() not in TRAIN:
        return None
    beside = {folder.name.lower(): folder for folder in sorted(train.parent.iterdir()) if folder.is_dir()}
    return next((beside[name] for name in (*VALIDATION, *TEST) if name in beside), None)
