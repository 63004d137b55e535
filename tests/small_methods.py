"""Every method at a size for tests: found by being in its place, shrunk by the names of its fields."""

from __future__ import annotations

import copy
import dataclasses
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SHARED, drawn_image
from PIL import Image
from timm.models import save_for_hf
from torch import Tensor, nn

from ssl_backbones import create_model
from ssl_backbones.data import Batches, Images, Request
from ssl_backbones.data.exchanged import ExchangedBatches
from ssl_backbones.data.placement import mapped
from ssl_backbones.methods import METHODS, Method, MethodConfig
from ssl_backbones.mining import Pairs
from ssl_backbones.models.teacher_branch import TeacherBranch
from ssl_backbones.views import MultiView

CONFIGS = list(METHODS.values())
STANDING = {"byol", "moco_v2", "lewel_b", "lewel_m", "flags"}
STANDING |= {"patch_relnet", "deepcluster", "swav", "densecl", "distilled"}
"""Methods that stand for those of their build: with a moving target, a queue, maps, pairs, patches, clusters, crops of
several sizes, rows of maps, a teacher."""
STAND_INS = [
    pytest.param(kind, marks=() if kind.name in STANDING else pytest.mark.slow, id=kind.__name__) for kind in CONFIGS
]
"""Every method, for tests of what those of a build share: the fast ones run over those that stand for the others."""
SMALL: dict[str, Any] = {
    "pairs": str(SHARED / f"pairs-{os.getpid()}.parquet"),
    "teacher": str(SHARED / "teacher"),
    "hidden_dim": 32,
    "projection_dim": 16,
    "aligned_dim": 16,
    "predictor_dim": 8,
    "local_dim": 8,
    "groups": 4,
    "queue_size": 16,
    "aligned_queue_size": 16,
    "bn_splits": 2,
    "clusters": 4,
    "classes": 3,
    "prototypes": 12,
    "aligned_prototypes": 12,
    "outputs": 12,
    "frozen_steps": 1,
    "crops": 2,
    "noise": 0,
    "map_dim": 16,
    "granularities": (3, 4),
    "negatives": 0,
    "instance_epochs": 0,
}


def leave_teacher(folder: str | Path, seed: int = 7, classes: int = 0, **cfg: Any) -> str:
    """A folder with a ResNet-8 of random weights, which wants its images normalised in another way than views are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = create_model("resnet8", num_classes=classes)
    network.pretrained_cfg = {**network.pretrained_cfg, "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3), **cfg}
    save_for_hf(network, folder, safe_serialization=True)
    return str(folder)


def share_teacher() -> None:
    """Leave the teacher for all processes, if none has done so."""
    if not Path(SMALL["teacher"]).exists():
        with tempfile.TemporaryDirectory(dir=SHARED) as folder, suppress(OSError):  # of which one may come first
            os.rename(leave_teacher(Path(folder) / "made"), SMALL["teacher"])


share_teacher()


def small_config(kind: type[MethodConfig], **choices: Any) -> MethodConfig:
    """The configuration with its sizes shrunk, and with those of the choices that it knows."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in (SMALL | choices).items() if name in known})


def small_method(kind: type[MethodConfig], seed: int = 0, **choices: Any) -> Method:
    """The method around a ResNet-8, in training mode; the same for the same seed."""
    torch.manual_seed(seed)
    backbone: nn.Module = create_model("resnet8", num_classes=0)
    method = small_config(kind, **choices).build(backbone).train()
    for part in method.modules():
        if isinstance(part, TeacherBranch):
            part.has_looked = True  # as if its means were those of the batches that tests draw
    return method


def views(count: int = 8, size: int = 16, dtype: torch.dtype = torch.float32, seed: int = 1) -> list[Tensor]:
    """Two views (B, 3, S, S) of images that differ, the second a noisy copy of the first."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    second = first + 0.3 * torch.randn(first.shape, generator=generator, dtype=torch.float64)
    return [first.to(dtype), second.to(dtype)]


class Drawn(Images):
    """Small images of different shapes in three classes, other ones for another seed."""

    classes = ("x", "y", "z")

    def __init__(self, count: int, seed: int = 0) -> None:
        self.seed = seed
        self.keys = [f"{number}.png" for number in range(count)]
        self.labels = np.arange(count) % 3
        self.fingerprint = f"{count} images, {seed}"

    def __getitem__(self, index: int) -> Image.Image:
        return drawn_image(100 * self.seed + index, 18 + index % 5, 24 - index % 3)


def batch_of(method: Method, count: int = 8, size: int = 16, dtype: torch.dtype = torch.float32, seed: int = 1) -> Any:
    """A batch for a method: `views` where it takes two and no more, or else one of its own dataset."""
    dataset, transform = method.dataset(mined(Drawn(count, seed)), size, seed), method.transform(size)
    two = isinstance(transform, MultiView) and len(transform.policies) == 2
    if two and isinstance(dataset, Batches | ExchangedBatches):
        return views(count, size, dtype, seed)
    return converted(dataset.on_device(dataset[Request(0, np.arange(count))].content), dtype)


def features_of(method: Method) -> int:
    """The number of features that a method looks at before an epoch."""
    weight = next(method.embedder.parameters())
    with torch.no_grad():
        embedder = copy.deepcopy(method.embedder).eval()
        return int(embedder(torch.zeros(1, 3, 16, 16, dtype=weight.dtype)).shape[1])


def mined(images: Images, path: str = SMALL["pairs"]) -> Images:
    """The images, with a file of pairs for those methods that want one: of each, the four that follow it."""
    drawn = images.fingerprint if isinstance(images, Drawn) and path == SMALL["pairs"] else ""
    if not drawn or [drawn] != LAST:
        rows = (np.arange(len(images))[:, None] + np.arange(1, 5)) % len(images)
        Pairs(rows, {}).write(path, images, overwrite=True)
        LAST[:] = [drawn]
    return images


LAST: list[str] = []
"""The drawn images that the file of pairs for all tests is of."""


def converted(content: Any, dtype: torch.dtype) -> Any:
    """Nested content with its floating-point tensors in a type."""
    return mapped(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, content)
