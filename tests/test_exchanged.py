"""Keys shuffled where images are read: the same as gathering all images and shuffling them, without sending one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_methods import Drawn, converted, mined, small_method
from torch import Tensor
from two_processes import run_two_processes

from ssl_backbones.data import Batches, Request, UnreadableImageError
from ssl_backbones.data.exchanged import Exchanged
from ssl_backbones.data.order import Order
from ssl_backbones.methods import FlagsConfig, LewelMConfig, MethodConfig, MoCoV2Config
from ssl_backbones.models import key_encoder

IMAGES, BATCH, SEED = 16, 8, 5
CASES: list[tuple[type[MethodConfig], dict[str, Any]]] = [
    (MoCoV2Config, {"bn_splits": 2}),
    (LewelMConfig, {"bn_splits": 4}),
    (LewelMConfig, {"gather_aligned_keys": False}),
    (FlagsConfig, {"queue_size": 96}),
    (FlagsConfig, {"queue_size": 96, "bn_splits": 4, "mask": "class", "enqueue": "first"}),
]
"""In two processes, 2 splits are a group for each, and 4 are two groups for each."""
GATHERED: list[tuple[type[MethodConfig], dict[str, Any]]] = [
    (MoCoV2Config, {"symmetric": True}),
    (MoCoV2Config, {"key_bn": "ema"}),
    (LewelMConfig, {"key_bn": "sync"}),
    (FlagsConfig, {"passes": "together"}),
]


def order_of(request: Request) -> Tensor:
    """The order in which the images of a global batch are shared out."""
    assert request.exchange is not None
    return torch.from_numpy(np.argsort(request.exchange.places))


def train(
    kind: type[MethodConfig], choices: dict[str, Any], *, exchanged: bool, rank: int = 0, world_size: int = 2
) -> dict[str, Tensor]:
    """Two steps: losses, every gradient, and every parameter and buffer, of this rank alone.

    Where keys are not exchanged, all images are gathered and take the order that the requests name.
    """
    method = small_method(kind, **choices).double()
    dataset = method.dataset(mined(Drawn(IMAGES)), 16, SEED)
    parameters = [value for value in method.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    found = {}
    requests = [*Order(IMAGES, BATCH, SEED, rank, world_size).requests(0)] * 2
    for step, request in enumerate(requests[:2]):
        asked = request if exchanged else Request(request.epoch, request.indices)
        content = converted_content(dataset, asked)
        with pytest.MonkeyPatch.context() as patch:  # in an exchange nothing is shuffled once more
            order = None if exchanged else partial(lambda order, size, device: order, order_of(request))
            patch.setattr(key_encoder, "same_permutation", order)
            loss = method(content)["loss"]
        optimizer.zero_grad()
        loss.backward()
        for weights in parameters if world_size > 1 else []:
            torch.distributed.all_reduce(weights.grad)
            weights.grad /= world_size
        found |= {
            f"{step} gradient {name}": value.grad.clone()
            for name, value in method.named_parameters()
            if value.grad is not None
        }
        optimizer.step()
        method.on_step_end(step / 2)
        found[f"{step} loss"] = loss.detach()
        found |= {f"{step} {name}": value.detach().clone() for name, value in method.state_dict().items()}
    return found


def converted_content(dataset: Batches, request: Request) -> Any:
    """A batch in double precision, as a method takes it."""
    content = dataset.on_device(dataset[request].content)
    if isinstance(content, Exchanged):
        return Exchanged(converted(content.views, torch.float64), content.places)
    if isinstance(content, tuple) and isinstance(content[0], Exchanged):
        shown, numbers = content
        return Exchanged(converted(shown.views, torch.float64), shown.places), numbers
    return converted(content, torch.float64)


def both_ways(rank: int) -> list[Any]:
    """Training with and without exchange, and the data sent in a forward."""
    ways = [[train(kind, choices, exchanged=way, rank=rank) for way in (True, False)] for kind, choices in CASES]
    return [*ways, gathered_bytes(rank)]


@pytest.fixture(scope="module")
def ranks() -> list[Any]:
    return run_two_processes(both_ways)


def gathered_bytes(rank: int) -> list[int]:
    """The elements that a process sends in a forward: of exchanged batches, and of others."""
    sent: list[int] = []
    gather = torch.distributed.all_gather

    def counted(parts: list[Tensor], rows: Tensor) -> None:
        sent.append(rows.numel())
        gather(parts, rows)

    method = small_method(MoCoV2Config)
    dataset = method.dataset(Drawn(IMAGES), 16, SEED)
    request = next(Order(IMAGES, BATCH, SEED, rank, 2).requests(0))
    totals = []
    for asked in (request, Request(request.epoch, request.indices)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "all_gather", counted)
            sent.clear()
            method(dataset.on_device(dataset[asked].content))
        totals.append(sum(sent))
    return totals


def test_no_image_moves_and_nothing_else_changes(ranks: list[Any]) -> None:
    first, second = ranks
    for number, (kind, choices) in enumerate(CASES):
        for ways in (first[number], second[number]):
            exchanged, gathered = ways
            assert exchanged.keys() == gathered.keys()
            for name, value in exchanged.items():
                torch.testing.assert_close(value, gathered[name], rtol=0, atol=1e-10, msg=f"{kind} {choices} {name}")
        alike = [name for name in first[number][0] if "queue" in name]
        assert alike
        assert all(torch.equal(first[number][0][name], second[number][0][name]) for name in alike)
    own = BATCH // 2
    assert first[-1] == second[-1] == [own * 16, own * (16 + 3 * 16 * 16)]  # keys of 16 numbers; images of 16 pixels


orders = st.builds(
    lambda world_size, accumulation, size, steps, seed: Order(
        world_size * accumulation * size * steps, world_size * accumulation * size, seed, 0, world_size, accumulation
    ),
    *(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 3)),
    st.integers(0, 2**40),
)


@given(orders, st.integers(0, 50))
def test_ranks_exchange_all_images_of_a_micro_batch(order: Order, epoch: int) -> None:
    ranks = [[*replace(order, rank=rank).requests(epoch)] for rank in range(order.world_size)]
    for requests in zip(*ranks, strict=True):
        exchanges = [request.exchange for request in requests if request.exchange is not None]
        whole = np.concatenate([request.indices for request in requests])
        taken_over = np.concatenate([exchange.indices for exchange in exchanges])
        assert [len(exchange.indices) for exchange in exchanges] == [len(request.indices) for request in requests]
        for exchange in exchanges:
            np.testing.assert_array_equal(taken_over[exchange.places], whole)


@given(orders, st.integers(0, 5), st.integers(0, 6))
def test_an_exchange_does_not_depend_on_where_an_epoch_begins(order: Order, epoch: int, start: int) -> None:
    start = min(start, order.steps_per_epoch)
    whole, tail = ([order_of(request).tolist() for request in order.requests(epoch, at)] for at in (0, start))
    assert tail == whole[start * order.accumulation :]


def test_images_do_change_places_and_otherwise_in_every_step_and_epoch() -> None:
    order = Order(640, 64, SEED, rank=1, world_size=2)
    found = {tuple(order_of(request).tolist()) for epoch in (0, 1) for request in order.requests(epoch)}
    assert len(found) == 20
    others = [set(request.indices) - set(request.exchange.indices) for request in order.requests(0) if request.exchange]
    assert all(len(moved) > 8 for moved in others)


@pytest.mark.parametrize(("kind", "choices"), CASES[:1] + CASES[-1:])
def test_views_are_those_that_another_process_would_have_made(
    kind: type[MethodConfig], choices: dict[str, Any]
) -> None:
    """Each view of an image is the same, whichever process makes it; and FLAGS's numbers go with the keys."""
    dataset = small_method(kind, **choices).dataset(mined(Drawn(IMAGES)), 16, SEED)
    request = next(Order(IMAGES, BATCH, SEED, 1, 2).requests(0))
    assert request.exchange is not None
    content = dataset.on_device(dataset[request].content)
    own = dataset.on_device(dataset[Request(0, request.indices)].content)
    other = dataset.on_device(dataset[Request(0, request.exchange.indices)].content)
    if kind is FlagsConfig:
        (content, numbers), (own, _), (other, expected) = content, own, other
        assert torch.equal(numbers, expected)
    assert torch.equal(content.views[0], own[0])
    assert all(torch.equal(view, same) for view, same in zip(content.views[1:], other[1:], strict=True))


