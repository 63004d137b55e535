"""LEWEL's maps with a backward pass written by hand: the same as the operations they are made of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.models import unit_softmax as module
from ssl_backbones.models.unit_softmax import FEW, SHARPEST, UnitSoftmax, unit_softmax


def literal(scores: Tensor, scale: float) -> Tensor:
    """Maps of scores (B, P, c), a position and a map at a time."""
    units = torch.stack([torch.stack([row / max(row.norm(), 1e-12) for row in image]) for image in scores])
    weights = (units / scale).exp()
    return weights / weights.sum(1, keepdim=True)


def scores_of(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def both(scores: Tensor, scale: float, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Maps and the scores' gradient, by hand and as it is written."""
    found = []
    for form in (UnitSoftmax.apply, module.plain):
        leaf = scores.clone().requires_grad_()
        maps = form(leaf, scale)
        maps.backward(scores_of(*maps.shape, seed=seed, dtype=maps.dtype))
        assert leaf.grad is not None
        found.append((maps.detach(), leaf.grad))
    return found


@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 6), st.sampled_from([SHARPEST, 0.3, 1.0, 7.0]))
def test_maps_and_gradients_are_those_of_the_literal_form(batch: int, positions: int, maps: int, scale: float) -> None:
    scores = scores_of(batch, positions, maps, seed=positions)
    fused, plain = both(scores, scale)
    torch.testing.assert_close(fused[0], literal(scores, scale), rtol=0, atol=1e-12)
    for mine, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_few_images_at_a_time_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(5, 20, 6, dtype=torch.float32)
    ((maps, gradient), _) = both(scores, 0.3)
    monkeypatch.setattr(module, "AT_ONCE", 2 * 20 * 6)
    ((again, same), _) = both(scores, 0.3)
    assert torch.equal(again, maps)
    assert torch.equal(same, gradient)


def test_gradients_are_those_of_finite_differences() -> None:
    scores = scores_of(2, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: UnitSoftmax.apply(scores, 0.5), scores)


def test_a_position_without_length_is_no_trouble() -> None:
    scores = scores_of(2, 4, 3)
    scores[0, 0] = 0
    scores[1, 2] *= 1e-13
    for mine, theirs in zip(*both(scores, 1.0), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_the_sharpest_maps_are_finite_in_single_precision() -> None:
    scores = torch.zeros(1, 64, 2)
    scores[:, :, 0] = torch.linspace(-1, 1, 64).sign()
    (maps, gradient), (expected, _) = both(scores, SHARPEST)
    assert maps.isfinite().all()
    assert gradient.isfinite().all()
    torch.testing.assert_close(maps, expected)
    assert unit_softmax(scores, SHARPEST / 100).isfinite().all()


def test_half_precision_gives_single_precision() -> None:
    scores = scores_of(2, 40, 8, dtype=torch.bfloat16)
    (maps, gradient), (expected, theirs) = both(scores, 0.2)
    assert (maps.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(gradient, theirs, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "scale", "by_hand"), [(FEW, 1.0, False), (FEW + 1, 1.0, True), (64, 0.01, False)]
)
def test_the_form_is_chosen_by_what_is_faster_and_safe(positions: int, scale: float, by_hand: bool) -> None:
    maps = unit_softmax(scores_of(1, positions, 2).requires_grad_(), scale)
    assert (type(maps.grad_fn).__name__ == "UnitSoftmaxBackward") == by_hand
    torch.testing.assert_close(maps, normalize(scores_of(1, positions, 2), dim=2).div(scale).softmax(1))


def test_single_precision_is_saved_once() -> None:
    """Beside the scores as they are, a backward pass keeps the maps and a number for each position."""
    kept: list[Tensor] = []
    scores = scores_of(2, 64, 8, dtype=torch.bfloat16).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        maps = unit_softmax(scores, 1.0)
    assert sum(tensor.nbytes for tensor in kept) == scores.nbytes + maps.nbytes + 4 * 2 * 64
