"""A batch that several processes read in parts is the batch that one reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import image_folder, tiny
from small_methods import CONFIGS
from torch.utils._pytree import tree_flatten

from ssl_backbones.data import open_images
from ssl_backbones.data.batches import Batch, BatchDataset, Request
from ssl_backbones.data.order import Order
from ssl_backbones.methods import BYOLConfig, MethodConfig
from ssl_backbones.train import reading
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.pretrain import build
from ssl_backbones.train.reading import read_in_parts


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
        reading.joined([np.zeros(3), np.zeros(3)], [3, 3])
