"""A batch is a function of its request: alike in every worker, broken images and all."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from ssl_backbones.data import (
    Batch,
    Batches,
    Images,
    Request,
    TooManyUnreadableError,
    Unreadable,
    UnreadableImageError,
    open_images,
)
from ssl_backbones.data.batches import ATTEMPTS, stride
from ssl_backbones.train.loader import read_each
from ssl_backbones.views.transform import Transform


class Noisy(Transform):
    """Each image's pixels plus noise of its own, (B, H, W, 3)."""

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Any:
        return np.stack([np.random.default_rng((seed, epoch, int(index))).integers(0, 256, 3) for index in indices])

    def on_host(self, images: Sequence[Image.Image], parameters: Any) -> Any:
        pixels = np.stack([np.asarray(image) for image in images])
        return torch.from_numpy((pixels + parameters[:, None, None]).astype(np.uint8))

    def on_device(self, batch: Any) -> Any:
        return batch.float()


class Few(Images):
    """Images of one colour each; those at `broken` cannot be read."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self.keys = [f"{index}.jpg" for index in range(count)]
        self.labels, self.classes, self.fingerprint = None, [], ""
        self.broken = frozenset(broken)
        self.asked = 0

    def __getitem__(self, index: int) -> Image.Image:
        self.asked += 1
        if index in self.broken:
            raise UnreadableImageError(f"{self.keys[index]!r} cannot be read: it is broken")
        return Image.new("RGB", (4, 4), (index % 256, index // 256, 0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(11):
        (root / f"{number:02d}.jpg").write_bytes(hostile.jpeg(seed=number))
    (root / "03.jpg").write_bytes(b"<html>")
    (root / "07.jpg").write_bytes(hostile.jpeg(seed=7)[:-300])
    return root


REQUESTS = [
    Request(0, np.array([0, 1, 2, 3])),
    Request(0, np.array([7, 10])),
    Request(1, np.array([3, 2, 1, 0])),
    Request(1, np.array([4, 4, 9])),
]
NAMED = [{"03.jpg"}, {"07.jpg"}, {"03.jpg"}, set()]


@pytest.mark.parametrize("call", ["fork", "forkpty"])
def test_no_test_fails_by_a_fork_beside_a_thread(call: str) -> None:
    """Python 3.12 and later warn of each in these words, and every process of `-n` has a second thread."""
    told = f"This process (pid=7) is multi-threaded, use of {call}() may lead to deadlocks in the child."
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn(told, DeprecationWarning, stacklevel=1)
    assert seen == []


@pytest.mark.parametrize(
    ("workers", "start"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
def test_workers_of_every_kind_hand_over_the_same_batches(folder, workers, start):
    if start and start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    batches = Batches(open_images(folder), Noisy(), seed=3)
    expected = [batches[request] for request in REQUESTS]
    loader = DataLoader(batches, batch_size=None, sampler=REQUESTS, num_workers=workers, multiprocessing_context=start)
    for batch, same in zip(loader, expected, strict=True):
        assert torch.equal(batch.content, same.content)
        assert batch.unreadable == same.unreadable
    assert [set(batch.unreadable) >= names for batch, names in zip(expected, NAMED, strict=True)] == [True] * 4
    assert all(set(batch.unreadable) <= {"03.jpg", "07.jpg"} for batch in expected)
    assert "07.jpg' cannot be read: " in expected[1].unreadable["07.jpg"]


def test_what_crosses_to_a_worker_makes_the_same_batches(folder):
    batches = Batches(open_images(folder), Noisy(), seed=3)
    copied = pickle.loads(pickle.dumps(batches))
    for request in REQUESTS:
        assert torch.equal(copied[request].content, batches[request].content)


@given(st.permutations(range(8)), st.integers(1, 8), st.integers(0, 3))
def test_a_sample_does_not_know_its_batch(order, size, epoch):
    batches = Batches(Few(8, broken=[2, 5]), Noisy(), seed=1)
    alone = {index: batches[Request(epoch, np.array([index]))].content[0] for index in range(8)}
    random.seed(size)
    np.random.seed(size)
    for start in range(0, 8, size):
        indices = order[start : start + size]
        content = batches[Request(epoch, np.array(indices))].content
        assert all(torch.equal(content[at], alone[index]) for at, index in enumerate(indices))


def test_epochs_and_seeds_differ():
    def pixels(seed: int, epoch: int) -> torch.Tensor:
        return Batches(Few(4), Noisy(), seed)[Request(epoch, np.arange(4))].content

    assert not torch.equal(pixels(0, 0), pixels(0, 1))
    assert not torch.equal(pixels(0, 0), pixels(1, 0))


@given(st.integers(1, 60), st.data())
def test_one_image_that_can_be_read_is_found(count, data):
    good = data.draw(st.integers(0, count - 1))
    batches = Batches(Few(count, broken=[index for index in range(count) if index != good]), Noisy(), seed=0)
    unreadable: dict[str, str] = {}
    for index in range(count):
        assert batches.read(index, unreadable)[1].getpixel((0, 0))[0] == good
    assert len(unreadable) == count - 1


@given(st.integers(1, 5000))
def test_the_stride_comes_to_every_image(count):
    assert len({attempt * stride(count) % count for attempt in range(count)}) == count


def test_the_places_of_a_broken_class_are_taken_by_many_images():
    batches = Batches(Few(1000, broken=range(100, 200)), Noisy(), seed=0)
    stand_ins = {batches.read(index, {})[1].getpixel((0, 0)) for index in range(100, 200)}
    assert len(stand_ins) == 100


def test_a_disk_that_is_gone_ends_the_run_soon():
    images = Few(100_000, broken=range(100_000))
    with pytest.raises(
        UnreadableImageError, match=r"^100 of 100000 images in a row cannot be read, at last: '\d+\.jpg'"
    ):
        Batches(images, Noisy(), seed=0)[Request(0, np.array([5]))]
    assert images.asked == ATTEMPTS


def test_a_worker_names_the_images_when_all_are_broken(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"")
    batches = Batches(open_images(tmp_path), Noisy(), 0)
    with pytest.raises(UnreadableImageError, match=r"1 of 1 images in a row cannot be read.*1\.jpg' .*it is empty"):
        list(read_each(batches, [Request(0, np.array([0]))], workers=1))


# The account of unreadable images


@pytest.mark.parametrize(("total", "share", "allowed"), [(10, 0.01, 1), (1000, 0.01, 10), (1000, 0.0, 0), (3, 1.0, 3)])
def test_a_share_is_borne_and_no_more(total, share, allowed):
    unreadable = Unreadable(total, share)
    for number in range(allowed):
        unreadable.add({f"{number}.jpg": "broken"})
        unreadable.add({f"{number}.jpg": "broken"})
    if allowed < total:
        with pytest.raises(
            TooManyUnreadableError, match=rf"^{allowed + 1} of {total} images cannot be read, and {allowed} "
        ):
            unreadable.add({"one more.jpg": "broken"})


def test_images_met_slowly_add_up():
    unreadable = Unreadable(500)
    for epoch in range(50):
        unreadable.add({f"{epoch // 10}.jpg": "broken"})
    assert len(unreadable.reasons) == 5
    with pytest.raises(TooManyUnreadableError):
        unreadable.add({"the sixth.jpg": "broken"})


def test_each_image_is_warned_of_once(caplog):
    caplog.set_level(logging.WARNING)
    unreadable = Unreadable(1000)
    for _ in range(3):
        unreadable.add(Batch(None, {"a.jpg": "'a.jpg' cannot be read: it is empty"}).unreadable)
    assert [record.getMessage() for record in caplog.records].count(
        "image left out, another takes its place: 'a.jpg' cannot be read: it is empty"
    ) == 1


def test_the_list_is_cut_at_twenty():
    with pytest.raises(TooManyUnreadableError) as caught:
        Unreadable(1000).add({f"{number:02d}.jpg": f"'{number:02d}.jpg' cannot be read" for number in range(25)})
    text = str(caught.value)
    assert "'00.jpg' cannot be read" in text
    assert "'19.jpg' cannot be read" in text
    assert "'20.jpg'" not in text
    assert text.endswith("and 5 more")


def test_the_account_is_kept_over_a_resume():
    before = Unreadable(1000)
    before.add({"latin-\udce9.jpg": "broken"})
    after = Unreadable(1000)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.reasons == before.reasons


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_senseless_share_is_refused(share):
    with pytest.raises(ValueError, match="has to be from 0 to 1"):
        Unreadable(10, share)
