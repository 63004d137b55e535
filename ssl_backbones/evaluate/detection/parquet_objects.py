"""Parquet files with a column of objects, each a box and a class, and perhaps one of instance masks."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.decode import without_pillows_warnings
from ssl_backbones.data.frames import frame_of
from ssl_backbones.data.parquet import joined, read, schema_of
from ssl_backbones.data.parquet_in_memory import EncodedColumn, ParquetImages
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages, Gathered, label_of
from ssl_backbones.evaluate.detection.values import box_of, flag_of, size_of
from ssl_backbones.evaluate.detection.voc_folder import VOC_CLASSES
from ssl_backbones.evaluate.frames import AnnotationsFrame, Size, spelled
from ssl_backbones.files import object_in

OBJECTS, MASKS = "objects", "instance_mask"
Column = Literal["category", "voc_category", "any"]
"""Field of an object that is its class; "any" puts all objects into one class."""


def open_parquet(
    files: Sequence[Path],
    column: Column | None = None,
    *,
    classes: Sequence[str] | None = None,
    frame: AnnotationsFrame = "auto",
) -> AnnotatedImages:
    """The images and objects of parquet files, by VOC's twenty classes where they are given, or else by `category`.

    `voc_category` counts from 1, and 0 leaves an object out; of `category` the schema has the names. With the column
    "any", every object is taken, whatever it is, as the one class "object". Raises ImageSourceError.
    """
    schema = schema_of(files[0])
    kind = object_type(schema, files[0])
    column = column or ("voc_category" if kind.get_field_index("voc_category") >= 0 else "category")
    if column != "any" and kind.get_field_index(column) < 0:
        raise ImageSourceError(f"the objects of {str(files[0])!r} have no field {column!r}: give each its class")
    named = ["object"] if column == "any" else names_of(schema, files[0]) if column == "category" else [*VOC_CLASSES]
    classes = named if classes is None else classes
    wanted = [name for name in (OBJECTS, "width", "height", MASKS) if name in schema.names]
    tables = [read(file, wanted) for file in files]
    table = {name: joined(tables, name) for name in wanted}
    images = ParquetImages(files)
    masks = Numbered(EncodedColumn(files, MASKS, table[MASKS]), images.keys) if MASKS in wanted else None
    names = ["", *named] if column == "voc_category" else named
    found = [
        objects_of(row, column, names, classes, size, images.keys[at])
        for at, (row, size) in enumerate(zip(table[OBJECTS].to_pylist(), sizes(table, images.keys, masks), strict=True))
    ]
    return AnnotatedImages(
        images,
        found,
        classes,
        "voc" if column == "voc_category" else "coco",
        source=" and ".join(repr(str(file)) for file in files),
        frame=frame,
        masks=masks,
    )


def object_type(schema: pa.Schema, file: Path) -> pa.StructType:
    """The type of one object."""
    if OBJECTS not in schema.names:
        raise ImageSourceError(
            f"{str(file)!r} has no column {OBJECTS!r} (columns: {', '.join(schema.names)}): give one, a list of "
            "{bbox, category}"
        )
    kind = schema.field(OBJECTS).type
    kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if not pa.types.is_struct(kind) or kind.get_field_index("bbox") < 0:
        raise ImageSourceError(
            f"column {OBJECTS!r} of {str(file)!r} is {kind}, but must be a list of {{bbox, category}}"
        )
    return kind


def names_of(schema: pa.Schema, file: Path) -> list[str]:
    """The names of the classes, as `datasets` notes them in the schema's metadata."""
    try:
        features: Any = object_in((schema.metadata or {})[b"huggingface"])["info"]["features"][OBJECTS]
        item = features["feature"] if isinstance(features, dict) else features[0]
        return [str(name) for name in item["category"]["names"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ImageSourceError(
            f"{str(file)!r} does not say what the classes of its objects are called: write it with datasets, the "
            "field 'category' being a ClassLabel"
        ) from error


def sizes(table: dict[str, pa.ChunkedArray], keys: Sequence[str], masks: Numbered | None) -> list[Size | None]:
    """The size of each image by columns of that name and by its mask; ImageSourceError where the two differ."""
    drawn = [None] * len(keys) if masks is None else [masks.size(row) for row in range(len(keys))]
    if not {"width", "height"} <= set(table):
        return [*drawn]
    found: list[Size | None] = []
    columns = zip(table["width"].to_pylist(), table["height"].to_pylist(), keys, drawn, strict=True)
    for width, height, key, mask in columns:
        found.append(size := size_of(width, height, f"the row {key!r}"))
        if mask not in (None, size):
            raise ImageSourceError(
                f"the {MASKS} of row {key!r} has {spelled(mask)} pixels and its columns say {spelled(size)}: make them "
                "alike"
            )
    return found


def objects_of(
    row: list[dict[str, Any]] | None,
    column: Column,
    names: Sequence[str],
    classes: Sequence[str],
    size: Size | None,
    key: str,
) -> Gathered:
    """The objects of an image; ImageSourceError for a value that cannot be."""
    if row is None:
        raise ImageSourceError(f"the row {key!r} has no annotation: give it a list of objects, empty if it has none")
    gathered = Gathered(size)
    for place, item in enumerate(row):
        name = f"object {place + 1} of row {key!r}"
        if item is None:
            raise ImageSourceError(f"{name} is null: describe it, or take it out")
        number = 0 if column == "any" else item[column]
        if number == 0 and column == "voc_category":
            continue
        known = isinstance(number, int) and 0 <= number < len(names)
        label = label_of(names[number] if known else f"number {number}", classes, name)
        crowd = flag_of(item.get("iscrowd"), "iscrowd", name)
        gathered.add(
            box_of(item["bbox"], name),
            label,
            name,
            ignored=crowd or flag_of(item.get("difficult"), "difficult", name),
            crowd=crowd,
            source=place,
        )
    return gathered


@final
class Numbered:
    """Masks as one image an image: k where objects[k - 1] is seen."""

    def __init__(self, column: EncodedColumn, keys: Sequence[str]) -> None:
        self.column, self.keys = column, keys

    @property
    def fingerprint(self) -> str:
        """A sha256 over the masks as they are encoded."""
        return hashlib.sha256(self.column.digests.tobytes()).hexdigest()

    def size(self, row: int) -> Size | None:
        """Width and height of a mask, or ImageSourceError."""
        frame = frame_of(self.column[row], ("PNG",))
        if frame is None:
            raise ImageSourceError(
                f"the row {self.keys[row]!r} has no {MASKS} that can be read: give each image a PNG, or leave out the "
                "column"
            )
        return frame.stored

    def __call__(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The masks (N, H, W) of some objects of an image."""
        encoded = self.column[index]
        file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        assert file is not None
        with without_pillows_warnings(), Image.open(file, formats=["PNG"]) as image:
            drawn = np.asarray(image)
        masks: NDArray[np.uint8] = (drawn[None] == numbers[:, None, None] + 1).astype(np.uint8)
        return masks
