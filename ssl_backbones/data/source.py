"""Open the source that `--data` names."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ssl_backbones.checks import few
from ssl_backbones.data.addresses import Address
from ssl_backbones.data.blocks import USUAL_KEEPING, Keeping
from ssl_backbones.data.cached import INDEX, PIXELS, CachedImages, verify
from ssl_backbones.data.checks import require_pyarrow
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy
from ssl_backbones.data.distant import distant_files, distant_kept_out
from ssl_backbones.data.folder import ImageFolder
from ssl_backbones.data.formats import looking_for
from ssl_backbones.data.images import Images, ImageSourceError, NoImageError
from ssl_backbones.data.labels import relabelled
from ssl_backbones.data.opening import held_to_first
from ssl_backbones.data.splits import (
    TAR,
    TEST,
    TRAIN,
    VALIDATION,
    Parts,
    Spec,
    folder_kept_out,
    packed_files,
    packed_in,
    packed_kept_out,
    parts_of,
    say_left,
)
from ssl_backbones.data.stored import File, stamp
from ssl_backbones.data.tar import TarImages
from ssl_backbones.data.walk import images_below
from ssl_backbones.distributed import doing

logger = logging.getLogger(__name__)

HELD_IN_MEMORY = 512 * 2**20
"""Bytes of parquet files up to which they are read whole; larger ones are read by row groups."""

HERE = "file://"

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.+%\[\]:-]+)?")


def open_images(
    spec: Spec,
    policy: DecodePolicy = USUAL_POLICY,
    among: Sequence[str] = (),
    keeping: Keeping = USUAL_KEEPING,
) -> Images:
    """The images of a folder, of parquet files or tar shards (one, several, a pattern or a folder), or of the Hub.

    Packed files may lie at addresses, whose blocks are kept as `keeping` has it. Of a source that is divided into
    splits, the images to train on. `among` are classes known already: folders that all bear their names are classes, be
    it one. Where images keep channels and no file of their formats is there, PNG, JPEG and the like are looked for.
    Raises ImageSourceError.
    """
    spec = without_scheme(spec)
    with doing(f"Opening {spec}"):
        files = distant_files(spec, keeping, told=True)
        try:
            return opened(spec, files, policy, among)
        except NoImageError:
            if not policy.channels or policy.everyday:
                raise
            return opened(spec, files, replace(policy, everyday=True), among)


def without_scheme(spec: Spec) -> Spec:
    """The source without the `file://` by which it may be named as one of this machine."""
    if isinstance(spec, str | Path):
        return spec.removeprefix(HERE) if isinstance(spec, str) else spec
    return [file.removeprefix(HERE) if isinstance(file, str) else file for file in spec]


def opened(spec: Spec, distant: Sequence[Address], policy: DecodePolicy, among: Sequence[str]) -> Images:
    """The images of files at addresses, where there are any, or else of a source on this machine, or of the Hub."""
    with looking_for(policy.suffixes):
        return held_to_first(open_packed(distant, policy) if distant else opened_here(spec, policy, among))


def opened_here(spec: Spec, policy: DecodePolicy, among: Sequence[str]) -> Images:
    """The images of a source on this machine, or of the Hub; ImageSourceError says what is wrong with it."""
    if spec == "":
        raise ImageSourceError(
            "no images are named: give a folder, .parquet files, .tar shards, an address, or a Hub dataset as org/name"
        )
    try:
        files = packed_files(spec) or packed_files(spec, TAR)
    except PermissionError as error:
        raise ImageSourceError(f"{str(spec)!r} cannot be listed ({error.strerror}): make it readable") from error
    if files:
        say_what_is_left(spec, files)
        return open_packed(files, policy)
    if not isinstance(spec, str | Path):
        raise ImageSourceError(
            f"{[*map(str, spec)]} is not a list of .parquet files, nor of .tar: give one folder, or such a list"
        )
    path = Path(spec).expanduser()
    if path.is_dir():
        return open_folder(path, policy, among)
    if path.exists():
        raise ImageSourceError(
            f"{str(spec)!r} is neither a folder nor a .parquet or .tar file: give the folder that holds it"
        )
    if is_hub_name(spec):
        require_pyarrow()
        from ssl_backbones.data import hub_dataset

        return hub_dataset.load(str(spec), policy)
    raise ImageSourceError(
        f"{str(spec)!r} does not exist: give a folder, .parquet files, .tar shards, or a Hub dataset as org/name"
    )


def validation_of(
    spec: Spec, like: Images, policy: DecodePolicy = USUAL_POLICY, keeping: Keeping = USUAL_KEEPING
) -> Images | None:
    """The labelled images kept beside those to train on, with the labels of `like`; None where there are none.

    Beside `train*.parquet` that is `validation*.parquet` or else `test*.parquet`, beside the folder `train` the folder
    `val`, and so on.
    """
    if like.labels is None:
        return None
    images = kept_out(without_scheme(spec), like, policy, keeping)
    return None if images is None or images.labels is None else relabelled(images, like.classes)


def kept_out(spec: Spec, like: Images, policy: DecodePolicy, keeping: Keeping = USUAL_KEEPING) -> Images | None:
    """The validation split, or else the test split, of a source whose training split is `like`, by the same names."""
    if policy.channels and like.policy is not None:
        policy = replace(policy, everyday=like.policy.everyday)
    with looking_for(policy.suffixes):
        if distant := distant_files(spec, keeping):
            held = distant_kept_out(distant)
            return open_packed(held, policy) if held else None
        files = packed_files(spec) or packed_files(spec, TAR)
        if files:
            beside = packed_kept_out(files)
            return open_packed(beside, policy) if beside else None
        if not isinstance(spec, str | Path):
            return None
        path = Path(spec).expanduser()
        if path.is_dir():
            folder = folder_kept_out(path)
            return ImageFolder(folder, policy, like.classes) if folder else None
        return kept_out_on_hub(str(spec), policy) if is_hub_name(spec) else None


def kept_out_on_hub(name: str, policy: DecodePolicy) -> Images | None:
    """The validation split, or else the test split, of a Hub dataset of which the training split was opened."""
    require_pyarrow()
    from ssl_backbones.data import hub_dataset

    identity, _, split = name.partition(":")
    if split and split not in TRAIN:
        return None
    there = hub_dataset.splits(identity)
    kept = next((other for other in (*VALIDATION, *TEST) if other in there), None)
    return hub_dataset.load(f"{identity}:{kept}", policy) if kept else None


def open_folder(path: Path, policy: DecodePolicy, among: Sequence[str]) -> Images:
    """The images of a folder, or of its folder `train` if it holds splits; of a cache, the images."""
    if (path / INDEX).is_file() and (path / PIXELS).is_file():
        verify(path)
        return CachedImages(path)
    parts = parts_of(path)
    if parts.train != path or parts.loose:
        say_parts(path, parts)
    return ImageFolder(parts.train, policy, among)


def say_parts(path: Path, parts: Parts) -> None:
    """A line in the log on what is taken of a folder that holds splits, and on what is not."""
    loose = few(parts.loose)
    if parts.train == path:
        logger.warning(
            "%s holds images beside its folders (%s): all of it is taken, and no folder as a split", path, loose
        )
        return
    words = [f"{path} holds splits: taking {parts.train.name} to train on"]
    if parts.kept_out:
        words += [f"{parts.kept_out.name} is for validation"]
    if parts.left_out:
        words += [f"left out: {', '.join(parts.left_out)} (name one with --data to train on it instead)"]
    if loose:
        words += [f"left out beside the folders: {loose} (move what is to be trained on into {parts.train.name})"]
    if parts.empty:
        words += [f"without images: {', '.join(parts.empty)}"]
    logger.warning("%s", "; ".join(words))


def open_packed(files: Sequence[File], policy: DecodePolicy) -> Images:
    """The images of tar shards, or of parquet files."""
    missing = [str(file) for file in files if isinstance(file, Path) and not file.is_file()]
    if missing:
        raise ImageSourceError(f"{missing[0]!r} does not exist: give {files[0].suffix} files that do")
    return TarImages(files, policy) if files[0].suffix == TAR else open_parquet(files, policy)


def open_parquet(files: Sequence[File], policy: DecodePolicy) -> Images:
    """The images of parquet files: in memory, or in place, as their size asks."""
    require_pyarrow()
    from ssl_backbones.data.hub_dataset import load_parquet
    from ssl_backbones.data.parquet_in_memory import ParquetImages
    from ssl_backbones.data.parquet_in_place import LARGEST, RowGroupImages

    if sum(stamp(file)[0] for file in files) <= HELD_IN_MEMORY:
        return ParquetImages(files, policy)
    images = RowGroupImages(files, policy)
    here = [file for file in files if isinstance(file, Path)]
    if images.largest <= LARGEST or not here:
        return images
    logger.warning(
        "%s has row groups of up to %d MiB: it is laid out a second time in the cache of `datasets`; row groups of at "
        "most %d MiB are read in place",
        files[0],
        images.largest >> 20,
        LARGEST >> 20,
    )
    return load_parquet(here, policy)


def say_what_is_left(spec: Spec, taken: Sequence[Path]) -> None:
    """A line in the log where a folder holds more files of a kind than are taken, or images as well."""
    if isinstance(spec, str | Path) and Path(spec).expanduser().is_dir():
        if any(images_below(Path(spec).expanduser())):
            logger.warning(
                "%s holds images as well: taking %s, not those (move such files elsewhere to take the images)",
                spec,
                ", ".join(f.name for f in taken),
            )
        beside = packed_in(taken[0].parent, taken[0].suffix)
        say_left(str(spec), taken, [file for file in beside if file not in taken])


def is_hub_name(spec: str | Path) -> bool:
    """True if a source has the form of a Hub dataset id, with or without a split."""
    return isinstance(spec, str) and HUB_NAME.fullmatch(spec) is not None
