"""Parquet files of images: the columns, labels and keys of one file or of several that are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_backbones.data.addresses import Address, require_same
from ssl_backbones.data.columns import class_names, image_column, label_column, labels_of
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.keys import RowKeys, names_of
from ssl_backbones.data.shortage import require_resources
from ssl_backbones.data.stored import File, as_file, rooted
from ssl_backbones.refusal import reason


def wanted_columns(files: Sequence[File]) -> tuple[str, str | None, Sequence[str] | None]:
    """The columns of images and of labels in files that are alike, and the labels' names, or ImageSourceError."""
    schemas = [schema_of(file) for file in files]
    image = image_column(schemas[0], repr(str(files[0])))
    names = class_names(schemas[0])
    label = label_column(schemas[0], names)
    check_alike(files, schemas, [image, *([label] if label else [])])
    return image, label, names.get(label) if label else None


def row_keys(files: Sequence[File], counts: Sequence[int]) -> RowKeys:
    """The keys of files of so many rows each; ImageSourceError where there is none."""
    if not sum(counts):
        raise ImageSourceError(f"there is no row in {', '.join(repr(str(file)) for file in files)}: add images")
    return RowKeys(names_of(list(map(rooted, files))), counts)


def labels_in(
    files: Sequence[File], label: str | None, names: Sequence[str] | None
) -> tuple[np.ndarray | None, list[str]]:
    """Labels (N,) and class names of all rows; None where there is no column of them."""
    return labels_of(joined([read(file, [label]) for file in files], label), names) if label else (None, [])


def metadata_of(file: File) -> pq.FileMetaData:
    """The end of a parquet file, which tells its row groups."""
    try:
        with as_file(file) as content:
            return pq.read_metadata(content)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def schema_of(file: File) -> pa.Schema:
    """The columns of a parquet file."""
    try:
        with as_file(file) as content:
            return pq.read_schema(content)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def read(file: File, columns: list[str]) -> pa.Table:
    """The columns of a parquet file, read in this thread alone: it may be that of a forked worker."""
    try:
        with as_file(file) as content:
            return pq.ParquetFile(content, pre_buffer=False).read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def unreadable(file: File, error: Exception) -> ImageSourceError:
    """The error of a file that is no parquet, or a torn one; of another than it was, where an address tells."""
    require_resources(error, file)
    if isinstance(file, Address):
        require_same(file)
    return ImageSourceError(f"{str(file)!r} cannot be read as parquet ({reason(error)}): make it anew, or leave it out")


def check_alike(files: Sequence[File], schemas: Sequence[pa.Schema], columns: Sequence[str]) -> None:
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
