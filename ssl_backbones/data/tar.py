"""Images in tar shards, read where they lie: on a disk, or at addresses."""

from __future__ import annotations

import errno
import os
from array import array
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from ssl_backbones.data.addresses import Address, changed
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy, decode
from ssl_backbones.data.descriptors import open_to_read, read_at
from ssl_backbones.data.digest_index import digests_of_rows
from ssl_backbones.data.digests import WIDTH, digest_of_bytes, spread
from ssl_backbones.data.fetching import Fetching
from ssl_backbones.data.images import Images, ImageSourceError, UnreadableImageError
from ssl_backbones.data.keys import GrowingKeys, PathKeys, names_of
from ssl_backbones.data.labels import labels_as_written
from ssl_backbones.data.shards import Shards
from ssl_backbones.data.shortage import require_resources
from ssl_backbones.data.stored import opened, rooted, stamp
from ssl_backbones.data.tar_index import TarIndex, digest_at, index_of
from ssl_backbones.data.threads import THREADS, of_each

WINDOW = 16_384
"""Images that an epoch mixes: 2 GB of ImageNet's."""
COMPARED = 64
"""Images that kept indexes are held against at a start, at least one of each shard."""
MANY_THREADS = 32
"""Shards at addresses that are looked at together: most of the time is waiting."""
AHEAD, AHEAD_BYTES = 64, 2**30
"""Shards that were read last, and bytes of a shard up to which its first image makes the system fetch all of it."""


