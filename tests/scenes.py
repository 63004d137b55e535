"""Small images with masks, drawn: coloured rectangles whose colour is their class."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ssl_backbones.data.decode import USUAL_POLICY
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.masks import Scenes

COLOURS = np.array([(90, 90, 90), (220, 40, 40), (40, 60, 220), (60, 200, 60)], np.uint8)


def scene(number: int, width: int = 40, height: int = 32) -> tuple[Image.Image, np.ndarray]:
    """An image and its mask (H, W): rectangles of classes 1 to 3 on the background, one corner ignored."""
    stream = np.random.default_rng(number)
    mask = np.zeros((height, width), np.uint8)
    for k in stream.permutation([1, 2, 3])[: 1 + number % 3]:
        top, left = int(stream.integers(0, height // 2)), int(stream.integers(0, width // 2))
        mask[top : top + height // 2, left : left + width // 2] = k
    image = COLOURS[mask] + stream.normal(0, 4, (height, width, 3))
    mask[-3:, -3:] = IGNORED
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)), mask


class DrawnScenes(Scenes):
    """Scenes of different shapes, in memory."""

    def __init__(self, count: int) -> None:
        self.scenes = [scene(number, 40 + number % 3, 32 + number % 5) for number in range(count)]
        self.keys = [f"{number}.png" for number in range(count)]
        self.fingerprint, self.policy = f"{count} scenes", USUAL_POLICY

    def __getitem__(self, index: int) -> Image.Image:
        return self.scenes[index][0]

    def encoded(self, index: int) -> bytes:
        return png(np.asarray(self.scenes[index][0]))

    def encoded_mask(self, index: int) -> bytes:
        return png(self.mask(index))

    def mask(self, index: int) -> np.ndarray:
        return self.scenes[index][1]

    def mask_place(self, index: int) -> str:
        return self.keys[index]


def png(mask: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()


def palette(mask: np.ndarray) -> Image.Image:
    """The mask as VOC has it: numbers of colours."""
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    image.putpalette(bytes(number % 256 for value in range(256) for number in (value * 37, value * 91, value * 53)))
    return image


def voc_folder(root: Path, train: int = 10, validation: int = 5) -> Path:
    """A folder in VOC's layout."""
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for number in range(train + validation):
        image, mask = scene(number, 40 + number % 3, 32 + number % 5)
        image.save(root / "JPEGImages" / f"p{number}.jpg", quality=95, subsampling=0)
        palette(mask).save(root / "SegmentationClass" / f"p{number}.png")
    for name, numbers in (("train", range(train)), ("val", range(train, train + validation))):
        listed = "".join(f"p{number}\n" for number in numbers)
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text(listed)
    return root


def parquet_folder(root: Path, train: int = 10, validation: int = 5) -> Path:
    """The same scenes in two parquet files, with two columns of masks."""
    root.mkdir(parents=True)
    for name, numbers in (("train", range(train)), ("validation", range(train, train + validation))):
        scenes = [scene(number, 40 + number % 3, 32 + number % 5) for number in numbers]
        images = [png(np.asarray(image)) for image, _ in scenes]
        masks = [png(mask) for _, mask in scenes]
        binary = [png((mask == 1).astype(np.uint8)) for _, mask in scenes]
        table = {
            "image": [{"bytes": image, "path": None} for image in images],
            "mask": [{"bytes": mask, "path": None} for mask in masks],
            "mask_of_one": binary,
        }
        pq.write_table(pa.table(table), root / f"{name}.parquet")
    return root
