"""Training, validation and test images that lie side by side, told apart by the names of files and folders."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from ssl_backbones.credentials import without_credentials
from ssl_backbones.data.checks import require_pyarrow
from ssl_backbones.data.formats import is_image
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.walk import images_below

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = ("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing")
UNLABELLED = ("unlabeled", "unlabelled")
SPLITS = (*TRAIN, *VALIDATION, *TEST, *UNLABELLED)
NAMED = re.compile(rf"({'|'.join(SPLITS)})(?:[-_ ]?(?:\d{{4}}|set|split|images?|data))?")
"""A name that stands for a split: `train`, `val2017`, `training_set`."""

PARQUET, TAR = ".parquet", ".tar"
RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
MOST_FILES = 1_000_000
"""Names that ranges stand for, at most."""

Spec = str | Path | Sequence[str | Path]
"""The source behind `--data`: a path, a pattern, an address, a dataset on the Hub, or a list of .parquet or .tar."""


class Named(Protocol):
    """A file, wherever it lies."""

    @property
    def name(self) -> str:
        """The last part of its path."""


N = TypeVar("N", bound=Named)


def packed_files(spec: Spec, suffix: str = PARQUET) -> list[Path]:
    """The files of many images each that a source means, by their suffix; none if it means others.

    They are those to train on where they are divided. A folder that holds images as well is not one of tar shards, nor
    of parquet files without a column of images.
    """
    if not isinstance(spec, str | Path):
        files = [Path(file).expanduser() for file in spec]
        return files if all(file.suffix == suffix for file in files) else []
    path = Path(spec).expanduser()
    if path.is_dir():
        files = packed_in(path, suffix) or packed_in(path / "data", suffix)
        if files and any(images_below(path)):
            files = [] if suffix == TAR else with_images(files)
        return to_train_on(files)
    if path.suffix != suffix or path.exists():
        return [path] if path.suffix == suffix else []
    named = [file for pattern in all_in(str(path)) for file in files_like(pattern)]
    return sorted(named) if glob.has_magic(str(path)) else named


def with_images(files: Sequence[Path]) -> list[Path]:
    """Those parquet files that have a column of images; ImageSourceError where one cannot be read."""
    require_pyarrow()
    from ssl_backbones.data.columns import holds_bytes
    from ssl_backbones.data.parquet import schema_of

    return [file for file in files if any(holds_bytes(field.type) for field in schema_of(file))]


def to_train_on(files: Sequence[N]) -> list[N]:
    """Those of a folder's files to train on: the training split, or those of no split, or all."""
    unnamed = [file for file in files if split_of(file) is None]
    return of_split(files, TRAIN) or unnamed or of_split(files, UNLABELLED) or list(files)


def say_left(where: str, taken: Sequence[Named], left: Sequence[Named]) -> None:
    """A line in the log on the packed files of a folder that are not taken, if there are any."""
    if left:
        names = (", ".join(file.name for file in files) for files in (taken, left))
        logger.warning("%s holds splits: taking %s to train on, not %s", where, *names)


def all_in(pattern: str) -> list[str]:
    """All names that a pattern means; ImageSourceError for none, and for more than MOST_FILES."""
    names = list(islice(ranges_in(pattern), MOST_FILES + 1))
    if not names:
        raise ImageSourceError(
            f"{without_credentials(pattern)!r} means no file: let its ranges rise, as {{000..127}} does"
        )
    if len(names) > MOST_FILES:
        raise ImageSourceError(
            f"{without_credentials(pattern)!r} means more than {MOST_FILES:,} files: name fewer, of more images each"
        )
    return names


def ranges_in(pattern: str) -> Iterator[str]:
    """The names that a pattern with number ranges means: `a-{08..10}.tar` is a-08.tar, a-09.tar, a-10.tar."""
    found = RANGE.search(pattern)
    if not found:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        for rest in ranges_in(pattern[found.end() :]):
            yield f"{pattern[: found.start()]}{number:0{len(first)}d}{rest}"


def files_like(pattern: str) -> list[Path]:
    """The files that a pattern with wildcards finds; any other names one file, be it there or not."""
    return [Path(file) for file in glob.glob(pattern)] if glob.has_magic(pattern) else [Path(pattern)]


