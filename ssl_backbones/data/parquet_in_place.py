"""Images in parquet files too large for memory, read in place: a row group at a time, and few of them held."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_backbones.data.addresses import Address, changed
from ssl_backbones.data.columns import named_file
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy
from ssl_backbones.data.digest_index import contents_of_list, digests_of_rows
from ssl_backbones.data.digests import MISSING, as_rows, digest_of_bytes
from ssl_backbones.data.fetching import Fetching
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.parquet import labels_in, metadata_of, row_keys, unreadable, wanted_columns
from ssl_backbones.data.rows import RowImages
from ssl_backbones.data.shards import Shards
from ssl_backbones.data.stored import AsFile, File, folders_of

LARGEST = 128 * 2**20
"""Bytes of the images of a row group, at most, and of a window, on average; a reader holds twice as many."""
COMPARED = 8
"""Images that kept digests are held against: each takes the reading of a row group."""


@final
class RowGroupImages(RowImages):
    """The rows of parquet files of the same columns. A pickle names the files."""

    def __init__(self, files: Sequence[str | Path | Address], policy: DecodePolicy = USUAL_POLICY) -> None:
        """Look at the files' ends and at their labels. Raises ImageSourceError."""
        self.files, self.policy = tuple(Path(file) if isinstance(file, str) else file for file in files), policy
        distant = [file for file in self.files if isinstance(file, Address)]
        self.place = None if isinstance(self.files[0], Address) else self.files[0]
        self.image, label, names = wanted_columns(self.files)
        groups = [groups_of(file, self.image) for file in self.files]
        self.keys = row_keys(self.files, [sum(group.rows for group in each) for each in groups])
        self.places = [(at, number) for at, each in enumerate(groups) for number in range(len(each))]
        self.extents = [(at, group.start, group.end) for at, each in enumerate(groups) for group in each]
        self.labels, self.classes = labels_in(self.files, label, names)
        rows, sizes = np.array([(group.rows, group.size) for each in groups for group in each], np.int64).T
        self.ends = np.cumsum([0, *rows])
        self.largest = int(sizes.max())
        """Bytes of the largest row group's images."""
        self.shards = Shards(self.ends, max(1, LARGEST * len(self.keys) // max(1, int(sizes.sum()))))
        self.held = HeldGroups()
        self.fetching = Fetching(distant, LARGEST) if distant else None

    def at_hand(self) -> None:
        """Use the blocks of what lies at an address, for this process's readers."""
        if self.fetching is not None:
            self.fetching.opened()

    @cached_property
    def digests(self) -> np.ndarray:  # type: ignore[override]
        return self.digests_as(whole=False)

    def whole_digests(self) -> np.ndarray:
        return self.digests_as(whole=True)

    def digests_as(self, whole: bool) -> np.ndarray:
        """The digests (N, D) of all rows, or of the files that they name: a row group after the other is read."""
        name = f"{str(self.files[0])!r}, {self.image}"

        def ask(row: int) -> bytes:
            return digest_of_bytes(self.row(row)[0], whole)

        found = digests_of_rows(self.files, len(self), ask, name, whole, COMPARED, threads=1)
        rows = np.flatnonzero((found == as_rows([MISSING])).all(axis=1))
        named = {int(row): file for row in rows if (file := self.named(int(row)))}
        if named:
            found = found.copy()
            found[list(named)] = contents_of_list(Path(), PathKeys(map(str, named.values())), whole).digests
        return found

    def encoded(self, index: int) -> bytes | Path | None:
        at = range(len(self))[index]
        found = self.row(at)[0]
        if found is None:
            return self.named(at)
        known = self.__dict__.get("digests")  # taken at the start, by a run's first process for all
        if known is not None and digest_of_bytes(found) != known[at].tobytes():
            raise changed(self.files[self.places[self.group_of(at)][0]])
        return found

    def named(self, row: int) -> Path | None:
        """The image file that a row names."""
        return named_file(self.row(row)[1], folders_of(self.files))

    def soon(self, shards: np.ndarray) -> None:
        if self.fetching is not None:
            self.fetching.soon([self.extents[shard] for shard in shards.tolist()])

    def row(self, row: int) -> tuple[bytes | None, str | None]:
        """The bytes of a row, and the path that stands beside them."""
        group = self.group_of(row)
        held = self.held.of(group, self.read)[row - int(self.ends[group])].as_py()
        return (held["bytes"], held.get("path")) if isinstance(held, dict) else (held, None)

    def group_of(self, row: int) -> int:
        """The row group that a row lies in."""
        return int(np.searchsorted(self.ends, row, side="right")) - 1

    def read(self, group: int) -> pa.ChunkedArray:
        """The images of a row group, read in this thread alone: it may be that of a forked worker."""
        at, number = self.places[group]
        try:
            table = pq.ParquetFile(self.content(at), pre_buffer=False)
            column = table.read_row_group(number, columns=[self.image], use_threads=False)[self.image]
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.files[at], error) from error
        if len(column) != self.ends[group + 1] - self.ends[group]:
            raise changed(self.files[at])
        return column

    def content(self, at: int) -> Path | AsFile:
        """A file, to be read by its path, or through blocks."""
        file = self.files[at]
        if isinstance(file, Path) or self.fetching is None:
            return Path(str(file))
        return AsFile(partial(self.fetching.read, at), file.size)


@final
class HeldGroups:
    """The row groups that were read last. Pickles empty."""

    def __init__(self) -> None:
        self.groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self.lock = threading.Lock()

    def of(self, group: int, read: Callable[[int], pa.ChunkedArray]) -> pa.ChunkedArray:
        """A row group, which one thread reads if it is not held."""
        with self.lock:
            if group not in self.groups:
                self.groups[group] = read(group)
            self.groups.move_to_end(group)
            while len(self.groups) > 1 and sum(held.nbytes for held in self.groups.values()) > 2 * LARGEST:
                self.groups.popitem(last=False)
            return self.groups[group]

    def __reduce__(self) -> tuple[type[HeldGroups], tuple[()]]:
        return HeldGroups, ()


class Group(NamedTuple):
    """A row group's images: their number, their bytes once they are held, and where they lie in the file."""

    rows: int
    size: int
    start: int
    end: int


def groups_of(file: File, image: str) -> list[Group]:
    """The row groups of a file, by its column of images."""
    about = metadata_of(file)
    return [group_of(about.row_group(number), image) for number in range(about.num_row_groups)]


def group_of(group: pq.RowGroupMetaData, image: str) -> Group:
    """A row group, by its column of images."""
    columns = [group.column(number) for number in range(group.num_columns)]
    parts = [each for each in columns if each.path_in_schema == image or each.path_in_schema.startswith(f"{image}.")]
    starts = [min(filter(None, (each.dictionary_page_offset, each.data_page_offset))) for each in parts]
    ends = [start + each.total_compressed_size for start, each in zip(starts, parts, strict=True)]
    return Group(group.num_rows, sum(each.total_uncompressed_size for each in parts), min(starts), max(ends))
