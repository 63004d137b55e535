"""The same batches for any number of workers, ranks and resumptions; and workers that obey their parent alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from epochs import epoch_of
from hypothesis import given
from hypothesis import strategies as st
from limits import HANG
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory
from warm_processes import signal_from_elsewhere

from ssl_backbones.data.batches import Batch, Batches
from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.data.order import Order, Requests
from ssl_backbones.train.loader import Loader, keep, obey_parent_alone
from ssl_backbones.views.transform import Transform


class Squares(Images):
    """Images of one colour that tell their index; some cannot be read."""

    labels = None
    classes = ()
    fingerprint = "squares"

    def __init__(self, count: int, unreadable: Sequence[int] = ()) -> None:
        self.keys = [f"{index}.png" for index in range(count)]
        self.unreadable = unreadable
        self.decoded: list[int] = []

    def __getitem__(self, index: int) -> Image.Image:
        if index in self.unreadable:
            raise UnreadableImageError(f"{self.keys[index]} is torn at byte 12")
        self.decoded.append(index)
        return Image.new("RGB", (2, 2), (index % 256, index // 256, 0))


class Counted(Transform):
    """The images' indices, and a number drawn for each."""

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Any:
        return (seed * 31 + epoch) * 1000 + indices

    def on_host(self, images: Sequence[Image.Image], parameters: Any) -> Any:
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        return {"pixels": pixels, "drawn": torch.from_numpy(parameters)}

    def on_device(self, batch: Any) -> Any:
        return batch


def loader(count: int = 23, batch_size: int = 8, unreadable: Sequence[int] = (), **more: Any) -> Loader:
    return Loader(Batches(Squares(count, unreadable), Counted(), seed=3), batch_size, seed=3, **more)


def seen(batch: Batch) -> list[int]:
    """The indices of a batch's images, as their colours tell."""
    colours = batch.content["pixels"][:, 0, 0].int()
    return (colours[:, 0] + 256 * colours[:, 1]).tolist()


def trace(steps: Any) -> list[list[tuple[list[int], list[int], dict[str, str]]]]:
    """All that a loader hands over."""
    return [[(seen(part), part.content["drawn"].tolist(), part.unreadable) for part in step] for step in steps]


orders = st.builds(
    lambda world_size, accumulation, size, steps, rest, seed: (
        world_size * accumulation * size * steps + rest % (world_size * accumulation * size),
        world_size * accumulation * size,
        seed,
        world_size,
        accumulation,
    ),
    *(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 100)),
    st.integers(0, 2**40),
)


