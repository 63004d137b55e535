"""Measure the reading of an image, from its file or out of a cache: python benchmarks/reading.py [--data ...]

Shuffled batches of images are asked for one way and then the other, in one thread, on the same images, so that a slow
spell of the machine meets both alike; CPU time is what counts. "decode" and "cache" hand over what a view is made of
(a Pillow image); "rows" gathers the batch (B, H, W, 3) into one array, where all images have one shape, as a device
would be fed. Every image is read once before anything is measured, so that files and cache are both in memory. The
figures go to benchmarks/results/reading.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import SAMPLE, circumstances, command, in_turn, on_threads, quartiles, write

from ssl_backbones.data import CachedImages, Images, open_images
from ssl_backbones.data.cached import PIXELS
from ssl_backbones.train.cache import Caching, cached

PACKAGES = ("pillow", "numpy", "pyarrow", "datasets", "ssl-backbones")
TARGET = 40.0
"""The least speed of gathering rows, as a multiple of decoding."""


def ways(images: Images, found: CachedImages, indices: Callable[[], np.ndarray]) -> dict[str, Callable[[], object]]:
    """Functions that read a shuffled batch, by name."""

    def one_by_one(source: Images) -> Callable[[], object]:
        return lambda: [source[int(at)] for at in indices()]

    found_ways = {"decode": one_by_one(images), "cache": one_by_one(found)}
    pixels = np.asarray(np.load(found.folder / PIXELS, mmap_mode="r"))
    if pixels.ndim == 4:
        batch = np.empty((len(indices()), *pixels.shape[1:]), np.uint8)
        found_ways["rows"] = lambda: np.take(pixels, indices(), axis=0, out=batch, mode="clip")
    return found_ways


def measure(images: Images, found: CachedImages, batch: int, rounds: int) -> dict[str, Any]:
    """CPU time per image of each way, and how many times that of the others decoding takes."""
    stream = np.random.default_rng(0)
    batch = min(batch, len(images))
    for source in (images, found):
        for at in range(len(source)):
            source[at]
    work = ways(images, found, lambda: stream.choice(len(images), batch, replace=False))
    seconds = in_turn(work, rounds, time.process_time)
    return {
        "batch": batch,
        "rounds": rounds,
        "us_per_photo": {name: quartiles(values / batch * 1e6, 2) for name, values in seconds.items()},
        "times_as_fast_as_decode": {
            name: quartiles(seconds["decode"] / values, 1) for name, values in seconds.items() if name != "decode"
        },
    }


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=21, of="batches of every way, in turn")
    parser.add_argument("--data", nargs="*", default=[str(SAMPLE)], help="what to read (the sample images)")
    parser.add_argument("--batch", type=int, default=256, help="images of a batch (256)")
    options = parser.parse_args()
    on_threads(1)
    results = circumstances(PACKAGES) | {"target": TARGET, "measured": []}
    print(json.dumps(results, indent=2))
    for data in options.data:
        images = open_images(data)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            found = cached(images, data, Caching(Path(folder)))
            if not isinstance(found, CachedImages):
                raise SystemExit(f"reading.py: {data} is too large for a cache; choose smaller images")
            row = {
                "data": "/".join(Path(data).parts[-2:]),
                "fingerprint": images.fingerprint,
                "photos": len(images),
                "shapes": len(np.unique(found.shapes, axis=0)),
                "mean_pixels": round(float(found.shapes.prod(axis=1).mean()), 1),
                "cache_mb": round(int(found.ends[-1]) / 1e6, 1),
                "cpu_seconds_to_make": round(time.process_time() - start, 2),
                **measure(images, found, options.batch, options.rounds),
            }
        results["measured"].append(row)
        print(f"{row['data']}: {row['photos']} images of {row['mean_pixels']:.0f} pixels, CPU time per image:")
        for name, us in row["us_per_photo"].items():
            ratio = row["times_as_fast_as_decode"].get(name)
            times = f"  {ratio['median']:6.1f} times as fast [{ratio['q1']:.1f}, {ratio['q3']:.1f}]" if ratio else ""
            print(f"  {name:8} {us['median']:8.2f} us [{us['q1']:.2f}, {us['q3']:.2f}]{times}")
    write(results, options.out)


if __name__ == "__main__":
    main()
