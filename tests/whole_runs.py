"""Runs that nothing disturbed, watched from start to end; and a method that notices whatever is not restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from runs import elsewhere, image_folder, run, stop, tiny
from torch import Tensor, nn

from ssl_backbones.methods import Method, MethodConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.loop import Loop
from ssl_backbones.views import LEWEL_B_VIEWS, MultiView


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "photos")


@dataclass(frozen=True)
class NoisyConfig(MethodConfig):
    """No method of any use, under the name of another for which there are models."""

    name: ClassVar[str] = "byol"
    noise: bool = True

    def build(self, backbone: nn.Module) -> Noisy:
        return Noisy(backbone, self)


class Noisy(Method):
    """Draws random numbers wherever a method may, and keeps what it saw; its rows do not know each other."""

    def __init__(self, backbone: nn.Module, config: NoisyConfig) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.register_buffer("centre", torch.zeros(64))
        self.register_buffer("moved", torch.zeros(()))

    def train(self, mode: bool = True) -> Noisy:
        super().train(mode)
        self.backbone.eval()
        return self

    def transform(self, size: int) -> MultiView:
        return MultiView(LEWEL_B_VIEWS, size)

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        first, second = (self.backbone(view) for view in batch)
        noise = torch.randn_like(first) if self.config.noise else 0
        loss = (first - second + 0.1 * noise - self.centre).square().mean()
        return {"loss": loss, "half": loss.detach() / 2, "one": 1.0}

    def on_epoch_start(self, embed: Callable[[], Tensor]) -> None:
        features = embed()
        self.centre.copy_(features.mean(0) + torch.randn(64) if self.config.noise else features.mean(0))

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.moved.add_(torch.randn(()) if self.config.noise else 1)
        return {"progress": progress}


class DeviceReads(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes what would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    recipe: Recipe
    path: Path
    read: list[list[str]]
    """The reads from the device in each step."""


def watched(recipe: Recipe, page: bool = False) -> Whole:
    """The recipe run from its start to its end, with the images of its page if asked for."""
    descend, read = Loop.descend, []

    def watch(loop: Loop, batches: Any) -> None:
        with DeviceReads() as reads:
            descend(loop, batches)
        read.append(reads.found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "descend", watch)
        return Whole(recipe, run(recipe, page).path, read)


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder that a run leaves, with its time and its bytes."""
    return {
        str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (".lock", "recipe.json")
    }


@pytest.fixture(scope="module")
def noisy(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return watched(tiny(NoisyConfig, data, tmp_path_factory.mktemp("noisy") / "run"))


@pytest.fixture(scope="module")
def cut(noisy: Whole, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run, stopped after its fourth step."""
    path = tmp_path_factory.mktemp("cut") / "run"
    stop(elsewhere(noisy.recipe, path), 4)
    return path
