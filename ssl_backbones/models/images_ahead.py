"""Images that a frozen teacher looks at: read some batches ahead of it, and shared by processes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ssl_backbones.cores import cores_here
from ssl_backbones.data import Images, UnreadableImageError
from ssl_backbones.data.threads import in_turn
from ssl_backbones.devices import gpu_here
from ssl_backbones.distributed import gather, world_size
from ssl_backbones.models.teacher import Teacher
from ssl_backbones.products import network_products
from ssl_backbones.shares import own_share
from ssl_backbones.views import CenterCrop

BATCH = 32
"""Images that a teacher is shown at a time."""
AHEAD = 4
"""Batches that are read while it looks at another, at least."""


def embedded(teacher: Teacher, crop: CenterCrop, images: Images, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The teacher's features (n, D) of the images at some rows (n,), in every process, and which could be read (n,).

    Features are zeros where one could not. Each process makes a share of them, on the usual device; images are read
    while others are looked at.
    """
    mine = own_share(torch.from_numpy(rows)).numpy()
    device = usual_device()
    found, read = [], []
    for levels, readable in ahead(crop, images, np.split(mine, range(BATCH, len(mine), BATCH))):
        with network_products(device):
            features = teacher.look(crop.on_device(levels.to(device))).features
        read.append(readable.to(device))
        found.append(features * read[-1][:, None])
    return gather(torch.cat(found))[: len(rows)], gather(torch.cat(read))[: len(rows)]


def usual_device() -> torch.device:
    """The GPU where there is one, not excluded, that the processes of the run can share tensors of; else the CPU."""
    shared = world_size() == 1 or dist.get_backend() == "nccl"
    return torch.device("cuda" if gpu_here() and shared else "cpu")


def ahead(crop: CenterCrop, images: Images, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the levels (B, S, S, 3) of each batch of rows and which images could be read (B,), some batches ahead."""
    threads = cores_here()
    with ThreadPoolExecutor(threads) as pool:
        yield from in_turn(pool, partial(levels_of, crop, images), batches, 1 + max(AHEAD, threads))


def levels_of(crop: CenterCrop, images: Images, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The levels (B, S, S, 3) of the images at rows (B,), black for an unreadable one, and which could be read (B,)."""
    levels = torch.zeros(len(rows), crop.size, crop.size, 3, dtype=torch.uint8)
    readable = torch.ones(len(rows))
    for at, row in enumerate(rows.tolist()):
        try:
            levels[at] = crop.on_host([images[row]], None)[0]
        except UnreadableImageError:
            readable[at] = 0
    return levels, readable