@given(orders, st.integers(0, 50))
def test_ranks_and_micro_batches_partition_the_global_batches(
    sizes: tuple[int, int, int, int, int], epoch: int
) -> None:
    images, batch_size, seed, world_size, accumulation = sizes
    whole = Order(images, batch_size, seed)
    steps = [request.indices for request in whole.requests(epoch)]
    assert len(steps) == whole.steps_per_epoch == images // batch_size
    flat = np.concatenate(steps)
    assert len(set(flat.tolist())) == len(flat)
    assert set(flat.tolist()) <= set(range(images))
    ranks = [
        list(Order(images, batch_size, seed, rank, world_size, accumulation).requests(epoch))
        for rank in range(world_size)
    ]
    for step, expected in enumerate(steps):
        parts = [ranks[r][step * accumulation + m].indices for m in range(accumulation) for r in range(world_size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


@given(orders, st.integers(0, 5), st.integers(0, 6))
def test_an_epoch_resumed_is_the_tail_of_the_whole(
    sizes: tuple[int, int, int, int, int], epoch: int, start: int
) -> None:
    images, batch_size, seed, world_size, accumulation = sizes
    order = Order(images, batch_size, seed, world_size - 1, world_size, accumulation)
    steps = order.steps_per_epoch
    first, last = epoch * steps + min(start, steps), (epoch + 1) * steps
    whole, tail = list(Requests(order, epoch * steps, last)), list(Requests(order, first, last))
    assert len(tail) == len(Requests(order, first, last))
    assert [r.indices.tolist() for r in tail] == [r.indices.tolist() for r in whole[start * accumulation :]]
    assert all(request.epoch == epoch for request in tail)


@given(orders, st.integers(0, 9), st.integers(0, 9))
def test_steps_run_through_the_epochs(sizes: tuple[int, int, int, int, int], first: int, count: int) -> None:
    images, batch_size, seed, world_size, accumulation = sizes
    order = Order(images, batch_size, seed, 0, world_size, accumulation)
    every = [(r.epoch, r.indices.tolist()) for epoch in range(20) for r in order.requests(epoch)]
    some = [(r.epoch, r.indices.tolist()) for r in Requests(order, first, first + count)]
    assert some == every[first * accumulation : (first + count) * accumulation]


def test_the_order_is_another_in_every_epoch_and_for_every_seed() -> None:
    def first(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(next(Order(100, 50, seed).requests(epoch)).indices.tolist())

    assert first(0, 0) == first(0, 0)
    assert len({first(0, 0), first(0, 1), first(1, 0), first(1, 1)}) == 4


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_workers_and_resumption_change_nothing(accumulation: int, start: int) -> None:
    alone = loader(unreadable=[4, 9, 15], accumulation=accumulation)
    whole = trace(epoch_of(alone, 5))
    assert alone.steps_per_epoch == len(whole) == 2
    assert all(len(step) == accumulation for step in whole)
    assert any("torn at byte 12" in reason for step in whole for part in step for reason in part[2].values())
    for workers in (0, 2):
        again = loader(unreadable=[4, 9, 15], accumulation=accumulation, workers=workers)
        assert trace(epoch_of(again, 5, start)) == whole[start:]


def test_what_was_seen_before_is_not_decoded() -> None:
    late = loader()
    images = late.dataset.images
    assert isinstance(images, Squares)
    steps = trace(epoch_of(late, 0, start=1))
    assert images.decoded == [index for step in steps for (index,) in [(i,) for i in step[0][0]]]
    assert len(images.decoded) == 8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_other_ways_to_start_workers(method: str) -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        assert trace(epoch_of(loader(workers=1), 0)) == trace(epoch_of(loader(), 0))
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_what_a_spawned_worker_is_given_pickles() -> None:
    given = (loader().dataset, keep, obey_parent_alone)
    assert pickle.loads(pickle.dumps(given))[1:] == given[1:]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_generator_is_touched(workers: int) -> None:
    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]

    before = states()
    trace(epoch_of(loader(workers=workers), 0))
    assert states() == before


def wait_until_childless() -> None:
    gc.collect()
    give_up = time.monotonic() + HANG
    while multiprocessing.active_children():
        assert time.monotonic() < give_up, multiprocessing.active_children()
        time.sleep(0.02)


def test_workers_are_gone_after_the_epoch() -> None:
    wait_until_childless()
    steps = epoch_of(loader(workers=2), 0)
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    for _ in steps:
        pass
    wait_until_childless()


def test_workers_are_gone_when_an_epoch_is_given_up() -> None:
    for _ in epoch_of(loader(count=160, workers=2), 0):
        break
    wait_until_childless()


def test_a_dataset_changed_between_epochs_is_what_workers_see() -> None:
    changing = loader(workers=1)
    before = trace(epoch_of(changing, 0))
    changing.dataset.seed = 4
    after = trace(epoch_of(changing, 0))
    assert before != after
    assert [part[0] for step in before for part in step] == [part[0] for step in after for part in step]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_keeps_its_words(workers: int) -> None:
    with pytest.raises(UnreadableImageError, match=r"cannot be read.*is torn at byte 12"):
        list(epoch_of(loader(10, unreadable=range(10), workers=workers), 0))


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this platform does not tell who sent a signal")
def test_signals_to_the_group_are_left_to_the_parent() -> None:
    wait_until_childless()
    steps = epoch_of(loader(count=160, workers=2), 0)
    for _ in range(2):  # they take turns: now both are past their start
        next(steps)
    children = multiprocessing.active_children()
    assert len(children) == 2
    signal_from_elsewhere(children)
    assert len(list(steps)) == 18
    steps = epoch_of(loader(count=160, workers=2), 0)
    for _ in range(2):
        next(steps)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGTERM)
    wait_until_childless()
    steps.close()  # type: ignore[attr-defined]


def test_memory_is_pinned_through_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor + 1)
    pinned = pin_memory(Batch({"x": torch.zeros(1)}, {"a.png": "torn"}))
    assert isinstance(pinned, Batch)
    assert pinned == ({"x": torch.ones(1)}, {"a.png": "torn"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 7}, "the data has 7 images and one batch takes 8"),
        ({"batch_size": 0}, "a batch of 0 images"),
        ({"world_size": 3}, "8 images cannot be shared evenly by 3 processes x 1 accumulation steps"),
        ({"world_size": 2, "accumulation": 3}, "by 2 processes x 3 accumulation steps; choose a multiple of 6"),
        ({"workers": -1}, "workers is -1, but must be at least 0"),
    ],
)
def test_what_cannot_work_is_said_at_once(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loader(**settings)
