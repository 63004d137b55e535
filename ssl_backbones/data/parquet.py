"""Images in parquet files that fit into memory, as they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_backbones.data.columns import (
    class_names,
    digests_of,
    encoded_images,
    files_of,
    image_column,
    label_column,
    labels_of,
    sizes_of,
)
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.keys import RowKeys, fingerprint_by_sizes_of, names_of
from ssl_backbones.data.rows import RowImages


class ParquetImages(RowImages):
    """The rows of one or several parquet files of the same columns. A worker that is not forked reads them again."""

    def __init__(self, files: Sequence[str | Path], policy: DecodePolicy = USUAL_POLICY) -> None:
        self.files = tuple(Path(file) for file in files)
        self.place = self.files[0]
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

    def encoded(self, index: int) -> bytes | Path | None:
        return self.column[index]


@final
class EncodedColumn:
    """A column of images in parquet files: a row holds one as it is encoded, or names a file. Pickles without them."""

    def __init__(self, files: Sequence[Path], name: str, column: pa.ChunkedArray | None = None) -> None:
        """`column` is what was read of the files already."""
        self.files, self.name = tuple(files), name
        column = self.read() if column is None else column
        self.rows: pa.ChunkedArray | None = encoded_images(column)
        self.named = files_of(column, dict.fromkeys(file.parent for file in self.files))
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
            self.rows = encoded_images(self.read())
        encoded: bytes | None = self.rows[at].as_py()
        if encoded is None and self.named is not None and self.named[at]:
            return Path(self.named[at])
        return encoded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": None}


def wanted_columns(files: Sequence[Path]) -> tuple[str, str | None, Sequence[str] | None]:
    """The columns of images and of labels in files that are alike, and the labels' names, or ImageSourceError."""
    schemas = [schema_of(file) for file in files]
    image = image_column(schemas[0], repr(str(files[0])))
    names = class_names(schemas[0])
    label = label_column(schemas[0], names)
    check_alike(files, schemas, [image, *([label] if label else [])])
    return image, label, names.get(label) if label else None


def row_keys(files: Sequence[Path], counts: Sequence[int]) -> RowKeys:
    """The keys of files of so many rows each; ImageSourceError where there is none."""
    if not sum(counts):
        raise ImageSourceError(f"there is no row in {', '.join(repr(str(file)) for file in files)}: add images")
    return RowKeys(names_of(files), counts)


def labels_in(
    files: Sequence[Path], label: str | None, names: Sequence[str] | None
) -> tuple[np.ndarray | None, list[str]]:
    """Labels (N,) and class names of all rows; None where there is no column of them."""
    return labels_of(joined([read(file, [label]) for file in files], label), names) if label else (None, [])


def metadata_of(file: Path) -> pq.FileMetaData:
    """The end of a parquet file, which tells its row groups."""
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def schema_of(file: Path) -> pa.Schema:
    """The columns of a parquet file."""
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def read(file: Path, columns: list[str]) -> pa.Table:
    """The columns of a parquet file, read in this thread alone: it may be that of a forked worker."""
    try:
        return pq.ParquetFile(file, pre_buffer=False).read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> ImageSourceError:
    """The error of a file that is no parquet, or a torn one."""
    reason = " ".join(str(error).split()).rstrip(".")
    return ImageSourceError(f"{str(file)!r} cannot be read as parquet ({reason}): make it anew, or leave it out")


def check_alike(files: Sequence[Path], schemas: Sequence[pa.Schema], columns: Sequence[str]) -> None:
    """ImageSourceError where a file's columns or class names are not those of the first."""
    first, names = schemas[0], class_names(schemas[0])
    for file, schema in zip(files, schemas, strict=True):
        for column in columns:
            if column not in schema.names or schema.field(column).type != first.field(column).type:
                kind = schema.field(column).type if column in schema.names else "missing"
                raise ImageSourceError(
                    f"column {column!r} is {first.field(column).type} in {str(files[0])!r} "
                    f"and {kind} in {str(file)!r}: files that are read together must be alike"
                )
            if class_names(schema).get(column) != names.get(column):
                raise ImageSourceError(
                    f"the classes of {column!r} in {str(file)!r} are not those in {str(files[0])!r}: "
                    "files that are read together must have the same classes"
                )


def joined(tables: Sequence[pa.Table], column: str) -> pa.ChunkedArray:
    """One column of all the tables, one behind the other."""
    chunks = [chunk for table in tables for chunk in table[column].chunks]
    return pa.chunked_array(chunks, tables[0][column].type)
