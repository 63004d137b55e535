"""Pascal VOC's folders: JPEGImages, Annotations/*.xml and ImageSets/Main/*.txt. Everingham et al., 2010."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.listed import ListedImages
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages, Gathered, label_of
from ssl_backbones.evaluate.detection.values import flag_of, size_of
from ssl_backbones.evaluate.frames import AnnotationsFrame
from ssl_backbones.evaluate.voc_lists import list_file, names_in
from ssl_backbones.files import regular

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TRAIN, VALIDATION = ("trainval", "train"), ("test", "val")
"""Lists of images, the one to take first."""
LISTS = Path("ImageSets", "Main")
OBJECT = "object"


def is_voc(path: Path) -> bool:
    """True if a folder has the form of VOC's."""
    return (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir()


def open_voc(
    parts: Sequence[tuple[Path, str]],
    *,
    kept_out: bool = False,
    classes: Sequence[str] | None = None,
    frame: AnnotationsFrame = "auto",
) -> AnnotatedImages:
    """The images of one or several folders, each with the name of its list or "" for the usual one.

    Classes are VOC's twenty, or those found where there are others among them, or those given.
    """
    usual, way_out = VALIDATION if kept_out else TRAIN, "name a list after the folder, as in VOC2007:trainval"
    lists = [list_file(root / LISTS, [split] if split else usual, way_out) for root, split in parts]
    named = [(root, name) for (root, _), file in zip(parts, lists, strict=True) for name in names_in(file)]
    files = [root / "Annotations" / f"{name}.xml" for root, name in named]
    trees = [read_xml(file) for file in files]
    if classes is None:
        found = {
            text(item, "name", file) for tree, file in zip(trees, files, strict=True) for item in tree.iter(OBJECT)
        }
        classes = VOC_CLASSES if found <= set(VOC_CLASSES) else sorted(found)
    read = [objects_of(tree, classes, file) for tree, file in zip(trees, files, strict=True)]
    shared = Path(os.path.commonpath([root for root, _ in parts]))
    images = [Path(os.path.relpath(root / "JPEGImages" / f"{name}.jpg", shared)).as_posix() for root, name in named]
    return AnnotatedImages(
        ListedImages(shared, images),
        read,
        classes,
        "voc",
        source=" and ".join(repr(str(file)) for file in lists),
        frame=frame,
    )


def read_xml(file: Path) -> Element:
    """The root of an annotation; a document type, and with it any entity, is refused."""
    try:
        content = regular(file).read_bytes()
    except OSError as error:
        raise ImageSourceError(
            f"{str(file)!r} cannot be read ({error.strerror}): add the annotation, or take its image off the list"
        ) from error
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*declared: object) -> None:
        raise ImageSourceError(f"{str(file)!r} declares a document type, which no annotation needs: take it out")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ImageSourceError(f"{str(file)!r} cannot be read as XML ({error}): write the annotation anew") from error
    return builder.close()


def objects_of(tree: Element, classes: Sequence[str], file: Path) -> Gathered:
    """The objects of an annotation; ImageSourceError for a value that cannot be."""
    size = tree.find("size")
    sides = None if size is None else (number(size, "width", file), number(size, "height", file))
    gathered = Gathered(None if sides is None else size_of(*sides, repr(str(file))))
    for place, item in enumerate(tree.iter(OBJECT)):
        name = f"object {place + 1} of {str(file)!r}"
        label = label_of(text(item, "name", file), classes, name)
        box = item.find("bndbox")
        if box is None:
            raise ImageSourceError(f"{str(file)!r} has an object without bndbox: give it one, or take it out")
        left, top, right, bottom = (number(box, side, file) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = item.findtext("difficult", "0").strip() or "0"
        flag = int(difficult) if difficult in ("0", "1") else difficult
        # VOC counts pixels from 1 and includes the last.
        corners = [left - 1, top - 1, right, bottom]
        gathered.add(corners, label, name, ignored=flag_of(flag, "difficult", name), source=place)
    return gathered


def text(item: Element, name: str, file: Path) -> str:
    """The text of a part of an element."""
    found = item.findtext(name)
    if found is None or not found.strip():
        raise ImageSourceError(f"{str(file)!r} has an {item.tag} without {name}: give it one, or take it out")
    return found.strip()


def number(item: Element, name: str, file: Path) -> float:
    """The number in a part of an element."""
    found = text(item, name, file)
    try:
        return float(found)
    except ValueError:
        raise ImageSourceError(f"{str(file)!r} has {found!r} as {name}, which is no number: correct it") from None
