"""A batch that several processes read in parts is the batch that one reads."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drawn_image
from PIL import Image
from runs import image_folder, tiny
from small_methods import CONFIGS
from torch.utils._pytree import tree_flatten

from ssl_backbones.data import Images, open_images, parts
from ssl_backbones.data.batches import Batch, BatchDataset, Batches
from ssl_backbones.data.numbered import NumberedBatches
from ssl_backbones.data.order import Order
from ssl_backbones.data.parts import Request
from ssl_backbones.methods import BYOLConfig, MethodConfig
from ssl_backbones.train import reading
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.pretrain import build
from ssl_backbones.train.reading import read_in_parts
from ssl_backbones.views import (
    MOCO_V2_SMALL_VIEWS,
    PIXPRO_VIEWS,
    CenterCrop,
    Engine,
    LocatedViews,
    MultiView,
    SingleView,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "images", 20)


def asked(kind: type[MethodConfig], data: Path) -> tuple[BatchDataset, Request]:
    """A method's dataset, and the request for its first batch as the first of two processes makes it."""
    recipe = tiny(kind, data, data.parent / "run", batch_size=18)
    images = open_images(recipe.data)
    dataset = build(Beginning(recipe, None)).dataset(images, recipe.size, recipe.seed)
    return dataset, next(Order(len(dataset), 18, 0, world_size=2).requests(epoch=0))


def equal(one: Any, other: Any) -> bool:
    """True for two contents of the same nesting whose tensors are equal bit for bit."""
    (leaves, form), (others, other_form) = tree_flatten(one), tree_flatten(other)
    pairs = list(zip(leaves, others, strict=True))
    return form == other_form and all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_parts_of_every_methods_batch_are_the_batch(
    kind: type[MethodConfig], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(dataset: BatchDataset, requests: Sequence[Request], workers: int) -> list[Batch]:
        assert [len(request.indices) for request in requests] == [3, 3, 3]
        return [dataset[request] for request in requests]

    dataset, request = asked(kind, data)
    monkeypatch.setattr(reading, "LEAST", 3)
    monkeypatch.setattr(reading, "read_each", here)
    assert equal(read_in_parts(dataset, request, 5).content, dataset[request].content)


def test_processes_read_the_parts(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, request = asked(BYOLConfig, data)
    whole = dataset[request].content
    monkeypatch.setattr(reading, "LEAST", 4)
    assert equal(read_in_parts(dataset, request, 2).content, whole)


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(TypeError, match="a batch holds ndarray, whose parts cannot be joined"):
        parts.joined([np.zeros(3), np.zeros(3)], [3, 3])


class Large(Images):
    """Images that know how many of them are held at once."""

    labels, classes, fingerprint = None, (), "large"

    def __init__(self, count: int, side: int = 64) -> None:
        self.keys, self.side = [str(number) for number in range(count)], side
        self.alive, self.most = 0, 0

    def __getitem__(self, index: int) -> Image.Image:
        image = drawn_image(index, self.side, self.side)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(image, self.gone)
        return image

    def gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("kind", [Batches, NumberedBatches])
@pytest.mark.parametrize("engine", ["pillow", "opencv"])
def test_large_images_of_a_batch_are_not_held_all_at_once(
    engine: Engine, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(1, np.arange(30))
    for transform in (
        CenterCrop(16),
        MultiView(MOCO_V2_SMALL_VIEWS, 16, engine),
        LocatedViews(MultiView(PIXPRO_VIEWS, 16, engine)),
        SingleView(MultiView(MOCO_V2_SMALL_VIEWS[:1], 16, engine)),
    ):
        images = Large(30)
        whole = kind(images, transform, 3)[request].content
        assert images.most == 30
        with monkeypatch.context() as patch:
            patch.setattr("ssl_backbones.data.batches.HELD", 4 * 64 * 64)
            images = Large(30)
            torch.testing.assert_close(kind(images, transform, 3)[request].content, whole, rtol=0, atol=0)
            assert images.most <= 5


def test_what_goes_to_a_device_whole_is_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_backbones.data.batches.HELD", 1)
    images = Large(6)
    dataset = Batches(images, MultiView(MOCO_V2_SMALL_VIEWS, 16, "device"), 3)
    assert len(dataset.on_device(dataset[Request(0, np.arange(6))].content)[0]) == 6
    assert images.most == 6
