"""Images in parquet files that fit into memory, as they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from ssl_backbones.data.addresses import Address, changed, require_same
from ssl_backbones.data.columns import digests_of, encoded_images, files_of, sizes_of
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy
from ssl_backbones.data.digests import digest_of_bytes
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.keys import fingerprint_by_sizes_of
from ssl_backbones.data.parquet import joined, labels_in, read, row_keys, wanted_columns
from ssl_backbones.data.rows import RowImages
from ssl_backbones.data.stored import File, folders_of


class ParquetImages(RowImages):
    """The rows of one or several parquet files of the same columns. A worker that is not forked reads them again."""

    def __init__(self, files: Sequence[str | Path | Address], policy: DecodePolicy = USUAL_POLICY) -> None:
        self.files = tuple(Path(file) if isinstance(file, str) else file for file in files)
        self.place = None if isinstance(self.files[0], Address) else self.files[0]
        self.policy = policy
        self.image, label, names = wanted_columns(self.files)
        tables = [read(file, [self.image]) for file in self.files]
        self.keys = row_keys(self.files, [table.num_rows for table in tables])
        self.column = EncodedColumn(self.files, self.image, joined(tables, self.image))
        self.labels, self.classes = labels_in(self.files, label, names)
        self.sizes = self.column.sizes
        self.fingerprint_by_sizes = fingerprint_by_sizes_of(self.keys, self.labels, self.sizes)

    @property
    def digests(self) -> np.ndarray:  # type: ignore[override]
        return self.column.digests

    def whole_digests(self) -> np.ndarray:
        return self.column.digests_as(whole=True)

    def at_hand(self) -> None:
        """Read the rows, so that forked workers share them."""
        _ = self.column[0]

    def encoded(self, index: int) -> bytes | Path | None:
        return self.column[index]


@final
class EncodedColumn:
    """A column of images in parquet files: a row holds one as it is encoded, or names a file. Pickles without them."""

    def __init__(self, files: Sequence[File], name: str, column: pa.ChunkedArray | None = None) -> None:
        """`column` is what was read of the files already."""
        self.files, self.name = tuple(files), name
        column = self.read() if column is None else column
        self.rows: pa.ChunkedArray | None = encoded_images(column)
        self.is_read_again = False
        self.named = files_of(column, folders_of(self.files))
        self.sizes = sizes_of(self.rows, self.named)

    def read(self) -> pa.ChunkedArray:
        """The column of all files."""
        return joined([read(file, [self.name]) for file in self.files], self.name)

    @cached_property
    def digests(self) -> np.ndarray:
        """The digests of all rows (N, D), taken at first use."""
        return self.digests_as(whole=False)

    def digests_as(self, whole: bool) -> np.ndarray:
        """The digests of all rows (N, D), over every byte if they are to be `whole`."""
        rows = encoded_images(self.read()) if self.rows is None else self.rows
        return digests_of(rows, self.named, self.files, f"{str(self.files[0])!r}, {self.name}", whole)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> bytes | Path | None:
        at = range(len(self))[index]
        if self.rows is None:
            self.rows, self.is_read_again = encoded_images(self.read()), True
        encoded: bytes | None = self.rows[at].as_py() if len(self.rows) == len(self) else b""
        known = self.__dict__.get("digests") if self.is_read_again else None  # taken by a run's first process for all
        if encoded is not None and known is not None and digest_of_bytes(encoded) != known[at].tobytes():
            raise changed_among(self.files)
        if encoded is None and self.named is not None and self.named[at]:
            return Path(self.named[at])
        return encoded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": None}


def changed_among(files: Sequence[File]) -> ImageSourceError:
    """The error of files of which one is no longer what it was; which one, an address tells."""
    for file in files:
        if isinstance(file, Address):
            require_same(file)
    return changed(files[0])
