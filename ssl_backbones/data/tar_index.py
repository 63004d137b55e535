"""The index of a tar shard in webdataset's form, kept from start to start: images, their places, labels and digests.

An entry of a shard is the files of one name up to the first dot behind the last slash: an image, and beside it a label
file (`.cls`, `.label` and the like) or others, which are left alone. https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import re
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_backbones.data.addresses import Address
from ssl_backbones.data.digests import WIDTH, Read, as_rows, digest_of
from ssl_backbones.data.formats import looked_for, suffixes
from ssl_backbones.data.images import ImageSourceError, NoImageError
from ssl_backbones.data.kept_arrays import are_texts, keep_arrays, place_of, read_arrays, settled, stamps_in, turn
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.labels import LABEL_NAMES
from ssl_backbones.data.shortage import require_resources
from ssl_backbones.data.stored import AsFile, File, is_versioned, known_as, opened, stamp
from ssl_backbones.data.threads import THREADS
from ssl_backbones.data.verifying import OTHER, TOUCHED, UNKNOWN, YOUNG, agree, is_verifying, tell
from ssl_backbones.refusal import reason

KEPT_FROM = 2**20
"""Bytes of a shard from which on its index is worth a file: a smaller one is read anew in a moment."""
LONGEST_END = 2**20
"""Bytes of zeros at the end of a tar, at most: the largest usual record."""
LONGEST_LABEL = 1024
"""Bytes of a label file, at most."""
NOTE = re.compile(r"__[^.]*__(?:\.|$)")
"""The name of what a shard holds of itself, such as `__index__.json`; `__` alone may begin an image's."""
NAMES = ("keys", "ends", "offsets", "sizes", "digests", "label_of", "labels", "label_ends", "stamp")


class Place(NamedTuple):
    """A file inside of a shard, with the digest of an image or the text of a label."""

    name: str
    offset: int
    size: int
    digest: bytes = b""
    text: str = ""


@dataclass(frozen=True)
class TarIndex:
    """The N images of a shard, in the order of their bytes."""

    keys: PathKeys
    """Their names in the shard."""
    offsets: np.ndarray
    """(N,) int64: the first byte of each."""
    sizes: np.ndarray
    """(N,) int64: bytes."""
    digests: np.ndarray
    """(N, WIDTH) uint8."""
    label_of: np.ndarray
    """(N,) int64: the place of each one's label among `labels`, -1 where it has none."""
    labels: PathKeys
    """The texts of the label files, each once."""
    stamp: np.ndarray
    """(1, 4) int64, as `stamp_of` has it."""

    def agrees(self, shard: File, most: int) -> bool:
        """True if the shard has the same stamp, and a few of its images the same digests where they may differ."""
        if tuple(self.stamp[0]) != stamp(shard):
            tell([str(shard)], YOUNG if self.stamp[0, 0] < 0 else TOUCHED)
            return False
        if is_versioned(shard) and not is_verifying():
            return True
        what = f"images of {shard} held against its index"
        threads = 1 if isinstance(shard, Address) else THREADS  # what is read at an address goes on from the last
        with opened(shard) as read:
            same = agree(self.digests, partial(self.digest_in, read), most, what, threads)
        tell([] if same else [str(shard)], OTHER)
        return same

    def digest_in(self, read: Read, at: int) -> bytes:
        """The digest of an image as it lies in the open shard now."""
        return digest_at(read, int(self.offsets[at]), int(self.sizes[at]))

    def __len__(self) -> int:
        return len(self.keys)


