"""The parts of `gpu.py` beside the step: views made on the device, and the measurements made while training runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from gpu_steps import Machine
from limited import Row, free
from PIL import Image
from timing import clock_of, in_turn, quartiles
from torch import Tensor

from ssl_backbones.data.placement import mapped, to_device
from ssl_backbones.metrics import effective_rank, knn_predict
from ssl_backbones.train.precision import timed
from ssl_backbones.views import LEWEL_B_VIEWS, MOCO_V2_VIEWS, MultiView
from ssl_backbones.views.normalise import IMAGENET_STD
from ssl_backbones.views.resident import ResidentPixels

POLICIES = {"lewel_b": LEWEL_B_VIEWS, "moco_v2": MOCO_V2_VIEWS}
SHAPE = (375, 500)
"""Height and width of the images, those of ImageNet's median."""


def engines(machine: Machine) -> Iterator[Row]:
    """Two views of each image by the device: what they take there and on the host, and how far they are from the
    same views made on the CPU."""
    for size, batch in ((224, 256), (64, 256)):
        size, batch = (32, 4) if machine.small else (size, batch)
        for name, policies in POLICIES.items():
            yield {
                "views": name,
                "size": size,
                "batch": batch,
                **of_views(MultiView(policies, size, "device"), batch, machine),
            }
            free()
        if machine.small:
            return


def of_views(transform: MultiView, batch: int, machine: Machine) -> Row:
    """The costs of a batch's views in milliseconds, and their distance from the CPU's in grey levels."""
    stream = np.random.default_rng(0)
    few = [Image.fromarray(stream.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)) for _ in range(8)]
    images = [few[number % len(few)] for number in range(batch)]
    start = time.perf_counter()
    host = transform.on_host(images, transform.draw(0, 0, np.arange(batch)))
    packed = time.perf_counter() - start
    if machine.device.type == "cuda":
        host = mapped(Tensor.pin_memory, host)
    moved = min(timed(lambda: to_device(host, machine.device), machine.device) for _ in range(3))
    there = to_device(host, machine.device)
    held = resident(few, batch, machine.device) | {"views": there["views"]}
    ways = {"views_ms": lambda: transform.on_device(there), "resident_views_ms": lambda: transform.on_device(held)}
    took = in_turn(ways, machine.count(6), clock_of(machine.device)[1])
    return {
        "pack_ms": round(1e3 * packed, 2),
        "to_device_ms": round(1e3 * moved, 2),
        **{name: quartiles(1e3 * seconds, 2) for name, seconds in took.items()},
        **distance(transform, few[:4], machine.device),
    }


def resident(few: list[Image.Image], batch: int, device: torch.device) -> dict[str, Any]:
    """A batch of images whose pixels lie on the device already."""
    area = SHAPE[0] * SHAPE[1]
    levels = torch.from_numpy(np.concatenate([np.asarray(image).reshape(-1, 3) for image in few])).to(device)
    starts = area * torch.arange(len(few), device=device)
    pixels = ResidentPixels(levels, starts, torch.tensor([SHAPE] * len(few), device=device))
    return {"rows": torch.arange(batch, device=device) % len(few), "pixels": pixels, "canvas": SHAPE}


def distance(transform: MultiView, few: list[Image.Image], device: torch.device) -> Row:
    """The distance of the device's views from the CPU's, in grey levels."""
    host = transform.on_host(few, transform.draw(0, 0, np.arange(len(few))))
    here = transform.on_device(host)
    there = transform.on_device(to_device(host, device))
    scale = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    gaps = torch.cat([((one.cpu() - other) * scale).abs().flatten() for one, other in zip(there, here, strict=True)])
    return {
        "largest_gap_in_levels": round(float(gaps.max()), 3),
        "share_off_by_half_a_level": round(float((gaps > 0.5).double().mean()), 7),
    }


def neighbours(machine: Machine) -> Iterator[Row]:
    """The monitor's k-NN of 50,000 images against one another, 2,048 features wide, and their effective rank."""
    count, width, part = (512, 64, 128) if machine.small else (50_000, 2048, 1000)
    bank, labels = torch.randn(count, width), torch.arange(count) % 1000
    there = bank.to(machine.device)

    def seconds(work: Callable[[], object]) -> float:
        work()
        return round(timed(work, machine.device), 3)

    yield {
        "what": "on the device",
        "images": count,
        "knn_s": seconds(lambda: knn_predict(there, labels, there, k=20, exclude_self=True)),
        "rank_s": seconds(lambda: effective_rank(there[:4096])),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if machine.device.type == "cuda" else None,
    }
    found = timed(lambda: knn_predict(bank, labels, bank[:part], k=20), torch.device("cpu"))
    here, on_device = (knn_predict(each, labels, each[:part], k=20).cpu() for each in (bank, there))
    yield {
        "what": f"on the CPU, {torch.get_num_threads()} threads, worked out from {part} queries",
        "images": count,
        "knn_s": round(found * count / part, 1),
        "rank_s": round(timed(lambda: effective_rank(bank[:4096]), torch.device("cpu")), 2),
        "alike": round(float((here == on_device).double().mean()), 4),
    }
