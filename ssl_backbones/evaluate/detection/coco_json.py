"""COCO's annotations: a JSON file of images, objects and classes beside a folder of images. Lin et al., 2014."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.splits import TEST, TRAIN, VALIDATION
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages, Gathered, ListedImages, label_of
from ssl_backbones.evaluate.detection.box_metrics import unpacked
from ssl_backbones.files import read_object

PREFIX = "instances_"
LARGEST = 4 * 2**30
"""Bytes of a file of annotations; those of COCO's training images are 450 MB."""


def coco_file(path: Path, split: str, kept_out: bool) -> Path | None:
    """The JSON that a path means: itself, or a folder's annotations/instances_*.json; None if it means none."""
    if path.suffix == ".json":
        return path
    there = sorted((path / "annotations").glob(f"{PREFIX}*.json")) if path.is_dir() else []
    if split:
        named = path / "annotations" / f"{PREFIX}{split}.json"
        return named if there else None
    usual = (*VALIDATION, *TEST) if kept_out else TRAIN
    of_kind = [file for file in there if file.stem.removeprefix(PREFIX).lower().startswith(usual)]
    return next(iter(of_kind), there[0] if there and not kept_out else None)


def open_coco(file: Path, *, classes: Sequence[str] | None = None) -> AnnotatedImages:
    """The images and objects of a JSON file; classes in the order of their numbers, or those given."""
    content = read_json(file)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = [str(category["name"]) for category in categories]
    classes = names if classes is None else classes
    labels = {category["id"]: name for category, name in zip(categories, names, strict=True)}
    images = content["images"]
    rows = {image["id"]: row for row, image in enumerate(images)}
    gathered = [Gathered(image["width"], image["height"]) for image in images]
    shapes: list[list[Any]] = [[] for _ in images]
    for item in content["annotations"]:
        row = rows.get(item["image_id"])
        if row is None:
            raise ImageSourceError(
                f"{str(file)!r} has an object in image {item['image_id']}, which it does not list: add the image, or "
                "take the object out"
            )
        x, y, width, height = item["bbox"]
        crowd = bool(item.get("iscrowd", 0))
        label = label_of(labels.get(item["category_id"], f"number {item['category_id']}"), classes, file)
        place, area = len(shapes[row]), float(item.get("area", 0))
        gathered[row].add([x, y, x + width, y + height], label, ignored=crowd, crowd=crowd, area=area, source=place)
        shapes[row].append(item.get("segmentation"))
    objects = [found.objects() for found in gathered]
    folder = photo_folder(file, images)
    sizes = [(image["height"], image["width"]) for image in images]
    check_masks(shapes, sizes, [image["file_name"] for image in images], file)
    whole = all(shapes[row][at] for row, found in enumerate(objects) for at in found.source)
    return AnnotatedImages(
        ListedImages(folder, [image["file_name"] for image in images]),
        objects,
        classes,
        "coco",
        source=repr(str(file)),
        dropped=sum(found.dropped for found in gathered),
        masks=Shapes(shapes, sizes, [found.source for found in objects]) if whole else None,
    )


@dataclass(frozen=True)
class Shapes:
    """The masks of a COCO file: polygons, or runs of pixels."""

    shapes: list[list[Any]]
    """Of each image, each annotation's segmentation."""
    sizes: list[tuple[int, int]]
    taken: list[NDArray[np.int64]]
    """Of each image, the annotations that its objects come from."""

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """The masks (N, H, W) of an image's objects."""
        from pycocotools import mask as runs

        height, width = self.sizes[index]
        found = []
        for place in self.taken[index]:
            shape = self.shapes[index][place]
            if isinstance(shape, list):
                shape = runs.merge(runs.frPyObjects(shape, height, width))
            elif isinstance(shape["counts"], list):
                shape = runs.frPyObjects(shape, height, width)
            found.append(shape)
        return unpacked(found) if found else np.zeros((0, height, width), np.uint8)


def read_json(file: Path) -> dict[str, Any]:
    """The content of a COCO file, with all the parts it needs."""
    content = read_object(file, "give COCO annotations, or write them anew", ImageSourceError, LARGEST, any_number=True)
    required = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for part, fields in required.items():
        items = content.get(part)
        if not isinstance(items, list):
            raise ImageSourceError(f"{str(file)!r} has no list of {part}: give COCO annotations")
        for item in items:
            missing = [field for field in fields if not isinstance(item, dict) or field not in item]
            if missing or (part == "annotations" and len(item["bbox"]) != 4):
                what = missing[0] if missing else "four numbers in its bbox"
                raise ImageSourceError(f"{str(file)!r} has, among its {part}, one without {what}: complete it")
    return content


def photo_folder(file: Path, images: Sequence[dict[str, Any]]) -> Path:
    """The folder of the images: named as the file, or images, or beside both."""
    root, split = file.parent.parent, file.stem.removeprefix(PREFIX)
    folders = [root / split, root / "images" / split, root / "images", file.parent / "images", root, file.parent]
    first = next((image["file_name"] for image in images), "")
    found = next((folder for folder in folders if (folder / first).is_file()), None)
    if found is None:
        looked = ", ".join(str(folder) for folder in folders[:3])
        raise ImageSourceError(f"the photo {first!r} of {str(file)!r} is in none of {looked}: put the photos there")
    return found


def check_masks(shapes: list[list[Any]], sizes: list[tuple[int, int]], names: list[str], file: Path) -> None:
    """ImageSourceError for a mask of another size than its image."""
    for found, size, name in zip(shapes, sizes, names, strict=True):
        for shape in found:
            if isinstance(shape, dict) and tuple(shape["size"]) != tuple(size):
                raise ImageSourceError(
                    f"{str(file)!r} has a mask of {shape['size'][1]} x {shape['size'][0]} pixels on {name!r}, which is "
                    f"{size[1]} x {size[0]}: draw it at the photo's size"
                )
