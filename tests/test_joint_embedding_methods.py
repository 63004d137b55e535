"""SimCLR, SimSiam, Barlow Twins and VICReg: their papers' heads, their losses, and any number of processes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from small_methods import small_method, views
from test_methods_two_processes import largest_difference, on_a_rank, train
from torch import Tensor, nn
from two_processes import run_two_processes

from ssl_backbones.distributed import gather_with_gradient
from ssl_backbones.losses import barlow_twins, nt_xent, vicreg
from ssl_backbones.methods import (
    AlignedConfig,
    BarlowTwinsConfig,
    BarlowTwinsObjective,
    CosineObjective,
    NTXentObjective,
    SimCLRConfig,
    SimSiamConfig,
    VICRegConfig,
    VICRegObjective,
)
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.batch_norm import CrossReplicaBatchNorm
from ssl_backbones.views import BYOL_VIEWS, MOCO_V2_VIEWS, SIMCLR_VIEWS, VICREG_VIEWS, Policy
from ssl_backbones.weightless import weightless

KINDS: list[type[MethodConfig]] = [SimCLRConfig, SimSiamConfig, BarlowTwinsConfig, VICRegConfig]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def widths(head: nn.Module) -> list[int]:
    """The widths that a head leads through, from its input to its output."""
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


@pytest.mark.parametrize(
    ("config", "projector", "normalised", "learnt"),
    [
        (SimCLRConfig(), [2048, 2048, 128], True, 2048 * (2048 + 2 + 128) + 128),
        (SimSiamConfig(), [2048, 2048, 2048, 2048], True, 3 * 2048 * 2048 + 2 * 2 * 2048),
        (BarlowTwinsConfig(), [2048, 8192, 8192, 8192], False, 8192 * (2048 + 2 * 8192 + 2 * 2)),
        (VICRegConfig(), [2048, 8192, 8192, 8192], False, 8192 * (2048 + 2 * 8192 + 2 * 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_heads_are_the_papers(config: MethodConfig, projector: list[int], normalised: bool, learnt: int) -> None:
    with weightless():
        method = config.build(timm.create_model("resnet50", num_classes=0))
    assert widths(method.projector) == projector
    assert sum(weights.numel() for weights in method.projector.parameters() if weights.requires_grad) == learnt
    layers = [layer for layer in method.projector.modules() if not list(layer.children())]
    assert isinstance(layers[-1], CrossReplicaBatchNorm) == normalised
    hidden = [type(layer).__name__ for layer in layers[: -2 if normalised else -1]]
    assert hidden == ["Linear", "CrossReplicaBatchNorm", "ReLU"] * (len(projector) - 2)


def test_simsiams_last_normalisation_is_without_scale_as_the_authors_have_it() -> None:
    with weightless():
        plain, affine = (
            SimSiamConfig(projector_affine=choice).build(timm.create_model("resnet50", num_classes=0))
            for choice in (False, True)
        )
    assert set(affine.state_dict()) - set(plain.state_dict()) == {"projector.1.weight", "projector.1.bias"}


def test_the_predictor_of_simsiam_is_narrow_in_the_middle() -> None:
    with weightless():
        method = SimSiamConfig().build(timm.create_model("resnet50", num_classes=0))
    assert widths(method.predictor) == [2048, 512, 2048]
    assert isinstance(list(method.predictor.modules())[-1], nn.Linear)


def test_the_views_are_the_papers() -> None:
    assert SimCLRConfig().views == SIMCLR_VIEWS
    assert SimSiamConfig().views == MOCO_V2_VIEWS
    assert BarlowTwinsConfig().views == BYOL_VIEWS
    assert VICRegConfig().views == VICREG_VIEWS
    strong = Policy((0.08, 1.0), interpolation="bicubic", jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5)
    assert (strong, strong) == SIMCLR_VIEWS
    middle = Policy((0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=0.5, solarize_p=0.1)
    assert (middle, middle) == VICREG_VIEWS


class TestLosses:
    """The loss of a method is that of its network's outputs for the views."""

    def test_simclr(self) -> None:
        method = small_method(SimCLRConfig, temperature=0.3).eval()
        first, second = (method.embed(view) for view in views())
        scalars = method(views())
        torch.testing.assert_close(scalars["loss"], nt_xent(first, second, 0.3))
        assert scalars["chance"] == pytest.approx(math.log(15))

    def test_simclr_normalises_both_views_in_one_batch(self) -> None:
        method = small_method(SimCLRConfig)
        seen: list[Tensor] = []
        method.backbone.conv1.register_forward_hook(lambda module, args, output: seen.append(args[0]))
        method(views())
        assert [len(batch) for batch in seen] == [16]

    def test_simsiam(self) -> None:
        """The paper's -cos is at -1 where every prediction hits; the loss is then 0."""
        method = small_method(SimSiamConfig).eval()
        z1, z2 = (method.embed(view) for view in views())
        cosines = [torch.cosine_similarity(method.predictor(one), other).mean() for one, other in ((z1, z2), (z2, z1))]
        torch.testing.assert_close(method(views())["loss"], 1 - (cosines[0] + cosines[1]) / 2)
        method.predictor = nn.Identity()
        same = views()[0]
        assert method([same, same])["loss"].item() == pytest.approx(0, abs=1e-6)

    def test_simsiam_stops_the_gradient_of_what_is_predicted(self) -> None:
        """It is that of the paper's loss, to its scale; where nothing is stopped, it is another."""
        method = small_method(SimSiamConfig).double().eval()
        batch = views(dtype=torch.float64)
        weight = method.projector[0].layers[0].weight
        (gradient,) = torch.autograd.grad(method(batch)["loss"], weight)
        for stop, same in ((Tensor.detach, True), (Tensor.clone, False)):
            z1, z2 = (method.embed(view) for view in batch)
            pairs = ((method.predictor(z1), stop(z2)), (method.predictor(z2), stop(z1)))
            paper = sum(-torch.cosine_similarity(p, z).mean() / 2 for p, z in pairs)
            assert isinstance(paper, Tensor)
            assert torch.allclose(torch.autograd.grad(paper, weight)[0], gradient) == same

    def test_barlow_twins(self) -> None:
        method = small_method(BarlowTwinsConfig, off_diagonal=0.02).eval()
        first, second = (method.embed(view) for view in views())
        torch.testing.assert_close(method(views())["loss"], barlow_twins(first, second, 0.02))

    def test_vicreg(self) -> None:
        method = small_method(VICRegConfig, invariance=3.0, variance=4.0, covariance=5.0).eval()
        first, second = (method.embed(view) for view in views())
        torch.testing.assert_close(method(views())["loss"], vicreg(first, second, 3.0, 4.0, 5.0))


