"""Measure two views of MoCo v2 on one core, engine by engine: python benchmarks/views.py

An image, decoded, goes in; two views come out, in uint8 as the workers hand them over, or normalised in float32. Beside
the engines runs lightly's MoCoV2Transform, the same policy as it comes (float32 out), where lightly is installed; it is
no dependency. All take their turn on the same images in one thread, so that a slow spell of the machine meets them
alike, and CPU time is what counts. The figures go to benchmarks/results/views.json.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import SAMPLE, circumstances, command, on_threads, quartiles, write

from ssl_backbones.data import open_images
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView

CASES = ((32, 96), (64, 96), (96, 96), (224, 256))
"""Sides of the view and of the square image it is made from, in pixels."""
PACKAGES = ("pillow", "opencv-python-headless", "torch", "torchvision", "lightly")
TARGET = 5.0
"""The least speed of the fast engine, as a multiple of lightly's."""


def ways(size: int) -> dict[str, Callable[[Sequence[Image.Image], int], object]]:
    """Functions that make two views of images, in the round of that number, by name."""
    pillow, opencv = (MultiView(MOCO_V2_VIEWS, size, engine=engine) for engine in ("pillow", "opencv"))

    def levels(transform: MultiView) -> Callable[[Sequence[Image.Image], int], Any]:
        return lambda images, epoch: transform.on_host(images, transform.draw(0, epoch, np.arange(len(images))))

    found: dict[str, Callable[[Sequence[Image.Image], int], object]] = {
        "opencv": levels(opencv),
        "pillow": levels(pillow),
        "opencv, float32": lambda images, epoch: opencv.on_device(levels(opencv)(images, epoch)),
    }
    try:
        from lightly.transforms import MoCoV2Transform
    except ImportError:
        return found
    peer = MoCoV2Transform(input_size=size)
    return found | {"lightly": lambda images, epoch: [peer(image) for image in images]}


def measure(size: int, side: int, count: int, rounds: int) -> dict[str, Any]:
    """CPU time per image of each way, and how many times the fast engine's it is."""
    source = open_images(str(SAMPLE))
    images = [source[at].resize((side, side), Image.Resampling.BICUBIC) for at in range(count)]
    work = ways(size)
    random.seed(0)  # lightly draws from here and from torch
    torch.manual_seed(0)
    for warm_up in work.values():
        warm_up(images[:4], 0)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for epoch in range(rounds):
        for name, run in work.items():
            start = time.process_time()
            run(images, epoch)
            seconds[name].append((time.process_time() - start) / count)
    fast = np.array(seconds["opencv"])
    return {
        "size": size,
        "from": side,
        "us_per_photo": {name: quartiles(np.array(values) * 1e6, 1) for name, values in seconds.items()},
        "times_opencv": {name: quartiles(np.array(values) / fast, 2) for name, values in seconds.items()},
    }


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=9)
    parser.add_argument("--images", type=int, default=48, help="per round (48)")
    options = parser.parse_args()
    on_threads(1)
    results = circumstances(PACKAGES) | {"photos": options.images, "rounds": options.rounds, "target": TARGET}
    print(json.dumps(results, indent=2))
    results["measured"] = [measure(size, side, options.images, options.rounds) for size, side in CASES]
    for row in results["measured"]:
        print(f"{row['size']} px from {row['from']} px, CPU time per image (two views):")
        for name, found in row["us_per_photo"].items():
            ratio = row["times_opencv"][name]
            print(
                f"  {name:16} {found['median']:8.1f} us [{found['q1']:.1f}, {found['q3']:.1f}]"
                f"  {ratio['median']:6.2f} times opencv [{ratio['q1']:.2f}, {ratio['q3']:.2f}]"
            )
        if "lightly" not in row["us_per_photo"]:
            print("  lightly: not measured, it is not installed")
    write(results, options.out)


if __name__ == "__main__":
    main()
