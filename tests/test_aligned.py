"""LEWEL's aligned branch over losses of one's choice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from small_methods import small_method, views
from torch import Tensor, nn

from ssl_backbones import recipes
from ssl_backbones.losses import barlow_twins, cosine_distance, nt_xent, vicreg
from ssl_backbones.methods import (
    Aligned,
    AlignedConfig,
    BarlowTwinsObjective,
    CosineObjective,
    NTXentObjective,
    Objective,
    VICRegObjective,
)
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.recipe import Recipe

OBJECTIVES: list[Objective] = [
    NTXentObjective(0.5),
    NTXentObjective(0.5, "other_images_same_map"),
    NTXentObjective(0.5, "everything"),
    CosineObjective(8),
    BarlowTwinsObjective(0.02),
    VICRegObjective(3.0, 4.0, 5.0),
]
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=str)


def made(objective: Objective, **choices: object) -> Aligned:
    method = small_method(AlignedConfig, objective=objective, **choices)
    assert isinstance(method, Aligned)
    return method


@every_objective
class TestEveryObjective:
    def test_trains_all_there_is(self, objective: Objective) -> None:
        method = made(objective)
        method(views())["loss"].backward()
        assert [name for name, weight in method.named_parameters() if weight.grad is None] == []
        assert method.backbone.conv1.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_the_share_mixes_the_losses(self, objective: Objective, share: float) -> None:
        scalars = made(objective, aligned_weight=share)(views())
        expected = (1 - share) * scalars["global_loss"] + share * scalars["aligned_loss"]
        torch.testing.assert_close(scalars["loss"].detach(), expected)
        assert scalars["global_loss"] != scalars["aligned_loss"]

    def test_maps_are_alike_for_every_loss(self, objective: Objective) -> None:
        maps = made(objective).alignment_maps(views()[0])
        assert maps.shape == (8, 16, 4, 4)
        torch.testing.assert_close(maps.sum((2, 3)), torch.ones(8, 16))
        torch.testing.assert_close(maps, made(CosineObjective(8)).alignment_maps(views()[0]))

    def test_the_aligned_loss_moves_the_head_that_predicts_the_maps(self, objective: Objective) -> None:
        method = made(objective, aligned_weight=1.0)
        method(views())["loss"].backward()
        assert method.head.projector.layers[0].weight.grad.abs().sum() > 0

    def test_is_a_plain_value_and_back(self, objective: Objective) -> None:
        named = recipes.get("resnet8_aligned.imagenette96_100ep_simclr")
        recipe = dataclasses.replace(named, method=AlignedConfig(objective=objective, groups=8))
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe

    def test_the_losses_are_the_chosen_one(self, objective: Objective) -> None:
        """The loss of the global embeddings, and of the aligned ones where each image has one."""
        method = made(objective, groups=16, aligned_dim=24).eval()
        first, second = (method.embed(view) for view in views())
        scalars = method(views())
        q, q_s = method.predictor, method.aligned_predictor
        expected = literal(objective, first.projection, second.projection, q)
        torch.testing.assert_close(scalars["global_loss"], expected.detach())
        expected = literal(objective, first.aligned[:, 0], second.aligned[:, 0], q_s)
        torch.testing.assert_close(scalars["aligned_loss"], expected.detach())


def literal(objective: Objective, a: Tensor, b: Tensor, q: nn.Module) -> Tensor:
    """The loss that an objective of this module stands for, of embeddings (B, D)."""
    losses: dict[type[Objective], Callable[[], Tensor]] = {
        NTXentObjective: lambda: nt_xent(a, b, 0.5),
        CosineObjective: lambda: (cosine_distance(q(a), b) + cosine_distance(q(b), a)) / 4,
        BarlowTwinsObjective: lambda: barlow_twins(a, b, 0.02),
        VICRegObjective: lambda: vicreg(a, b, 3.0, 4.0, 5.0),
    }
    return losses[type(objective)]()


def test_each_map_meets_the_same_map() -> None:
    """The aligned loss sees which map is which: where one view's maps change places, it is another."""
    for objective in (NTXentObjective(0.5), CosineObjective(8), VICRegObjective()):
        first, second = torch.randn(2, 4, 3, 16, generator=torch.Generator().manual_seed(0))
        predictor = objective.predictor(16)
        loss = objective.loss(first, second, predictor)
        assert objective.loss(first, second.roll(1, dims=1), predictor) != loss
        together = objective.loss(first.roll(1, dims=1), second.roll(1, dims=1), predictor)
        torch.testing.assert_close(together, loss)


def test_only_a_loss_that_predicts_has_predictors() -> None:
    for objective in OBJECTIVES:
        method = made(objective, aligned_dim=24)
        predictors = (method.predictor, method.aligned_predictor)
        if isinstance(objective, CosineObjective):
            assert [predictor.layers[-1].out_features for predictor in predictors] == [16, 24]
        else:
            assert all(isinstance(predictor, nn.Identity) for predictor in predictors)


def test_the_objective_is_altered_from_the_command_line() -> None:
    words = ["resnet8_aligned.imagenette96_100ep_simclr", "--method.objective.temperature", "0.4"]
    recipe = read_recipe(words, "pretrain", "")
    assert isinstance(recipe.method, AlignedConfig)
    assert recipe.method.objective == NTXentObjective(0.4)
    words = ["resnet8_aligned.imagenette96_100ep_simsiam", "--method.objective.predictor_dim", "9"]
    other = read_recipe(words, "pretrain", "")
    assert isinstance(other.method, AlignedConfig)
    assert other.method.objective == CosineObjective(9)


def test_an_unknown_set_of_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^aligned_negatives must be one of other_images_all_maps, .* not 'nobody'$"):
        NTXentObjective(aligned_negatives="nobody")  # type: ignore[arg-type]