@every_kind
def test_statistics_may_stay_each_processs_own(kind: type[MethodConfig]) -> None:
    synchronised = [isinstance(m, CrossReplicaBatchNorm) for m in small_method(kind, sync_bn=True).modules()]
    alone = [isinstance(m, CrossReplicaBatchNorm) for m in small_method(kind, sync_bn=False).modules()]
    assert any(synchronised)
    assert not any(alone)


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        (SimCLRConfig, {"temperature": 0.0}),
        (SimSiamConfig, {"predictor_dim": 0}),
        (BarlowTwinsConfig, {"off_diagonal": -1.0}),
        (VICRegConfig, {"covariance": 0.0}),
        *((kind, {"num_layers": 0}) for kind in KINDS),
        (NTXentObjective, {"temperature": -0.1}),
        (CosineObjective, {"predictor_dim": 0}),
        (BarlowTwinsObjective, {"off_diagonal": 0.0}),
        (VICRegObjective, {"invariance": 0.0}),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_by_name(kind: Any, choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(choices))} must be positive"):
        kind(**choices)


ACROSS: list[tuple[type[MethodConfig], dict[str, Any]]] = [
    (SimCLRConfig, {}),
    (AlignedConfig, {"objective": NTXentObjective(0.3, "everything"), "coupled_head": False}),
    (AlignedConfig, {"objective": CosineObjective(8)}),
    (AlignedConfig, {"objective": BarlowTwinsObjective()}),
    (AlignedConfig, {"objective": VICRegObjective()}),
]
"""Beside every method as it is, in test_faults_shapes.py."""


def test_no_method_cares_how_the_batch_is_shared(ranks: list[Any]) -> None:
    """Three steps of two processes, and of one with both parts: losses, weights and statistics, in double precision."""
    for (kind, choices), first, second in zip(ACROSS, *(trained for trained, _ in ranks), strict=True):
        losses, alone = train(kind, choices, parts=1, rank=0)
        assert first[0] == pytest.approx(losses, rel=1e-10), (kind, choices)
        assert largest_difference(first[1], second[1]) == 0, (kind, choices)
        assert largest_difference(first[1], alone.state_dict()) < 1e-10, (kind, choices)


def both(rank: int, cases: list[tuple[type[MethodConfig], dict[str, Any]]]) -> list[Any]:
    """The results of training and of a gather on a rank; two processes take long to begin."""
    return [on_a_rank(rank, cases), gathered(rank)]


@pytest.fixture(scope="module")
def ranks() -> list[Any]:
    """The results of either of two processes."""
    return run_two_processes(both, ACROSS)


def gathered(rank: int) -> list[Tensor]:
    """A gather of two processes, and the gradient of a loss that differs between them."""
    mine = (torch.arange(6.0, dtype=torch.float64).view(3, 2) + 10 * rank).requires_grad_()
    everyone = gather_with_gradient(mine)
    weights = torch.arange(12.0, dtype=torch.float64).view(6, 2) ** (rank + 1)
    (everyone * weights).sum().backward()
    assert mine.grad is not None
    return [everyone.detach(), mine.grad]


def test_a_gather_reaches_back_to_every_process(ranks: list[Any]) -> None:
    own = torch.arange(6.0, dtype=torch.float64).view(3, 2)
    weights = torch.arange(12.0, dtype=torch.float64).view(6, 2)
    for rank, (_, (everyone, gradient)) in enumerate(ranks):
        assert torch.equal(everyone, torch.cat([own, own + 10]))
        assert torch.equal(gradient, (weights + weights**2)[3 * rank : 3 * rank + 3])


def test_alone_a_gather_is_nothing() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert gather_with_gradient(rows) is rows
