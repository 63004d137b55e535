"""Parquet files with a column of objects, each a box and a class, and perhaps one of instance masks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.parquet import ParquetImages, joined, read, schema_of
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages, Gathered, Objects, label_of
from ssl_backbones.evaluate.detection.voc_folder import VOC_CLASSES
from ssl_backbones.files import object_in

OBJECTS, MASKS = "objects", "instance_mask"
Column = Literal["category", "voc_category", "any"]
"""Of an object, the field that is its class; "any" tells no classes apart."""


def open_parquet(
    files: Sequence[Path], column: Column | None = None, *, classes: Sequence[str] | None = None
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
    photos = ParquetImages(files)
    table = {name: joined(tables, name) for name in wanted}
    names = ["", *named] if column == "voc_category" else named
    found = [
        objects_of(row, column, names, classes, width, height, photos.keys[at])
        for at, (row, (width, height)) in enumerate(zip(table[OBJECTS].to_pylist(), sizes(table), strict=True))
    ]
    masks = masks_of(table, photos, [objects.source for objects, _ in found]) if MASKS in wanted else None
    return AnnotatedImages(
        photos,
        [objects for objects, _ in found],
        classes,
        "voc" if column == "voc_category" else "coco",
        source=" and ".join(repr(str(file)) for file in files),
        dropped=sum(dropped for _, dropped in found),
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


def sizes(table: dict[str, pa.ChunkedArray]) -> list[tuple[float, float]]:
    """Width and height of each image, where there are such columns."""
    count = len(table[OBJECTS])
    if not {"width", "height"} <= set(table):
        return [(float("inf"),) * 2] * count
    return list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))


def objects_of(
    row: list[dict[str, Any]] | None,
    column: Column,
    names: Sequence[str],
    classes: Sequence[str],
    width: float,
    height: float,
    key: str,
) -> tuple[Objects, int]:
    """The objects of an image, and how many boxes were left out."""
    if row is None:
        raise ImageSourceError(f"the row {key!r} has no annotation: give it a list of objects, empty if it has none")
    gathered = Gathered(width, height)
    for place, item in enumerate(row):
        number = 0 if column == "any" else item[column]
        if number == 0 and column == "voc_category":
            continue
        known = number is not None and 0 <= number < len(names)
        label = label_of(names[number] if known else f"number {number}", classes, key)
        crowd = bool(item.get("iscrowd"))
        difficult = bool(item.get("difficult"))
        if item["bbox"] is None or len(item["bbox"]) != 4:
            raise ImageSourceError(f"the row {key!r} has a box that is not four numbers: correct it, or take it out")
        gathered.add(
            item["bbox"],
            label,
            ignored=crowd or difficult,
            crowd=crowd,
            area=float(item.get("area") or 0),
            source=place,
        )
    return gathered.objects(), gathered.dropped


@dataclass(frozen=True)
class Numbered:
    """Masks as one image an image: k where objects[k - 1] is seen."""

    images: list[bytes]
    taken: list[NDArray[np.int64]]
    """Of each image, the annotations that its objects come from."""

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """The masks (N, H, W) of an image's objects."""
        with Image.open(io.BytesIO(self.images[index]), formats=["PNG"]) as image:
            numbers = np.asarray(image)
        masks: NDArray[np.uint8] = (numbers[None] == self.taken[index][:, None, None] + 1).astype(np.uint8)
        return masks


def masks_of(table: dict[str, pa.ChunkedArray], photos: ParquetImages, taken: list[NDArray[np.int64]]) -> Numbered:
    """The masks of all images; ImageSourceError for one of another size than its image, or none at all."""
    images = [held["bytes"] if isinstance(held, dict) else held for held in table[MASKS].to_pylist()]
    assert photos.photos is not None
    for key, photo, mask in zip(photos.keys, photos.photos, images, strict=True):
        if mask is None:
            raise ImageSourceError(f"the row {key!r} has no {MASKS}: give each photo one, or leave out the column")
        expected, found = size_in(photo.as_py(), None), size_in(mask, ["PNG"])
        if found is None:
            raise ImageSourceError(f"the {MASKS} of row {key!r} is no PNG: write it as one")
        if expected is not None and found != expected:
            raise ImageSourceError(
                f"the {MASKS} of row {key!r} has {found[0]} x {found[1]} pixels and its photo {expected[0]} x "
                f"{expected[1]}: draw it at the photo's size"
            )
    return Numbered(images, taken)


def size_in(encoded: bytes | None, formats: list[str] | None) -> tuple[int, int] | None:
    """Width and height that an encoded image announces; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(encoded or b""), formats=formats) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
