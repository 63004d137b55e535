"""Deep InfoMax against slow literal versions: who is told from whom, and who descends what."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import batch_of, small_config, small_method
from torch import Tensor
from torch.nn.functional import softplus

from ssl_backbones import create_model
from ssl_backbones.losses import discriminator_loss, generator_loss
from ssl_backbones.methods import DeepInfoMax, DeepInfoMaxConfig, deep_infomax
from ssl_backbones.models import discriminators
from ssl_backbones.models.discriminators import LocalDiscriminator, prior_discriminator


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_the_losses_are_the_equations(true: int, false: int, seed: int) -> None:
    t, f = 3 * normal(seed, true), 3 * normal(seed + 1, false)
    literal = -sum(math.log(sigmoid(x)) for x in t.tolist()) / true
    literal -= sum(math.log(1 - sigmoid(x)) for x in f.tolist()) / false
    assert discriminator_loss(t, f).item() == pytest.approx(literal, rel=1e-9)
    fooled = -sum(math.log(sigmoid(x)) for x in f.tolist()) / false
    assert generator_loss(f).item() == pytest.approx(fooled, rel=1e-9)


def test_certain_answers_score_finitely() -> None:
    """Logs of sigmoids would be -inf."""
    huge = torch.tensor([1e4, -1e4])
    assert torch.isfinite(discriminator_loss(huge, huge))
    assert discriminator_loss(huge, huge).item() == pytest.approx(1e4)


def test_the_discriminators_are_as_large_as_those_of_the_baseline() -> None:
    assert sum(weights.numel() for weights in LocalDiscriminator(16, 64, 256).parameters()) == 86_785
    shapes = [tuple(weights.shape) for weights in prior_discriminator(64).parameters() if weights.ndim == 2]
    assert shapes == [(512, 64), (128, 512), (1, 128)]


def test_the_local_discriminator_sees_the_map_with_the_vector_joined_on() -> None:
    torch.manual_seed(0)
    discriminator = LocalDiscriminator(3, 5, 8).double()
    maps, features = normal(0, 4, 3, 6, 6), normal(1, 4, 5)
    own, other = discriminator(maps, features)
    for logits, met in ((own, features), (other, features[[1, 2, 3, 0]])):
        everywhere = met[:, :, None, None].expand(4, 5, 6, 6)
        literal = discriminator.rest(discriminator.first(torch.cat([maps, everywhere], dim=1)))
        torch.testing.assert_close(logits, literal)


@pytest.mark.parametrize("prior", ["adversarial", "cooperative"])
def test_the_loss_is_the_equation(prior: str) -> None:
    method = small_method(DeepInfoMaxConfig, prior=prior, local_weight=0.7, prior_weight=0.2).double().eval()
    images = batch_of(method, count=4, dtype=torch.float64)
    torch.manual_seed(1)
    scalars = method(images)
    features = method.backbone(images)
    stem = method.backbone.act1(method.backbone.bn1(method.backbone.conv1(images)))
    own, other = method.local_discriminator(stem, features)
    local = sum(-math.log(sigmoid(x)) for x in own.flatten().tolist()) / own.numel()
    local += sum(-math.log(1 - sigmoid(x)) for x in other.flatten().tolist()) / other.numel()
    torch.manual_seed(1)
    noise = torch.rand_like(features)
    told = (features / 2).tanh() if prior == "adversarial" else features
    real, false = (method.prior_discriminator(rows).flatten().tolist() for rows in (noise, told))
    spread = -sum(math.log(sigmoid(x)) for x in real) / 4 - sum(math.log(1 - sigmoid(x)) for x in false) / 4
    if prior == "adversarial":
        spread -= sum(math.log(sigmoid(x)) for x in false) / 4
    assert scalars["local_loss"].item() == pytest.approx(local, rel=1e-9)
    assert scalars["prior_loss"].item() == pytest.approx(spread, rel=1e-9)
    assert scalars["loss"].item() == pytest.approx(0.7 * local + 0.2 * spread, rel=1e-9)


@pytest.mark.parametrize(("prior", "sign"), [("adversarial", 1), ("cooperative", -1)])
def test_a_step_of_the_encoder_makes_embeddings_pass_for_noise_or_the_reverse(prior: str, sign: int) -> None:
    """The discriminator is held still: what the embeddings themselves descend moves its verdict on them."""
    method = small_method(DeepInfoMaxConfig, prior=prior).double()
    embeddings = normal(0, 64, 64).abs().requires_grad_()
    torch.manual_seed(0)
    method.prior_loss(embeddings).backward()

    def verdict(rows: Tensor) -> float:
        rows = (rows / 2).tanh() if prior == "adversarial" else rows
        return method.prior_discriminator(rows).sigmoid().mean().item()

    assert embeddings.grad is not None
    moved = verdict(embeddings.detach() - embeddings.grad) - verdict(embeddings.detach())
    assert sign * moved > 0


def test_the_discriminator_descends_its_own_loss_alone() -> None:
    """The encoder's gradient passes through the discriminator and leaves nothing in it."""
    method = small_method(DeepInfoMaxConfig).double()
    embeddings = normal(0, 16, 64)
    torch.manual_seed(0)
    method.prior_loss(embeddings).backward()
    found = [weights.grad.clone() for weights in method.prior_discriminator.parameters()]
    method.zero_grad()
    torch.manual_seed(0)
    noise = torch.rand_like(embeddings)
    told = method.prior_discriminator(noise), method.prior_discriminator((embeddings / 2).tanh())
    discriminator_loss(*told).backward()
    for gradient, weights in zip(found, method.prior_discriminator.parameters(), strict=True):
        torch.testing.assert_close(gradient, weights.grad)


