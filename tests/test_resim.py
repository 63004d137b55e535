"""ReSim: slow literal versions of its pooling, its windows and its loss, and regions that are where they should be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import batch_of, small_method
from test_joint_embedding_methods import widths
from test_rivals import normal
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from ssl_backbones.losses import all_windows, parts, region_info_nce, region_means
from ssl_backbones.losses.regions import seen_in_the_other, sliding_windows, weights_of
from ssl_backbones.methods import ReSimConfig
from ssl_backbones.methods.resim import COARSE, COMPARED, FINE
from ssl_backbones.views import Geometry, Located
from ssl_backbones.weightless import weightless

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


def literal_weights(start: float, end: float, count: int) -> list[float]:
    """Integrals of tent functions, exact by trapezes between their corners, brought to a sum of 1."""
    corners = sorted({start, end, *(i / 2 for i in range(2 * count + 1) if start < i / 2 < end)})
    found = []
    for place in range(count):
        tent = [max(0.0, 1 - abs(at - place - 0.5)) for at in corners]
        steps = zip(corners, corners[1:], tent, tent[1:], strict=False)
        found.append(sum((b - a) * (high + low) / 2 for a, b, low, high in steps))
    return [one / sum(found) for one in found]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.floats(0, 0.9), st.floats(0.05, 1))
def test_weights_are_integrals_over_the_span(count: int, start: float, length: float) -> None:
    first, last = count * start, count * min(1.0, start + length)
    found = weights_of(torch.tensor([first, last], dtype=torch.float64), count)
    assert found.tolist() == pytest.approx(literal_weights(first, last, count), rel=1e-9, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), seeds)
def test_a_region_s_mean_is_weighted_both_ways(high: int, wide: int, seed: int) -> None:
    maps = normal(seed, 2, 3, high, wide)
    spans = torch.rand(2, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 2
    spans[..., 2:] += spans[..., :2] + 0.05
    spans.clamp_(max=1)
    found = region_means(maps, spans)
    for image in range(2):
        for region in range(2):
            x0, y0, x1, y1 = spans[image, region].tolist()
            across, down = literal_weights(x0 * wide, x1 * wide, wide), literal_weights(y0 * high, y1 * high, high)
            mean = sum(
                down[row] * across[column] * maps[image, :, row, column]
                for row in range(high)
                for column in range(wide)
            )
            torch.testing.assert_close(found[image, region], mean, rtol=1e-9, atol=1e-12)


def test_the_paper_s_windows() -> None:
    """Regions of 48 px every 32, and of 32 px every 24, of a view of 224 px; negatives are 12 x 12 and 26 x 26 of an
    image."""
    coarse, fine = sliding_windows(*COARSE, 14, 14) * 224, sliding_windows(*FINE, 28, 28) * 224
    assert (len(coarse), len(fine)) == (36, 64)
    torch.testing.assert_close(coarse[:2], torch.tensor([[0.0, 0, 48, 48], [32, 0, 80, 48]]))
    torch.testing.assert_close(coarse[-1], torch.tensor([160.0, 160, 208, 208]))
    torch.testing.assert_close(fine[-1], torch.tensor([168.0, 168, 200, 200]))
    assert [len(all_windows(torch.randn(2, 4, side, side), COMPARED)) for side in (14, 28)] == [2 * 144, 2 * 676]
    maps = normal(0, 2, 4, 5, 6)
    pooled = avg_pool2d(maps, 3, 1)
    torch.testing.assert_close(all_windows(maps, 3)[5], normalize(pooled[0, :, 1, 1], dim=0))


@settings(max_examples=40, deadline=None)
@given(seeds, st.booleans(), st.booleans())
def test_windows_are_looked_up_in_the_image(seed: int, mirrored: bool, mirrored_too: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randint(1, 60, (2, 1, 4), generator=generator)
    boxes[..., 2:] += 40
    windows = sliding_windows(2, 1, 5, 6)
    found, whole = seen_in_the_other(windows.double(), boxes, torch.tensor([[mirrored], [mirrored_too]]))
    for number, window in enumerate(windows.tolist()):
        ends = []
        for at, side, flips in ((0, 2, (mirrored, mirrored_too)), (1, 3, (False, False))):
            both = []
            for share in (window[at], window[at + 2]):
                share = 1 - share if flips[0] else share
                in_image = float(boxes[0, 0, at]) + share * float(boxes[0, 0, side])
                share = (in_image - float(boxes[1, 0, at])) / float(boxes[1, 0, side])
                both.append(1 - share if flips[1] else share)
            ends.append(sorted(both))
        expected = [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]
        assert found[0, number].tolist() == pytest.approx(expected, abs=1e-6)
        if min(abs(one) for end in expected for one in (end, end - 1)) > 1e-3:
            assert bool(whole[0, number]) == (min(expected) >= 0 and max(expected) <= 1)


def ramp(box: list[int], flip: bool, side: int) -> Tensor:
    """A view's map (2, side, side) that tells where in the image each position lies."""
    share = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    x = box[0] + box[2] * (1 - share if flip else share)
    y = box[1] + box[3] * share
    return torch.stack([x.expand(side, side), y[:, None].expand(side, side)])


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_both_views_of_a_region_show_the_same_place(flips: tuple[bool, bool]) -> None:
    """For maps that hold their places in the image, the regions of two views agree, inside of the outer cells."""
    boxes = [[10, 20, 80, 60], [0, 6, 120, 90]]
    first, second = (ramp(box, flip, 14)[None] for box, flip in zip(boxes, flips, strict=True))
    windows = sliding_windows(3, 2, 14, 14).double()
    found, whole = seen_in_the_other(windows, torch.tensor(boxes)[:, None], torch.tensor(flips)[:, None])
    inner = whole[0] & (windows > 0).all(1)
    inner &= ((found[0] > 0.5 / 14) & (found[0] < 1 - 0.5 / 14)).all(1)
    assert inner.sum() >= 16
    both = region_means(first, windows)[0], region_means(second, found)[0]
    torch.testing.assert_close(both[0][inner], both[1][inner], rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, sizes, sizes, st.floats(0.05, 2), seeds)
