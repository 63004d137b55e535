"""The switches of LEWEL's ablations, in every method with alignment maps."""

from __future__ import annotations

import pytest
import torch
from small_methods import small_method, views

from ssl_backbones.methods import AlignedConfig, LewelBConfig, LewelMConfig, MethodConfig, RoBConfig

WITH_MAPS = [LewelBConfig, LewelMConfig, AlignedConfig, RoBConfig]
aligned = pytest.mark.parametrize("kind", WITH_MAPS, ids=lambda kind: kind.__name__)


@aligned
class TestLewelSwitches:
    @pytest.mark.parametrize(
        "choices",
        [
            {"coupled_head": False},
            {"semantic_head": "shared"},
            {"alignment": "random"},
            {"alignment": "uniform"},
            {"groups": 1},
            {"groups": 16},
            {"map_l2_norm": False},
            {"map_scale": 0.2},
            {"num_layers": 1},
            {"num_layers": 3},
            {"aligned_dim": 24},
            {"aligned_weight": 0.0},
            {"aligned_weight": 1.0},
            {"symmetric": True},
            {"key_bn": "ema", "target_bn": "plain"},
            {"gather_aligned_keys": False},
        ],
        ids=str,
    )
    def test_every_ablation_trains(self, kind: type[MethodConfig], choices: dict[str, object]) -> None:
        method = small_method(kind, **choices)
        loss = method(views())["loss"]
        loss.backward()
        method.on_step_end(0.0)
        assert torch.isfinite(loss)
        assert method.backbone.conv1.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize("alignment", ["predicted", "random", "uniform"])
    @pytest.mark.parametrize("coupled_head", [True, False])
    def test_all_that_is_trained_gets_a_gradient(
        self, kind: type[MethodConfig], alignment: str, coupled_head: bool
    ) -> None:
        """Or several processes would wait for one another's in vain."""
        method = small_method(kind, alignment=alignment, coupled_head=coupled_head)
        method(views())["loss"].backward()
        trained = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
        assert not [name for name, weight in trained.items() if weight.grad is None]

    def test_uniform_maps_are_the_mean(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind, alignment="uniform")
        maps = method.alignment_maps(views()[0])
        torch.testing.assert_close(maps, torch.full_like(maps, 1 / maps[0, 0].numel()))

    def test_maps_sum_to_one(self, kind: type[MethodConfig]) -> None:
        maps = small_method(kind).alignment_maps(views()[0])
        assert maps.shape == (8, 16, 4, 4)
        torch.testing.assert_close(maps.sum((2, 3)), torch.ones(8, 16))

    def test_the_weight_mixes_the_losses(self, kind: type[MethodConfig]) -> None:
        scalars = small_method(kind, aligned_weight=0.3)(views())
        expected = 0.7 * scalars["global_loss"] + 0.3 * scalars["aligned_loss"]
        torch.testing.assert_close(scalars["loss"].detach(), expected)

    @pytest.mark.parametrize(
        ("choices", "words"),
        [
            ({"groups": 3}, "groups=3 must divide projection_dim=16; these do: 1, 2, 4, 8, 16"),
            ({"groups": 64, "projection_dim": 192, "aligned_dim": 64}, None),
            ({"groups": 6, "projection_dim": 24}, "groups=6 must divide the backbone's width=64; .*: 1, 2, 4, 8$"),
            ({"aligned_weight": 1.5}, "aligned_weight"),
            ({"map_scale": 0.0}, "map_scale"),
            ({"map_scale": float("inf")}, "map_scale must be positive and finite"),
            ({"alignment": "guessed"}, "alignment must be one of predicted, random, uniform"),
            ({"semantic_head": "none"}, "semantic_head must be one of separate, shared"),
            ({"semantic_head": "shared", "aligned_dim": 8}, "aligned_dim=8 must equal projection_dim=16"),
            ({"hidden_dim": 0}, "hidden_dim"),
        ],
        ids=str,
    )
    def test_a_wrong_choice_is_refused_in_words(
        self, kind: type[MethodConfig], choices: dict[str, object], words: str | None
    ) -> None:
        if words is None:
            small_method(kind, **choices)
            return
        with pytest.raises(ValueError, match=words):
            small_method(kind, **choices)