def test_images_are_read_once_and_counted_where_they_cannot_be() -> None:
    class Torn(Drawn):
        read: ClassVar[list[int]] = []

        def __getitem__(self, index: int) -> Image.Image:
            self.read.append(index)
            if index == 3:
                raise UnreadableImageError("3.png is torn")
            return super().__getitem__(index)

    images = Torn(IMAGES)
    dataset = small_method(MoCoV2Config).dataset(images, 16, SEED)
    alone = next(Order(IMAGES, IMAGES, SEED).requests(0))
    batch = dataset[alone]
    assert set(batch.unreadable) == {"3.png"}
    assert sorted(set(images.read)) == list(range(IMAGES))
    assert len(images.read) == IMAGES + 1  # and once more the one that stands in for the torn image


@pytest.mark.parametrize(("kind", "choices"), GATHERED)
def test_what_cannot_be_exchanged_is_not(kind: type[MethodConfig], choices: dict[str, Any]) -> None:
    dataset = small_method(kind, **choices).dataset(mined(Drawn(IMAGES)), 16, SEED)
    content = dataset[next(Order(IMAGES, BATCH, SEED).requests(0))].content
    assert not isinstance(content, Exchanged)
    assert not isinstance(content[0], Exchanged)


def test_one_process_normalises_in_the_groups_that_two_have(ranks: list[Any]) -> None:
    """The shuffle is the same for any number of processes, and so is what is learnt from half a batch each."""
    (first, _), (second, _) = (rank[0] for rank in ranks)
    alone = train(*CASES[0], exchanged=True, world_size=1)
    for name, value in alone.items():
        if "loss" in name:
            torch.testing.assert_close((first[name] + second[name]) / 2, value, rtol=0, atol=1e-10)
        if "queue" in name:
            torch.testing.assert_close(first[name], value, rtol=0, atol=1e-10)
