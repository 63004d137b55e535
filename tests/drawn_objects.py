"""Coloured rectangles on grey as VOC folders, COCO annotations and parquet files, small enough for tests."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("cat", "dog")
COLOURS = ((220, 40, 40), (40, 60, 220))


@dataclass(frozen=True)
class Scene:
    """An image of 96 x 80 pixels with two rectangles, or none."""

    image: Image.Image
    boxes: list[tuple[int, int, int, int]]
    labels: list[int]

    @property
    def numbers(self) -> np.ndarray:
        """The instance mask (H, W)."""
        mask = np.zeros((self.image.height, self.image.width), np.uint8)
        for number, (left, top, right, bottom) in enumerate(self.boxes, start=1):
            mask[top:bottom, left:right] = number
        return mask


def grown(found: Scene, right: int, below: int) -> Scene:
    """The scene with so many more pixels of grey."""
    image = Image.new("RGB", (found.image.width + right, found.image.height + below), (128, 128, 128))
    image.paste(found.image)
    return Scene(image, found.boxes, found.labels)


def scene(number: int) -> Scene:
    """The same scene for the same number; every fourth is empty."""
    stream = np.random.default_rng(number)
    levels = np.full((80, 96, 3), 128) + stream.normal(0, 8, (80, 96, 3))
    boxes, labels = [], []
    for side in range(2 if number % 4 != 3 else 0):
        width, height = (int(value) for value in stream.integers(20, 40, 2))
        left, top = 48 * side + int(stream.integers(0, 49 - width)), int(stream.integers(0, 80 - height))
        label = int(stream.integers(0, 2))
        levels[top : top + height, left : left + width] = COLOURS[label]
        boxes.append((left, top, left + width, top + height))
        labels.append(label)
    return Scene(Image.fromarray(levels.clip(0, 255).astype(np.uint8)), boxes, labels)


def png(image: Image.Image) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def xml(found: Scene, names: tuple[str, ...] = NAMES, difficult: int = 0) -> str:
    """A VOC annotation, whose pixels count from 1."""
    objects = "".join(
        f"<object><name>{names[label]}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0] + 1}</xmin>"
        f"<ymin>{box[1] + 1}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box, label in zip(found.boxes, found.labels, strict=True)
    )
    width, height = found.image.size
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


def voc(root: Path, train: int = 4, test: int = 4, names: tuple[str, ...] = NAMES) -> Path:
    """A VOC folder with the lists trainval and test."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, numbers in (("trainval", range(train)), ("test", range(train, train + test))):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{number:06}\n" for number in numbers))
        for number in numbers:
            scene(number).image.save(root / "JPEGImages" / f"{number:06}.jpg", quality=95)
            (root / "Annotations" / f"{number:06}.xml").write_text(xml(scene(number), names))
    return root


def coco(root: Path, train: int = 4, test: int = 4) -> Path:
    """A COCO folder with train2017 and val2017; its classes are numbered 7 and 3."""
    (root / "annotations").mkdir(parents=True)
    for name, numbers in (("train2017", range(train)), ("val2017", range(train, train + test))):
        (root / name).mkdir()
        annotations: list[dict[str, Any]] = []
        for number in numbers:
            found = scene(number)
            found.image.save(root / name / f"{number}.png")
            for (left, top, right, bottom), label in zip(found.boxes, found.labels, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": (7, 3)[label],
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                    }
                )
        images = [{"id": n, "file_name": f"{n}.png", "width": 96, "height": 80} for n in numbers]
        categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return root


def parquet(root: Path, train: int = 4, test: int = 4, *, ragged: bool = False) -> Path:
    """train.parquet and validation.parquet with objects and instance masks; where ragged, of three shapes."""
    root.mkdir(parents=True, exist_ok=True)
    features = {"objects": {"feature": {"category": {"names": list(NAMES), "_type": "ClassLabel"}}, "_type": "List"}}
    shapes = [(0, 0), (70, 0), (0, 50)] if ragged else [(0, 0)] * 3
    for name, numbers in (("train", range(train)), ("validation", range(train, train + test))):
        rows = [
            {
                "image": {"bytes": png(found.image), "path": f"{number}.png"},
                "width": found.image.width,
                "height": found.image.height,
                "objects": [
                    {"bbox": [float(value) for value in box], "category": label}
                    for box, label in zip(found.boxes, found.labels, strict=True)
                ],
                "instance_mask": {"bytes": png(Image.fromarray(found.numbers)), "path": None},
            }
            for number, found in ((n, grown(scene(n), *shapes[n % 3])) for n in numbers)
        ]
        table = pa.Table.from_pylist(rows)
        noted = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        pq.write_table(table.replace_schema_metadata(noted), root / f"{name}.parquet")
    return root
