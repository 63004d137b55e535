"""The columns of an Arrow table that hold images and labels, and their contents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_backbones.data.digest_index import contents_of_list, digests_of_rows
from ssl_backbones.data.digests import digest_of_bytes
from ssl_backbones.data.formats import is_image
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.keys import PathKeys, size_of
from ssl_backbones.data.labels import LABEL_NAMES, labels_by_name, labels_by_number
from ssl_backbones.data.stored import File
from ssl_backbones.files import object_in

IMAGE_NAMES = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp", "bytes")


def image_column(schema: pa.Schema, source: str) -> str:
    """The column of encoded images: bytes, or a struct that has them, by its name where there are several."""
    found = [field.name for field in schema if holds_bytes(field.type)]
    named = [name for name in IMAGE_NAMES if name in found]
    if len(found) == 1 or named:
        return (named or found)[0]
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none at all"
    if found:
        raise ImageSourceError(
            f"{source} may have images in {', '.join(found)}: name the one to be used 'image' (columns: {columns})"
        )
    raise ImageSourceError(
        f"{source} has no column of images, which is bytes or a struct with a field 'bytes' (columns: {columns})"
    )


def holds_bytes(kind: pa.DataType) -> bool:
    """True if a column of this type can hold encoded images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def label_column(schema: pa.Schema, names: Mapping[str, Sequence[str]]) -> str | None:
    """The column of labels, given the columns that have class names; None where there is none."""
    plain = [field.name for field in schema if holds_labels(field.type)]
    by_name = [name for name in LABEL_NAMES if name in plain]
    with_names = [field.name for field in schema if field.name in names and field.name in plain]
    both = [name for name in by_name if name in with_names]
    return next(iter([*both, *with_names, *by_name]), None)


def holds_labels(kind: pa.DataType) -> bool:
    """True if a column of this type can hold one label a row."""
    if pa.types.is_dictionary(kind):
        return holds_labels(kind.value_type)
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column to class names, as `datasets` notes them in a schema's metadata; nothing where it did not."""
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        features: Any = object_in(noted)["info"]["features"] if noted else {}
    except (ValueError, KeyError, TypeError):
        return {}
    found = {}
    for column, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names"):
            found[column] = [str(name) for name in feature["names"]]
    return found


def labels_of(column: pa.ChunkedArray, names: Sequence[str] | None) -> tuple[np.ndarray | None, list[str]]:
    """Labels (N,) and class names of a column of numbers or strings; -1 for a missing one, None where all are."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_integer(column.type):
        return labels_by_name(column.to_pylist())
    signed = column.cast(pa.int64(), safe=False)  # what is beyond comes out below 0, as no class is
    return labels_by_number(pc.fill_null(signed, -1).to_numpy().astype(np.int64), names)


def encoded_images(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The encoded images (N,) of an image column, without their paths."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def files_of(column: pa.ChunkedArray, folders: Collection[Path]) -> PathKeys | None:
    """The file that each row of an image column names instead of bytes, empty for other rows; None where none does.

    `datasets` writes such rows of files on the disk.
    """
    if not pa.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
        return None
    named = pc.and_(pc.is_null(pc.struct_field(column, "bytes")), pc.is_valid(pc.struct_field(column, "path")))
    if not pc.any(named).as_py():
        return None
    paths = pc.if_else(named, pc.struct_field(column, "path"), "").to_pylist()
    return PathKeys(str(named_file(path, folders) or "") for path in paths)


def named_file(path: str | None, folders: Collection[Path]) -> Path | None:
    """The image file that a row names, a relative one below the first of the folders that has it; None for any other.

    A table may be anybody's: of a file that is no image by its name or first bytes, nothing is read nor told.
    """
    if not path:
        return None
    file = next((folder / path for folder in folders if (folder / path).exists()), Path(path))
    return file if is_image(str(file), file.name) else None


def sizes_of(encoded: pa.ChunkedArray, files: PathKeys | None = None) -> np.ndarray:
    """The size in bytes of each encoded image (N,), or of the file that its row names; -1 for a missing one."""
    sizes: np.ndarray = pc.fill_null(pc.binary_length(encoded).cast(pa.int64()), -1).to_numpy()
    if files is not None:
        sizes = np.array([size_of(Path(file)) if file else size for file, size in zip(files, sizes, strict=True)])
    return sizes


def digests_of(
    encoded: pa.ChunkedArray, named: PathKeys | None, files: Sequence[File], name: str, whole: bool = False
) -> np.ndarray:
    """The digest of each encoded image (N, D), or of the file that its row names. The column lies in `files`."""
    ask = partial(digest_of_bytes, whole=True) if whole else digest_of_bytes
    digests = digests_of_rows(files, len(encoded), lambda row: ask(encoded[row].as_buffer()), name, whole)
    if named is not None:
        rows = np.flatnonzero(np.diff(named.ends))
        digests = digests.copy()
        digests[rows] = contents_of_list(Path(), PathKeys(named[int(row)] for row in rows), whole).digests
    return digests
