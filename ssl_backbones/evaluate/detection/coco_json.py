"""COCO's annotations: a JSON file of images, objects and classes beside a folder of images. Lin et al., 2014."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.listed import ListedImages
from ssl_backbones.data.splits import TEST, TRAIN, VALIDATION
from ssl_backbones.distributed import say
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages, Gathered, label_of
from ssl_backbones.evaluate.detection.coco_shapes import Shape, Shapes, shape_of
from ssl_backbones.evaluate.detection.values import box_of, flag_of, size_of, told
from ssl_backbones.evaluate.frames import AnnotationsFrame
from ssl_backbones.files import read_object

PREFIX = "instances_"
LARGEST = 4 * 2**30
"""Bytes of a file of annotations; those of COCO's training images are 450 MB."""
SLOW = 50 * 2**20
"""Bytes from which on reading them takes seconds, and is said."""


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


def open_coco(file: Path, *, classes: Sequence[str] | None = None, frame: AnnotationsFrame = "auto") -> AnnotatedImages:
    """The images and objects of a JSON file; classes in the order of their numbers, or those given.

    Every value that is used is checked: ImageSourceError names the object of an odd one. Objects without an area are
    left out and counted, and so are those all of whose polygons have fewer than three points.
    """
    content = read_json(file)
    names = category_names(content["categories"], file)
    listed = Listed(file, content["images"], names, [*names.values()] if classes is None else classes)
    for place, item in enumerate(content["annotations"], start=1):
        listed.add(item, place)
    paths = [image["file_name"] for image in content["images"]]
    return AnnotatedImages(
        ListedImages(image_folder(file, paths), paths),
        listed.gathered,
        listed.classes,
        "coco",
        source=repr(str(file)),
        frame=frame,
        masks=Shapes(listed.shapes, listed.sizes) if listed.drawn else None,
    )


@final
class Listed:
    """The objects of a COCO file as they are read, each in its image."""

    def __init__(
        self, file: Path, images: Sequence[dict[str, Any]], names: Mapping[Any, str], classes: Sequence[str]
    ) -> None:
        """`names` (id to name) are those of the file's categories, `classes` those that are told apart."""
        self.file, self.images, self.names, self.classes = file, images, names, classes
        wheres = [f"the image {told(image['file_name'])} in {str(file)!r}" for image in images]
        self.rows = {
            identity(image, "id", where): row for row, (image, where) in enumerate(zip(images, wheres, strict=True))
        }
        for image in images:
            if not isinstance(image["file_name"], str) or not image["file_name"]:
                raise ImageSourceError(f"{str(file)!r} has {told(image['file_name'])} as a file_name: name the file")
        if len(self.rows) < len(images):
            twice = next(image for row, image in enumerate(images) if self.rows[image["id"]] != row)
            raise ImageSourceError(
                f"{str(file)!r} lists two images with the id {twice['id']!r}, one of them {twice['file_name']!r}: give "
                "each its own"
            )
        self.sizes = [size_of(each["width"], each["height"], where) for each, where in zip(images, wheres, strict=True)]
        self.gathered = [Gathered(size) for size in self.sizes]
        self.shapes: list[list[Shape | None]] = [[] for _ in images]
        self.drawn = True
        """True as long as every object has a mask."""

    def add(self, item: dict[str, Any], place: int) -> None:
        """Take in an object, the file's first, second, ...; ImageSourceError for a value that cannot be."""
        name = f"annotation {told(item.get('id', f'number {place}'))}"
        row = self.rows.get(identity(item, "image_id", f"{name} in {str(self.file)!r}"))
        if row is None:
            raise ImageSourceError(
                f"{name} in {str(self.file)!r} is in image {told(item['image_id'])}, which it does not list: add the "
                "image, or take the object out"
            )
        name = f"{name} of {self.images[row]['file_name']!r}"
        where = f"{name} in {str(self.file)!r}"
        x, y, width, height = box_of(item["bbox"], where)
        category = identity(item, "category_id", where)
        label = label_of(self.names.get(category, f"number {category}"), self.classes, where)
        crowd = flag_of(item.get("iscrowd"), "iscrowd", where)
        shape = shape_of(item.get("segmentation"), self.sizes[row], where)
        if shape == []:
            self.gathered[row].left_out.append(name)
            return
        box, number = [x, y, x + width, y + height], len(self.shapes[row])
        taken = self.gathered[row].add(box, label, name, ignored=crowd, crowd=crowd, source=number)
        self.shapes[row].append(shape)
        self.drawn = self.drawn and not (taken and shape is None)


def identity(item: dict[str, Any], field: str, where: str) -> int | float | str:
    """The id in a field of an image, a category or an object; ImageSourceError for what is neither number nor text."""
    value = item[field]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ImageSourceError(f"{where} has {told(value)} as {field}: give a whole number")
    return value


def category_names(categories: Sequence[dict[str, Any]], file: Path) -> dict[int | float | str, str]:
    """Id to name of the categories, in the order of their ids; ImageSourceError for an id that is there twice."""
    names = {
        identity(category, "id", f"the category {told(category['name'])} in {str(file)!r}"): str(category["name"])
        for category in categories
    }
    if len(names) < len(categories) or len({isinstance(number, str) for number in names}) > 1:
        ids = ", ".join(repr(category["id"]) for category in categories)
        raise ImageSourceError(f"{str(file)!r} has categories with the ids {ids}: give each a number of its own")
    return dict(sorted(names.items()))


def read_json(file: Path) -> dict[str, Any]:
    """The content of a COCO file, with all the parts it needs."""
    if file.is_file() and file.stat().st_size > SLOW:
        say(f"reading {file}, {file.stat().st_size // 10**6} MB")
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
        for place, item in enumerate(items, start=1):
            missing = [field for field in fields if not isinstance(item, dict) or field not in item]
            if missing:
                raise ImageSourceError(
                    f"{str(file)!r} has, among its {part}, one without {missing[0]}, {told(item)} in place {place}: "
                    "complete it"
                )
    return content


def image_folder(file: Path, paths: Sequence[str]) -> Path:
    """The folder of the images: named as the file, or images, or beside both."""
    root, split = file.parent.parent, file.stem.removeprefix(PREFIX)
    folders = [root / split, root / "images" / split, root / "images", file.parent / "images", root, file.parent]
    first = next(iter(paths), "")
    found = next((folder for folder in folders if (folder / first).is_file()), None)
    if found is None:
        looked = ", ".join(str(folder) for folder in folders[:3])
        raise ImageSourceError(f"the image {first!r} of {str(file)!r} is in none of {looked}: put the images there")
    return found