def packed_in(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with a suffix, hidden ones aside."""
    return sorted(file for file in folder.glob(f"*{suffix}") if not file.name.startswith("."))


def packed_kept_out(files: Sequence[Path]) -> list[Path]:
    """The validation files, or else the test files, beside training files."""
    if any(split_of(file) not in TRAIN for file in files):
        return []
    return to_ask_about(sorted({other for file in files for other in packed_in(file.parent, file.suffix)}))


def to_ask_about(files: Sequence[N]) -> list[N]:
    """The validation files of a folder, or else the test files."""
    return of_split(files, VALIDATION) or of_split(files, TEST)


def of_split(files: Sequence[N], names: Sequence[str]) -> list[N]:
    """The files of the first of these splits that has any."""
    return next((found for name in names if (found := [file for file in files if split_of(file) == name])), [])


def split_of(file: Named) -> str | None:
    """The split that a file's name begins with, as in `train-00000-of-00002.parquet`."""
    return split_named(re.split(r"[-_.]", file.name, maxsplit=1)[0])


def split_named(name: str) -> str | None:
    """The split that a name stands for, such as `val` of `val2017`; None for another name."""
    named = NAMED.fullmatch(name.lower())
    return named[1] if named else None


def splits_among(names: Collection[str]) -> set[str]:
    """The names of splits among those of folders; `train` alone, among others, is one of the vehicles."""
    splits = {name for name in names if split_named(name)}
    alone = len(splits) == 1 and splits != set(names) and all(split_named(name) in TRAIN for name in splits)
    return set() if alone else splits


@dataclass(frozen=True)
class Parts:
    """The folders of a folder of images: those used, and those that are not."""

    train: Path
    """The images to train on: the folder itself where it is not divided into splits."""
    kept_out: Path | None = None
    """The validation images, or else the test images, beside the folder to train on."""
    left_out: tuple[str, ...] = ()
    """Names of the other folders that hold images."""
    empty: tuple[str, ...] = ()
    """Names of the folders without images."""
    loose: tuple[str, ...] = ()
    """Names of images beside the folders, where one of these is a split to train on."""


def parts_of(path: Path) -> Parts:
    """The parts of a folder: divided where it holds a split to train on; with images beside it, one to keep out too."""
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir()]
    if not any(split_named(folder.name) for folder in folders):
        return Parts(path)
    loose = tuple(entry.name for entry in entries if entry.is_file() and is_image(str(entry), entry.name))
    filled = [folder for folder in folders if any(images_below(folder))]
    train = folder_of_split(filled, TRAIN)
    if train is not None and is_class(train, filled):
        train = None
    if train is None and all(split_named(folder.name) for folder in filled):
        train = folder_of_split(filled, UNLABELLED)
    if train is None:
        return Parts(path)
    kept_out = None if split_named(train.name) in UNLABELLED else kept_out_beside(train, filled)
    if loose and kept_out is None:
        return Parts(path, loose=loose)
    left_out = tuple(folder.name for folder in filled if folder not in (train, kept_out))
    empty = tuple(folder.name for folder in folders if folder not in filled)
    return Parts(train, kept_out, left_out, empty, loose)


def is_class(train: Path, filled: Sequence[Path]) -> bool:
    """True where a folder `train` is one class of several: no other split beside it, and no folder of images in any."""
    others = [folder for folder in filled if folder != train]
    alone = bool(others) and not any(split_named(folder.name) for folder in others)
    return alone and not any("/" in image for folder in filled for image in images_below(folder))


def folder_of_split(folders: Sequence[Path], names: Sequence[str], like: str = "") -> Path | None:
    """The folder of the first of these splits that has any: of several with a year, the one `like`, or the last."""
    for name in names:
        found = [folder for folder in folders if split_named(folder.name) == name]
        if found:
            exact = [folder for folder in found if folder.name.lower() == name + like]
            return (exact or [folder for folder in found if folder.name.lower() == name] or found)[-1]
    return None


def kept_out_beside(train: Path, filled: Sequence[Path]) -> Path | None:
    """The validation folder, or else the test folder, among those beside the training folder."""
    like = train.name.lower().removeprefix(split_named(train.name) or "")
    return folder_of_split(filled, VALIDATION, like) or folder_of_split(filled, TEST, like)


def folder_kept_out(path: Path) -> Path | None:
    """The validation folder, or else the test folder, beside the training folder."""
    train = parts_of(path).train.absolute()
    if split_named(train.name) not in TRAIN:
        return None
    beside = [folder for folder in sorted(train.parent.iterdir()) if folder.is_dir() and split_named(folder.name)]
    return kept_out_beside(train, [folder for folder in beside if any(images_below(folder))])
