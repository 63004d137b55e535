"""Views of several sizes in one batch: every engine, exchanged and resident images, and one pass per size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from epochs import epoch_of
from runs import tiny
from small_methods import Drawn
from test_resident import CPU, mixed
from torch import Tensor, nn

from ssl_backbones import create_model
from ssl_backbones.data import Batches, Request
from ssl_backbones.data.exchanged import Exchanged, ExchangedBatches
from ssl_backbones.data.parts import Exchange
from ssl_backbones.data.resident import ResidentImages
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.models.backbone import feature_map, freeze_unused, pooled, pooled_views
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import MOCO_V2_VIEWS, SWAV_VIEWS, Engine, MultiView, Policy

SMALL = replace(MOCO_V2_VIEWS[0], area=(0.05, 0.14), size_share=3 / 7)
POLICIES = (*MOCO_V2_VIEWS, SMALL, SMALL)


@pytest.mark.parametrize(("size", "side"), [(224, 96), (160, 68), (64, 28), (8, 4), (4, 4), (3, 3)])
def test_a_side_is_the_share_of_the_size_in_fours(size: int, side: int) -> None:
    assert SMALL.side(size) == side
    assert MOCO_V2_VIEWS[0].side(size) == size


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_no_view_has_is_refused_in_words(share: float) -> None:
    with pytest.raises(ValueError, match=r"size_share is .*, but it has to be above 0 and at most 1$"):
        Policy(size_share=share)


@pytest.mark.parametrize("engine", ["pillow", "opencv", "device"])
def test_a_small_view_is_what_a_run_of_its_size_would_make(engine: Engine) -> None:
    """And the large ones are as without it."""
    images, rows = [Drawn(6)[index] for index in range(6)], np.arange(6)
    transform = MultiView(POLICIES, 32, engine)
    drawn = transform.draw(3, 1, rows)
    shown = transform.on_device(transform.on_host(images, drawn))
    assert [view.shape[2:] for view in shown] == [(32, 32), (32, 32), (12, 12), (12, 12)]
    for number, (view, policy) in enumerate(zip(shown, POLICIES, strict=True)):
        alone = MultiView((replace(policy, size_share=1.0),), policy.side(32), engine)
        (same,) = alone.on_device(alone.on_host(images, (drawn[number],)))
        torch.testing.assert_close(view, same, rtol=0, atol=0)
    assert not torch.equal(shown[2], shown[3])
    large = replace(transform, policies=POLICIES[:2])
    for view, same in zip(shown, large.on_device(large.on_host(images, large.draw(3, 1, rows))), strict=False):
        torch.testing.assert_close(view, same, rtol=0, atol=0)


def test_views_of_images_in_exchange_have_their_sizes() -> None:
    dataset = ExchangedBatches(Drawn(8), MultiView(POLICIES, 16), seed=0)
    own, others = np.arange(4), np.arange(4, 8)
    request = Request(0, own, Exchange(others, np.array([4, 5, 6, 7, 0, 1, 2, 3])))
    shown = dataset.on_device(dataset[request].content)
    assert isinstance(shown, Exchanged)
    assert [view.shape[2] for view in shown.views] == [16, 16, 8, 8]
    theirs = dataset.on_device(dataset[Request(0, others)].content)
    for view, same in zip(shown.views[1:], theirs[1:], strict=True):
        torch.testing.assert_close(view, same, rtol=0, atol=0)


def test_views_of_resident_images_are_those_of_images_that_are_sent(tmp_path: Path) -> None:
    images = cached(mixed(tmp_path / "photos"), "data", Caching(tmp_path / "cache", unreadable_share=1.0))
    transform = MultiView(POLICIES, 16, engine="device")
    sent, named = (Batches(each, transform, seed=3) for each in (images, ResidentImages(images, CPU)))  # type: ignore[arg-type]
    for (one,), (other,) in zip(*(epoch_of(Loader(batches, 5, 3), 0) for batches in (sent, named)), strict=True):
        for view, same in zip(sent.on_device(one.content), named.on_device(other.content), strict=True):
            torch.testing.assert_close(same, view, rtol=0, atol=0)


class Passes(nn.Module):
    """A backbone that notes what goes through it."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward_features(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return images**2


def test_views_of_one_size_share_a_pass_and_keep_their_order() -> None:
    views = [torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 8, 4, 4, 4)]
    backbone = Passes()
    features = pooled_views(backbone, views)
    assert backbone.seen == [(10, 3, 8, 8), (15, 3, 4, 4)]
    expected = torch.cat([pooled(feature_map(Passes(), view)) for view in views])
    torch.testing.assert_close(features, expected)


def test_a_network_that_makes_no_map_of_the_smallest_view_is_refused_in_words(tmp_path: Path) -> None:
    tall, low = MOCO_V2_VIEWS[0], replace(SMALL, size_share=0.25)
    recipe = tiny(BYOLConfig, tmp_path, tmp_path, {"views": (tall, low)}, model="convnext_atto_byol", size=64)
    assert recipe.smallest_side == 16
    with pytest.raises(
        ValueError, match=r"makes no feature map of images of 16 px \(.*\): give it larger ones with --size$"
    ):
        freeze_unused(create_model("convnext_atto_byol"), recipe.smallest_side)


def test_an_image_is_decoded_as_finely_as_its_most_demanding_view_asks_for() -> None:
    """A small view of a small crop may ask for as much as a large one of a large crop."""
    whole = replace(MOCO_V2_VIEWS[0], area=(1.0, 1.0))
    part = replace(whole, area=(0.0156, 0.0157), ratio=(1.0, 1.0), size_share=1 / 7)
    for policies, divisor in (((whole,), 4), ((whole, replace(part, size_share=1.0)), 1), ((whole, part), 2)):
        reductions = MultiView(policies, 224, "opencv").reductions(0, 0, np.array([4, 5]))
        assert reductions[1](2000, 2000) == divisor


def test_what_decides_how_coarsely_images_are_decoded_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    views = MultiView(SWAV_VIEWS, 160, "opencv")
    literal = [views.reductions(3, 1, np.array([row]))[0](2000, 1500) for row in range(9)]
    drawn: list[int] = []
    draw = MultiView.draw
    monkeypatch.setattr(MultiView, "draw", lambda *asked: drawn.append(1) or draw(*asked))
    reductions = views.reductions(3, 1, np.arange(9))
    assert not drawn  # small images ask for nothing
    assert [reduction(2000, 1500) for reduction in reductions] == literal
    assert len(drawn) == 1
