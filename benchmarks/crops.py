"""Measure multi-crop views against two full ones, for the pixels they hold: python benchmarks/crops.py

An image, decoded, goes in; the views of SwAV or DINO come out in uint8, by the OpenCV engine, on one thread: the two
full ones alone, and with the small crops. They take their turn on the same images, and CPU time is what counts. The
figures go to benchmarks/results/crops.json.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from PIL import Image
from timing import SAMPLE, circumstances, command, on_threads, quartiles, say_verdicts, verdict, write

from ssl_backbones.data import open_images
from ssl_backbones.methods import DINOConfig, SwAVConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.views import MultiView

METHODS: tuple[MethodConfig, ...] = (SwAVConfig(), DINOConfig())
SIZES = (224, 160)
"""Sides of a full view, in pixels."""
SIDE = 256
"""Side of the square image that views are made from."""
PACKAGES = ("pillow", "opencv-python-headless", "numpy")
TARGET = 1.15
"""The time of all views to that of two, at most, as a multiple of what their pixels are."""


def measure(config: MethodConfig, size: int, images: list[Image.Image], rounds: int) -> dict[str, Any]:
    """CPU time per image of two views and of all, and their ratio to that of the pixels."""
    few, all_views = (MultiView(policies, size, "opencv") for policies in (config.policies[:2], config.policies))
    two, many = (sum(policy.side(size) ** 2 for policy in views.policies) for views in (few, all_views))
    seconds: dict[MultiView, list[float]] = {few: [], all_views: []}
    for epoch in range(-1, rounds):  # the first one is to warm up
        for views in seconds:
            start = time.process_time()
            views.on_host(images, views.draw(0, epoch, np.arange(len(images))))
            seconds[views].append((time.process_time() - start) / len(images))
    of_two, of_all = (np.array(found[1:]) for found in seconds.values())
    return {
        "method": config.name,
        "size": size,
        "crops": len(config.policies) - 2,
        "pixels_to_two": round(many / two, 3),
        "us_of_two": quartiles(of_two * 1e6, 1),
        "us_of_all": quartiles(of_all * 1e6, 1),
        "time_to_pixels": quartiles(of_all / of_two / (many / two), 3),
    }


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=15)
    parser.add_argument("--images", type=int, default=48, help="per round (48)")
    options = parser.parse_args()
    on_threads(1)
    results = circumstances(PACKAGES) | {"from": SIDE, "images": options.images, "rounds": options.rounds}
    print(json.dumps(results, indent=2))
    source = open_images(str(SAMPLE))
    images = [source[at].resize((SIDE, SIDE), Image.Resampling.BICUBIC) for at in range(options.images)]
    rows = [measure(config, size, images, options.rounds) for config in METHODS for size in SIZES]
    results["measured"] = rows
    results["verdicts"] = [
        verdict(f"{row['method']} at {row['size']} px, time to pixels", row["time_to_pixels"]["median"], TARGET)
        for row in rows
    ]
    say_verdicts(results["verdicts"])
    write(results, options.out)


if __name__ == "__main__":
    main()