def test_without_a_prior_the_two_kinds_are_one() -> None:
    gradients = []
    for prior in ("adversarial", "cooperative"):
        method = small_method(DeepInfoMaxConfig, prior=prior, prior_weight=0.0).double()
        method(batch_of(method, dtype=torch.float64))["loss"].backward()
        gradients.append(method.backbone.conv1.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_the_game_spreads_embeddings() -> None:
    """Embeddings that all lie in one corner are driven towards uniform noise by the adversary, and not otherwise."""
    distance = {}
    for prior in ("adversarial", "cooperative"):
        method = small_method(DeepInfoMaxConfig, prior=prior)
        torch.manual_seed(0)
        drawn = torch.nn.Parameter(3 + 0.1 * torch.randn(128, 64))
        players = [{"params": [drawn], "lr": 0.1}, {"params": list(method.prior_discriminator.parameters())}]
        optimizer = torch.optim.Adam(players, lr=0.001)
        for _ in range(60):
            optimizer.zero_grad()
            method.prior_loss(softplus(drawn)).backward()  # positive, as after a ReLU
            optimizer.step()
        rows = softplus(drawn).detach()
        distance[prior] = float(((rows / 2).tanh() if prior == "adversarial" else rows).mean() - 0.5)
    assert abs(distance["adversarial"]) < 0.1 < 2.6 < distance["cooperative"]  # they began at 0.41 and at 2.55


def test_embeddings_after_a_relu_can_be_all_that_the_noise_can() -> None:
    """Noise in a range that they never reach would be told from them for ever."""
    method = small_method(DeepInfoMaxConfig).double()
    shown: list[Tensor] = []
    method.prior_discriminator.register_forward_pre_hook(lambda network, inputs: shown.append(inputs[0].detach()))
    uniform = torch.rand(16, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    method.prior_loss(2 * uniform.atanh())
    _noise, to_discriminator, to_encoder = shown
    torch.testing.assert_close(to_discriminator, uniform)
    torch.testing.assert_close(to_encoder, uniform)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_any_feature_map_can_be_the_local_one(layer: int) -> None:
    method = small_method(DeepInfoMaxConfig, layer=layer)
    assert method.local_discriminator.dims == [(16, 16, 32, 64)[layer], 64]
    assert torch.isfinite(method(batch_of(method))["loss"])


def test_timms_own_networks_have_such_maps_too() -> None:
    method = DeepInfoMax(create_model("resnet18", num_classes=0), DeepInfoMaxConfig(layer=1, hidden_dim=8))
    assert torch.isfinite(method(torch.randn(2, 3, 32, 32))["loss"])


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"layer": 4}, "layer=4 is none of the backbone's 4 feature maps: choose 0 to 3"),
        ({"layer": -1}, "layer=-1"),
        ({"prior": "friendly"}, "prior must be one of adversarial, cooperative, not 'friendly'"),
        ({"prior_weight": -1.0}, "prior_weight must be at least 0"),
        ({"local_weight": 0.0}, "local_weight"),
        ({"hidden_dim": 0}, "hidden_dim"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_config(DeepInfoMaxConfig, **choices).build(create_model("resnet8", num_classes=0))


def test_an_image_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of one image has no other"):
        small_method(DeepInfoMaxConfig)(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("count", [1, 2])
def test_an_image_is_told_from_those_of_the_other_processes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image a process is enough where there are several: together they score as one process would them all."""
    method = small_method(DeepInfoMaxConfig).double().eval()
    images = batch_of(method, count=3 * count, dtype=torch.float64)
    together, everyone = method(images)["local_loss"], method.backbone(images)
    monkeypatch.setattr(deep_infomax, "world_size", lambda: 3)
    monkeypatch.setattr(discriminators, "gather_with_gradient", lambda features: everyone)
    scored = []
    for rank, part in enumerate(images.split(count)):
        monkeypatch.setattr(discriminators, "rank", lambda rank=rank: rank)
        scored.append(method(part)["local_loss"])
    torch.testing.assert_close(torch.stack(scored).mean(), together)