class TarImages(Images):
    """The images of tar shards, in the order of the shards and of the files in each. A pickle names the shards.

    Their labels are what the label files say: class numbers, or names.
    """

    labels_from = "label files"

    def __init__(self, files: Sequence[str | Path | Address], policy: DecodePolicy = USUAL_POLICY) -> None:
        """Look for the index of each shard, and make those that are not kept. Raises ImageSourceError."""
        self.files = tuple(Path(file) if isinstance(file, str) else file for file in files)
        self.policy = policy
        distant = [file for file in self.files if isinstance(file, Address)]
        self.place = None if isinstance(self.files[0], Address) else self.files[0]
        look = partial(index_of, compared=max(1, COMPARED // len(self.files)))
        threads = MANY_THREADS if distant else THREADS
        indexes = of_each(self.files, look, "shards looked at for their images", 1, threads)
        found = Gathered()
        for name, index in zip(names_of([rooted(file) for file in self.files]), indexes, strict=True):
            found.add(name, index)
        self.keys, self.ends = found.keys.finished(), np.array(found.ends)
        self.sizes, self.offsets = np.frombuffer(found.sizes, np.int64), np.frombuffer(found.offsets, np.int64)
        self.digests = self.contents = np.frombuffer(found.digests, np.uint8).reshape(-1, WIDTH)
        self.stamps = np.concatenate(found.stamps)
        self.labels, self.classes = found.labels_and_classes()
        self.shards = Shards(self.ends, WINDOW)
        self.read_lately: deque[int] = deque(maxlen=AHEAD)
        self.fetching = Fetching(distant, WINDOW * float(self.sizes.mean())) if distant else None

    def __getitem__(self, index: int) -> Image.Image:
        key = self.keys[index]
        try:
            encoded = self.read(index)
        except OSError as error:
            reason = f"its shard is cut short, or the disk fails ({error.strerror})"
            raise UnreadableImageError(f"{key!r} cannot be read: {reason}") from error
        return decode(encoded, key, self.policy)

    def soon(self, shards: np.ndarray) -> None:
        if self.fetching is not None:
            self.fetching.soon([(shard, 0, self.fetching.files[shard].size) for shard in shards.tolist()])

    def raw(self, index: int) -> bytes | None:
        """The bytes of an image; None where they cannot be read. ImageSourceError where its shard is another by now."""
        try:
            return self.read(index)
        except OSError:
            return None

    def read(self, index: int) -> bytes:
        """The bytes of an image; OSError where they cannot be read, and ShortageError where the process lacks files.

        ImageSourceError where its shard is another by now.
        """
        at = range(len(self))[index]
        shard = int(np.searchsorted(self.ends, at, side="right")) - 1
        size, offset = self.extent(at)
        if self.fetching is not None:
            found = self.fetching.read(shard, offset, size)
            if digest_of_bytes(found) != self.contents[at].tobytes():
                raise changed(self.files[shard])
            return found
        try:
            descriptor = open_to_read(self.files[shard])  # type: ignore[arg-type]
            try:
                self.require_same(shard, os.fstat(descriptor))
                self.read_ahead(shard, descriptor)
                found = read_at(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            require_resources(error, self.files[shard])
            raise
        if len(found) < size:
            raise OSError(errno.EIO, f"{len(found):,} of {size:,} bytes")
        return found

    def extent(self, at: int) -> tuple[int, int]:
        """The size of an image, and its first byte in its shard."""
        assert self.sizes is not None
        return int(self.sizes[at]), int(self.offsets[at])

    def whole_digests(self) -> np.ndarray:
        name = f"{str(self.files[0])!r} and {len(self) - 1} more"

        def digest(row: int) -> bytes:
            return digest_of_bytes(self.raw(row), whole=True)

        return digests_of_rows(self.files, len(self), digest, name, whole=True, full=True)

    def at_hand(self) -> None:
        """Take this machine's own copies of the shards, if there are such, by a few images of each."""
        if self.fetching is not None:
            self.fetching.opened()
        self.stamps = self.stamps.copy()  # those that were opened are the other processes' too
        for shard, file in enumerate(self.files):
            if isinstance(file, Address):
                return
            try:
                self.stamps[shard] = self.own_stamp(shard, file)
            except OSError as error:
                raise ImageSourceError(
                    f"{str(file)!r} cannot be read by this process ({error.strerror}): shards lie at the same place "
                    "for all processes, shared or copied"
                ) from error

    def own_stamp(self, shard: int, file: Path) -> tuple[int, int, int, int]:
        """The stamp of a shard as this process sees it. ImageSourceError where that is another shard."""
        own, first, known = stamp(file), int(self.ends[shard]), tuple(self.stamps[shard].tolist())
        if own == known:
            return own
        rows = [first + at for at in spread(int(self.ends[shard + 1]) - first, COMPARED)]
        with opened(file) as read:
            extents = [self.extent(row) for row in rows]
            found = [digest_at(read, offset, size) for size, offset in extents]
        if own[0] != known[0] or found != [self.contents[row].tobytes() for row in rows]:
            raise changed(file)
        return own

    def require_same(self, shard: int, state: os.stat_result) -> None:
        """Refuse a shard whose size, time or inode is not what its index was made of."""
        size, written, _, inode = self.stamps[shard].tolist()
        if (state.st_size, state.st_mtime_ns, state.st_ino & (2**63 - 1)) != (size, written, inode):
            raise changed(self.files[shard])

    def read_ahead(self, shard: int, descriptor: int) -> None:
        """Let the system fetch a shard in sequence when its first image is asked for: its others are soon."""
        if shard not in self.read_lately and hasattr(os, "posix_fadvise"):
            self.read_lately.append(shard)
            if self.stamps[shard, 0] <= AHEAD_BYTES:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


@final
class Gathered:
    """The indexes of shards, put together one by one in hardly more memory than all have in the end."""

    def __init__(self) -> None:
        self.keys, self.ends = GrowingKeys(), [0]
        self.sizes, self.offsets, self.label_of, self.digests = array("q"), array("q"), array("q"), bytearray()
        self.stamps: list[np.ndarray] = []
        self.texts: list[list[str]] = []

    def add(self, name: str, index: TarIndex) -> None:
        """Add the index of the next shard, and its name to that of each image."""
        keys = PathKeys(f"{name}/{key}" for key in index.keys)
        self.keys.add(keys.block, np.diff(keys.ends))
        self.sizes.frombytes(index.sizes.tobytes())
        self.offsets.frombytes(index.offsets.tobytes())
        self.label_of.frombytes(index.label_of.tobytes())
        self.digests += index.digests.tobytes()
        self.ends.append(self.ends[-1] + len(index))
        self.stamps.append(index.stamp)
        self.texts.append(list(index.labels))

    def labels_and_classes(self) -> tuple[np.ndarray | None, list[str]]:
        """Labels (N,) and class names of all images; -1 for a missing label, None where all are."""
        texts = sorted({text for shard in self.texts for text in shard})
        numbers, classes = labels_as_written(texts)
        if numbers is None:
            return None, []
        number = dict(zip(texts, numbers.tolist(), strict=True))
        labels = np.frombuffer(self.label_of, np.int64)
        for shard, (start, end) in zip(self.texts, pairwise(self.ends), strict=True):
            table = np.array([*(number[text] for text in shard), -1], np.int64)
            labels[start:end] = table[labels[start:end]]
        return labels, classes