def index_of(shard: File, compared: int = 1) -> TarIndex:
    """The index of a shard: the one that is kept if it still fits, held against so many of the images; else a new one.

    ImageSourceError says what is wrong with the shard; nothing is kept of such a one.
    """
    try:
        name = f"{known_as(shard)} {looked_for()}".rstrip()
        place = place_of(name, "shards") if stamp(shard)[0] >= KEPT_FROM else None
        if place is None:
            tell([str(shard)], UNKNOWN)
            return indexed(shard)
        index = kept(place)
        if index is not None and index.agrees(shard, compared):
            return index
        tell([str(shard)] if index is None else [], UNKNOWN)
        with turn(place):
            index = None if is_verifying() else kept(place)  # another process may have written it
            if index is None or not index.agrees(shard, compared):
                asked_at = time.time_ns()
                index = indexed(shard)
                keep(place, replace(index, stamp=settled(index.stamp, asked_at)))
        return index
    except ImageSourceError:
        raise
    except (OSError, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # of headers at random
        require_resources(error, shard)
        raise torn(shard, reason(error)) from error


def indexed(shard: File) -> TarIndex:
    """A new index of a shard, of which all headers and a few blocks of every image are read."""
    before = stamp(shard)
    with opened(shard) as read:
        images, labels = entries_of(shard, read)
    names = sorted({label.text for label in labels.values() if label.text})
    number = {text: at for at, text in enumerate(names)}
    texts = [labels[entry].text if entry in labels else "" for entry in images]
    if before != stamp(shard):
        raise torn(shard, "it changed while it was read")
    return TarIndex(
        PathKeys(image.name for image in images.values()),
        np.array([image.offset for image in images.values()], np.int64),
        np.array([image.size for image in images.values()], np.int64),
        as_rows([image.digest for image in images.values()]),
        np.array([number.get(text, -1) for text in texts], np.int64),
        PathKeys(names),
        stamps_in([before]),
    )


def entries_of(shard: File, read: Read) -> tuple[dict[str, Place], dict[str, Place]]:
    """The image of each entry, and the label file of each that has one; ImageSourceError for other entries.

    An image is read when its header is: what lies at an address is gone through once.
    """
    images: dict[str, Place] = {}
    labels: dict[str, tuple[int, Place]] = {}
    others: dict[str, str] = {}
    for place in files_in(shard, read):
        folder, slash, base = place.name.rpartition("/")
        stem, _, suffix = base.lower().partition(".")
        entry = folder + slash + base[: len(stem)]
        if f".{suffix}" in suffixes():
            if entry in images:
                raise odd(shard, f"has two images of one key, {images[entry].name!r} and {place.name!r}")
            images[entry] = place._replace(digest=digest_at(read, place.offset, place.size))
        elif suffix in LABEL_NAMES:
            before = labels.get(entry)
            if before and before[1].name == place.name:
                raise odd(shard, f"has two entries of one key, {place.name!r}")
            if before is None or LABEL_NAMES.index(suffix) < before[0]:
                labels[entry] = LABEL_NAMES.index(suffix), place._replace(text=label_in(read, place, shard))
        else:
            others[entry] = place.name
    bare = next((entry for entry in (*labels, *others) if entry not in images), None)
    if bare is not None:
        found = labels[bare][1].name if bare in labels else others[bare]
        raise odd(shard, f"has an entry without an image, {found!r}", ImageSourceError if images else NoImageError)
    if not images:
        raise odd(shard, "holds no image", NoImageError)
    return images, {entry: place for entry, (_, place) in labels.items()}


def files_in(shard: File, read: Read) -> Iterator[Place]:
    """The files of a shard in the order in which they lie, without hidden ones and notes such as `__index__`.

    Raises ImageSourceError for a shard cut short or that goes on behind its end, and for an image that lies elsewhere.
    """
    with tarfile.open(fileobj=AsFile(read, stamp(shard)[0]), mode="r:") as archive:
        while (member := archive.next()) is not None:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if not parts or any(part.startswith(".") or NOTE.match(part) for part in parts):
                continue
            if member.islnk() or member.issym() or member.issparse():
                raise odd(shard, f"holds {member.name!r} as a link, or with holes")
            if member.isfile():
                yield Place("/".join(parts), member.offset_data, member.size)
        end = archive.offset
    rest = stamp(shard)[0] - end
    if not tarfile.BLOCKSIZE <= rest <= LONGEST_END or any(read(end, rest)):
        raise torn(shard, f"it does not go on after {end:,} bytes as a tar does, nor end as one")


def label_in(read: Read, place: Place, shard: File) -> str:
    """The text of a label file."""
    if place.size > LONGEST_LABEL:
        raise odd(shard, f"has a label of {place.size:,} bytes, {place.name!r}, more than {LONGEST_LABEL:,}")
    try:
        return bytes(read(place.offset, place.size)).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise odd(shard, f"has a label that is no text, {place.name!r}") from error


def digest_at(read: Read, offset: int, size: int) -> bytes:
    """The digest of an image that lies in an open shard."""
    return digest_of(size, lambda at, count: read(offset + at, count))


def kept(place: Path) -> TarIndex | None:
    """The index that a file holds; None where it holds none that could be one."""
    arrays = read_arrays(place, NAMES)
    if arrays is None:
        return None
    keys, ends, offsets, sizes, digests, label_of, labels, label_ends, stamp = (arrays[name] for name in NAMES)
    whole = [(array.dtype.str, array.shape) for array in (offsets, sizes, label_of, digests, stamp)]
    count = len(ends) - 1
    if whole != [*[("<i8", (count,))] * 3, ("|u1", (count, WIDTH)), ("<i8", (1, 4))]:
        return None
    if not are_texts(keys, ends) or not are_texts(labels, label_ends):
        return None
    if count and not -1 <= label_of.min() <= label_of.max() < len(label_ends) - 1:
        return None
    return TarIndex(PathKeys.of(keys, ends), offsets, sizes, digests, label_of, PathKeys.of(labels, label_ends), stamp)


def keep(place: Path, index: TarIndex) -> None:
    """Write an index."""
    keys, labels = (texts.block for texts in (index.keys, index.labels))
    arrays = (keys, index.keys.ends, index.offsets, index.sizes, index.digests, index.label_of, labels)
    keep_arrays(place, dict(zip(NAMES, (*arrays, index.labels.ends, index.stamp), strict=True)))


def torn(shard: File, what: str) -> ImageSourceError:
    """The error of a file that is no tar, or not a whole one."""
    return ImageSourceError(f"{str(shard)!r} cannot be read as a tar ({what}): write it anew, or leave it out")


def odd(shard: File, what: str, kind: type[ImageSourceError] = ImageSourceError) -> ImageSourceError:
    """The error of a tar that is no shard of images."""
    return kind(
        f"{str(shard)!r} {what}: write the shard anew, with one image and at most one label file (.cls) under each name"
    )
