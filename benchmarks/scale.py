"""The costs of a run that grow with its images and processes: python benchmarks/scale.py

Measured: the memory that the index of tar shards takes for each image, the order of an epoch, an image of 500 x 375 px
decoded and made into two views, the bytes of networks, gradients, checkpoints and of a line of a log. scale_page.py
reckons with them for 100 million images on 64 GPUs.
"""

from __future__ import annotations

import io
import json
import time
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timing import SAMPLE, circumstances, command, on_threads, quartiles, write

from ssl_backbones import recipes
from ssl_backbones.data import open_images
from ssl_backbones.data.decode import decode
from ssl_backbones.data.digests import WIDTH
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.shards import Shards
from ssl_backbones.data.tar import WINDOW
from ssl_backbones.methods import LewelBConfig
from ssl_backbones.train.cost import learning, size_of_state
from ssl_backbones.views import MultiView, permutation

PACKAGES = ("torch", "numpy", "timm", "pillow", "opencv-python-headless")
SHARD = 10_000
"""Images of a tar shard."""
COUNTED, ORDERED, DECODED = 1_000_000, 10_000_000, 48
"""Images whose index is counted, whose order is timed, and that are decoded."""
RECIPES = (
    "resnet50_moco_v2.in1k_200ep",
    "resnet50_byol.in1k_200ep",
    "resnet50_lewel_b.in1k_400ep",
    "resnet50_simsiam.in1k_200ep",
)

LINE: dict[str, float] = {"step": 1_000_000, "epoch": 39} | dict.fromkeys(
    ("loss", "global_loss", "aligned_loss"), 4.260298252105713
)
LINE |= {"lr": 0.018750000000000003, "target_momentum": 0.9509236526163482}
"""A line of LEWEL_B's log; numbers have as many digits there."""


def index_bytes(count: int) -> dict[str, float]:
    """Bytes that each image of tar shards keeps in a process, part by part."""
    keys = PathKeys(f"train-{at // SHARD:05}.tar/{at:09}.jpg" for at in range(count))
    parts = {
        "keys": len(keys.block) + keys.ends.nbytes,
        "offset and size": np.empty((count, 2), np.int64).nbytes,
        "digest": count * WIDTH,
        "label": np.empty(count, np.int64).nbytes,
    }
    return {name: round(taken / count, 1) for name, taken in parts.items()}


def order_costs(count: int) -> dict[str, Any]:
    """CPU seconds and bytes of an epoch's order, of a folder and of shards."""
    shards = Shards(np.arange(0, count + 1, SHARD), WINDOW)
    seconds = []
    for ask in (lambda: permutation(0, 0, count), lambda: shards.order(0, 0)):
        began = time.process_time()
        order = ask()
        seconds.append(round(time.process_time() - began, 2))
    kept = (order.nbytes + shards.shard_of.nbytes) / count
    return {"images": count, "folder_cpu_s": seconds[0], "shards_cpu_s": seconds[1], "kept_bytes_per_image": kept}


def image_costs(count: int) -> dict[str, Any]:
    """CPU milliseconds of decoding an image and of making two views of LEWEL_B, on one thread."""
    sample = open_images(SAMPLE)
    encoded = []
    for row in range(count):
        file = io.BytesIO()
        sample[row].resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
        encoded.append(file.getvalue())
    views = MultiView(LewelBConfig().views, 224, "opencv")
    decoding, making = [], []
    for row, content in enumerate(encoded):
        began = time.process_time()
        image = decode(content, "an image")
        between = time.process_time()
        views.on_host([image], views.draw(0, 0, np.array([row])))
        decoding.append(1e3 * (between - began))
        making.append(1e3 * (time.process_time() - between))
    size = round(float(np.mean([len(one) for one in encoded])) / 1e3, 1)
    return {"kb": size, "decode_ms": quartiles(decoding, 2), "views_ms": quartiles(making, 2)}


def network_costs(name: str) -> dict[str, Any]:
    """Bytes of a recipe's weights, gradients and checkpoint, counted without memory for them."""
    recipe = recipes.get(name)
    with torch.device("meta"):
        backbone = timm.create_model(name.partition("_")[0], num_classes=0)
        method = recipe.method.build(backbone)
    state, gradients = size_of_state(method), 4 * learning(method)
    return {"state": state, "gradients": gradients, "checkpoint": state + gradients}


def measure() -> dict[str, Any]:
    """All that is measured."""
    return {
        "index_bytes_per_image": index_bytes(COUNTED),
        "order": order_costs(ORDERED),
        "image": image_costs(DECODED),
        "networks": {name: network_costs(name) for name in RECIPES},
        "log_line_bytes": len(json.dumps(LINE)) + 1,
    }


def main() -> None:
    """Measure, and write the results down."""
    parser = command(__file__, __doc__, rounds=1)
    options = parser.parse_args()
    on_threads(1)
    found = circumstances(PACKAGES) | {"rounds": options.rounds} | measure()
    write(found, options.out)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
