"""Mining against a slow sort, and the batches in which pairs are shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import drawn_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ssl_backbones.data import Images, Request, UnreadableImageError
from ssl_backbones.mining import PairedBatches, mine, mine_class, neighbours
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView


def slow(features: Tensor) -> list[list[int]]:
    """Partners by sorting, one image after the other."""
    unit = torch.nn.functional.normalize(features, dim=1)
    found = []
    for row in range(len(features)):
        others = [i for i in range(len(features)) if i != row] or [row]
        ranked = sorted(others, key=lambda i: (-float(unit[row] @ unit[i]), i))
        last, middle = len(ranked) - 1, len(ranked) // 2
        found.append([ranked[min(max(place, 0), last)] for place in (0, 1, middle - 1, middle)])
    return found


def corners(count: int, seed: int) -> Tensor:
    """Features of +-1 at sixteen places: their cosines are exact in single precision, and many are equal."""
    return torch.randint(0, 2, (count, 16), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 999), st.sampled_from([1, 7, 64, 4096]))
def test_the_pairs_are_those_of_a_sort(count: int, seed: int, entries: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ENTRIES", entries)
        features = corners(count, seed)
        assert mine_class(features).tolist() == slow(features)
        assert mine_class(3 * features.half()).tolist() == slow(features)


@settings(max_examples=30, deadline=None)
@given(st.integers(12, 60), st.integers(0, 999), st.sampled_from([16, 100, 4096]))
def test_the_nearest_two_are_exact_even_where_the_middle_is_sampled(count: int, seed: int, entries: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ENTRIES", entries)
        features = corners(count, seed)
        found = mine_class(features, exact_up_to=8, sample=8, seed=seed)
    assert found[:, :2].tolist() == [pairs[:2] for pairs in slow(features)]
    assert not (found == torch.arange(count)[:, None]).any()
    assert len(found[:, 2:].unique()) <= 8


def test_a_sampled_middle_errs_as_much_as_it_says() -> None:
    features = torch.randn(2000, 24, generator=torch.Generator().manual_seed(0))
    mined = mine(features, torch.full((2000,), 5), exact_up_to=100, sample=256)
    unit = torch.nn.functional.normalize(features, dim=1)
    place = (unit @ unit.T).fill_diagonal_(-math.inf).argsort(dim=1, descending=True).argsort(dim=1)
    share = place.gather(1, mined.rows[:, 2:]) / 1999
    assert mined.sampled == {5: 0.5 / 16}
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share[:, 0].std().item() == pytest.approx(0.5 / 16, rel=0.2)


def test_partners_are_of_the_same_class_whatever_the_order() -> None:
    labels = torch.tensor([3, 0, 3, 0, 0, 3, 3, 0] * 4)
    features = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    mined = mine(features, labels)
    assert (labels[mined.rows] == labels[:, None]).all()
    members = (labels == 3).nonzero()[:, 0]
    assert torch.equal(mined.rows[members], members[mine_class(features[members])])
    assert (mined.tiny, mined.sampled) == ((), {})


def test_small_classes_share_images_and_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    labels = torch.repeat_interleave(torch.arange(8), torch.arange(8))
    mined = mine(corners(28, 3), labels)
    assert mined.tiny == (1, 2, 3, 4, 5, 6)
    assert "6 of 7 classes have fewer than 7 images" in caplog.text
    assert mined.rows[0].tolist() == [0] * 4  # alone: itself
    assert mined.rows[1:3].tolist() == [[2] * 4, [1] * 4]
    for row in range(3, 10):  # classes of 3 and 4: the middle is the top
        assert mined.rows[row, :2].tolist() == mined.rows[row, 2:].tolist()
    assert all(len(set(row)) == 4 for row in mined.rows[21:].tolist())


def test_what_cannot_be_mined_is_refused_in_words() -> None:
    features = torch.ones(5, 3)
    features[2, 1] = math.nan
    with pytest.raises(ValueError, match="1 of 5 features are infinite or NaN"):
        mine_class(features)
    with pytest.raises(ValueError, match="sample must be at least 7 images to have a middle, not 2"):
        mine_class(torch.ones(5, 3), sample=2)


class EightImages(Images):
    """Eight images, two of which cannot be read."""

    keys = tuple("abcdefgh")
    labels = np.arange(8) % 2
    classes = ("x", "y")
    fingerprint = "eight"

    def __init__(self, unreadable: tuple[int, ...] = ()) -> None:
        self.unreadable = unreadable

    def __getitem__(self, index: int) -> Image.Image:
        if index in self.unreadable:
            raise UnreadableImageError(f"{self.keys[index]} is torn")
        return drawn_image(index, 30, 24)


PARTNERS = np.array([[(row + step) % 8 for step in (1, 2, 3, 4)] for row in range(8)])


def batches(unreadable: tuple[int, ...] = (), partners: np.ndarray = PARTNERS) -> PairedBatches:
    transform = MultiView((*MOCO_V2_VIEWS, *[MOCO_V2_VIEWS[1]] * partners.shape[1]), 16)
    return PairedBatches(EightImages(unreadable), transform, 3, partners, np.arange(8))


def test_each_view_is_of_its_image_and_drawn_for_itself() -> None:
    request = Request(2, np.array([6, 1]))
    views, numbers = batches()[request].content
    assert numbers.tolist() == [[6, 7, 0, 1, 2], [1, 2, 3, 4, 5]]
    transform = batches().transform
    drawn = transform.draw(3, 2, request.indices)
    for view, column in enumerate([0, 0, 1, 2, 3, 4]):
        shown = [drawn_image(int(number), 30, 24) for number in numbers[:, column]]
        assert torch.equal(views[view][0], transform.on_host(shown, drawn)[view])
    same = batches(partners=np.tile(np.arange(8)[:, None], (1, 4)))[request].content[0]
    assert len({view[0].numpy().tobytes() for view in same}) == 6  # six views of one image, no two alike


def test_without_partners_the_views_are_those_of_any_other_method() -> None:
    request = Request(1, np.array([4, 0, 3]))
    dataset = batches(partners=np.empty((8, 0), np.int64))
    views, numbers = dataset.on_device(dataset[request].content)
    transform = MultiView(MOCO_V2_VIEWS, 16)
    shown = [drawn_image(number, 30, 24) for number in (4, 0, 3)]
    usual = transform.on_device(transform.on_host(shown, transform.draw(3, 1, request.indices)))
    for mine_, theirs in zip(views, usual, strict=True):
        assert torch.equal(mine_, theirs)
    assert numbers.tolist() == [[4], [0], [3]]


def test_a_torn_partner_is_replaced_by_the_image_and_a_torn_image_with_its_partners() -> None:
    batch = batches(unreadable=(2,))[Request(0, np.array([0, 2]))]
    assert set(batch.unreadable) == {"c"}
    _, numbers = batch.content
    assert numbers[0].tolist() == [0, 1, 0, 3, 4]
    first = int(numbers[1, 0])
    assert first != 2
    assert numbers[1].tolist() == [first, *(first if row == 2 else int(row) for row in PARTNERS[first])]
