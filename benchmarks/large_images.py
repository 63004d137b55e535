"""Measure two views of large JPEG, from file to levels, on one core: python benchmarks/large_images.py

The images are made here: real ones laid side by side at their own size, so that they are as sharp as 12 megapixels
allow, or one real one enlarged, with noise, which is as soft as many that a camera takes. "all pixels" decodes the
whole file and makes the views by OpenCV, "opencv" decodes no finer than the drawn crops need, "kept" reads a cache of
the images at 256 px (--cache --reencode 256). Levels are the differences from Pillow's views of all pixels. The figures
go to benchmarks/results/large_images.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import SAMPLE, circumstances, command, in_turn, on_threads, quartiles, write

from ssl_backbones.data import Batches, Images, Request, open_images
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.views import LEWEL_B_VIEWS, MultiView
from ssl_backbones.views.reduction import Reduction, unreduced

PACKAGES = ("pillow", "opencv-python-headless", "numpy", "torch")
KEPT = 256
"""Shorter side of the images in the cache, in pixels."""


@dataclass(frozen=True)
class AllPixels(MultiView):
    """The same views, of images that are decoded whole."""

    def reductions(self, seed: int, epoch: int, indices: np.ndarray) -> list[Reduction]:
        """None."""
        return [unreduced] * len(indices)


def sharp(source: Images, first: int, size: tuple[int, int]) -> Image.Image:
    """Images side by side, from a first one on."""
    whole, at, top = Image.new("RGB", size), first, 0
    while top < size[1]:
        left, height = 0, 0
        while left < size[0]:
            tile = source[at % len(source)]
            whole.paste(tile, (left, top))
            left, height, at = left + tile.width, max(height, tile.height), at + 1
        top += height
    return whole


def soft(source: Images, index: int, size: tuple[int, int]) -> Image.Image:
    """An image enlarged, with noise of 4 levels."""
    levels = np.asarray(source[index].resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    levels += np.random.default_rng(index).normal(0, 4, levels.shape).astype(np.float32)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def measure(images: Images, kept: Images, size: int, rounds: int) -> dict[str, Any]:
    """CPU time of an image by each way, and how far the views of each are from Pillow's of all pixels."""
    ways = {
        "pillow": Batches(images, MultiView(LEWEL_B_VIEWS, size, "pillow"), 0),
        "all pixels": Batches(images, AllPixels(LEWEL_B_VIEWS, size, "opencv"), 0),
        "opencv": Batches(images, MultiView(LEWEL_B_VIEWS, size, "opencv"), 0),
        "kept": Batches(kept, MultiView(LEWEL_B_VIEWS, size, "opencv"), 0),
    }
    request = Request(0, np.arange(len(images)))
    made = {name: np.stack([view.numpy() for view in way[request].content]) for name, way in ways.items()}
    work: dict[str, Callable[[], object]] = {name: partial(way.__getitem__, request) for name, way in ways.items()}
    seconds = in_turn(work, rounds, time.process_time)
    apart = {name: np.abs(levels.astype(int) - made["pillow"]) for name, levels in made.items() if name != "pillow"}
    return {
        "size": size,
        "ms_per_image": {name: quartiles(values / len(images) * 1e3, 1) for name, values in seconds.items()},
        "times_as_fast_as_pillow": {
            name: quartiles(seconds["pillow"] / values, 2) for name, values in seconds.items() if name != "pillow"
        },
        "levels": {
            name: {"mean": round(float(found.mean()), 2), "p99": int(np.percentile(found, 99)), "max": int(found.max())}
            for name, found in apart.items()
        },
    }


def main() -> None:
    """Make the images, measure, print and write."""
    parser = command(__file__, __doc__, rounds=5)
    parser.add_argument("--images", type=int, default=6, help="of each kind (6)")
    parser.add_argument("--quick", action="store_true", help="two images of each kind, of 1.2 megapixels, at 32 px")
    options = parser.parse_args()
    on_threads(1)
    count, extent, sides = (2, (1280, 960), (32,)) if options.quick else (options.images, (4000, 3000), (96, 224))
    results = circumstances(PACKAGES) | {"photos": count, "extent": extent, "rounds": options.rounds, "measured": []}
    print(json.dumps(results, indent=2))
    source = open_images(SAMPLE)
    for kind, make in (("sharp", sharp), ("soft", soft)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "images"
            folder.mkdir()
            for number in range(count):
                make(source, 100 * number, extent).save(folder / f"{number}.jpg", quality=90)
            images = open_images(folder)
            kept = cached(images, str(folder), Caching(Path(place) / "cache", side=KEPT))
            size = round(sum(file.stat().st_size for file in folder.iterdir()) / count / 1e6, 2)
            for side in sides:
                row = {"kind": kind, "mb_per_image": size, **measure(images, kept, side, options.rounds)}
                results["measured"].append(row)
                print(f"{kind}, {size} MB an image, two views of {side} px, CPU time per image:")
                for name, ms in row["ms_per_image"].items():
                    apart = row["levels"].get(name, "")
                    print(f"  {name:10} {ms['median']:7.1f} ms [{ms['q1']:.1f}, {ms['q3']:.1f}]  {apart}")
    write(results, options.out)


if __name__ == "__main__":
    main()