def test_the_loss_is_the_equation(batch: int, count: int, others: int, dim: int, tau: float, seed: int) -> None:
    queries, keys = normal(seed, batch, count, dim), normal(seed + 1, batch, count, dim)
    negatives = normalize(normal(seed + 2, others, dim), dim=1)
    counted = torch.rand(batch, count, generator=torch.Generator().manual_seed(seed)) < 0.6
    total = 0.0
    for i in range(batch):
        for r in range(count):
            if counted[i, r]:
                positive = math.exp(float(torch.cosine_similarity(queries[i, r], keys[i, r], dim=0)) / tau)
                rest = sum(math.exp(float(normalize(queries[i, r], dim=0) @ one) / tau) for one in negatives)
                total -= math.log(positive / (positive + rest))
    found = region_info_nce(queries, keys, negatives, counted, tau).item()
    assert found == pytest.approx(total, rel=1e-9, abs=1e-12)


def test_parts_of_the_loss_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for at_once in (parts.AT_ONCE, 12):
        monkeypatch.setattr(parts, "AT_ONCE", at_once)
        queries = normal(0, 2, 4, 3).requires_grad_()
        counted = torch.arange(8).view(2, 4) != 3
        loss = region_info_nce(queries, normal(1, 2, 4, 3), normalize(normal(2, 4, 3), dim=1), counted, 0.2)
        found.append((loss.detach(), torch.autograd.grad(loss, queries)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def place_in(method: Any, boxes: list[list[int]], count: int = 2) -> Located:
    """Views of some images, all with these two boxes."""
    views = batch_of(method, count).views
    flips, sizes = torch.zeros(count, 2, dtype=torch.bool), torch.full((count, 2), 100)
    return Located(views, Geometry(torch.tensor(boxes).expand(count, 2, 4), flips, sizes))


def test_views_without_a_common_part_score_whole_views_alone() -> None:
    method = small_method(ReSimConfig)
    apart = method(place_in(method, [[0, 0, 40, 40], [50, 50, 40, 40]]))
    assert apart["loss"].item() == pytest.approx(apart["whole_loss"].item())
    apart["loss"].backward()
    assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)
    together = method(place_in(method, [[0, 0, 40, 40], [0, 0, 40, 40]]))
    assert together["fine_loss"] > 0
    assert together["coarse_loss"] > 0


def test_fine_negatives_are_those_of_a_group_and_coarse_ones_of_all() -> None:
    """Windows of maps that are all different: how many negatives there are shows in the chance level."""
    chances = [
        small_method(ReSimConfig, key_bn="ema", bn_splits=splits)(batch_of(small_method(ReSimConfig)))["chance"]
        for splits in (1, 4)
    ]
    of_fine, of_coarse = 14 * 14, 6 * 6  # windows of 3 of 16 x 16 and of 8 x 8 positions
    for chance, groups in zip(chances, (1, 4), strict=True):
        expected = math.log(1 + 16) + math.log(1 + of_fine * 8 / groups) + math.log(1 + of_coarse * 8)
        assert chance == pytest.approx(expected)


def test_the_heads_and_the_pyramid_are_the_paper_s() -> None:
    with weightless():
        method = ReSimConfig(key_bn="ema").build(timm.create_model("resnet50", num_classes=0))
        _, fine, coarse = method.encode(method, torch.empty(1, 3, 224, 224))  # type: ignore[attr-defined]
    assert widths(method.head) == [2048, 2048, 128]  # type: ignore[arg-type]
    assert [layer.in_channels for layer in method.pyramid.lateral] == [512, 1024, 2048]  # type: ignore[union-attr]
    assert (fine.shape, coarse.shape) == ((1, 256, 28, 28), (1, 256, 14, 14))


def test_maps_are_pooled_to_the_grid() -> None:
    method = small_method(ReSimConfig, grid=5)
    _, fine, coarse = method.encode(method, batch_of(method).views[0])
    assert (fine.shape[2:], coarse.shape[2:]) == ((10, 10), (5, 5))


def test_views_too_small_for_a_window_are_refused_in_words() -> None:
    method = small_method(ReSimConfig)
    with pytest.raises(
        ValueError, match=r"a feature map of 3 x 3 positions holds no window of 3 and one more position: .* \(--size"
    ):
        method(batch_of(method, size=6))


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"grid": -1}, "grid is -1, but must be at least 0"),
        ({"map_dim": 0}, "map_dim must be positive"),
        ({"key_bn": "none"}, "key_bn must be one of"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_method(ReSimConfig, **choices)
