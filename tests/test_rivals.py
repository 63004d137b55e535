"""SupCon, NNCLR and DenseCL: recorded numbers, slow literal versions of their losses, and their papers' heads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import Drawn, batch_of, converted, small_method
from test_joint_embedding_methods import widths
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.data import ImageSourceError, Request
from ssl_backbones.losses import batch_info_nce, correspondence, dense_info_nce, parts, supcon
from ssl_backbones.methods import (
    DenseCL,
    DenseCLConfig,
    MethodConfig,
    NNCLRConfig,
    SupConConfig,
)
from ssl_backbones.methods.supcon import labels_or_own
from ssl_backbones.models.batch_norm import CrossReplicaBatchNorm
from ssl_backbones.weightless import weightless

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "more_methods.json").read_text(encoding="utf-8")
)["cases"]
sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


def raw(*shape: int, b: float) -> Tensor:
    """The recorded cases' inputs."""
    t = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.0037 * t * t + 0.37 * t + b).view(shape)


def unit(*shape: int, b: float) -> Tensor:
    """The same as unit vectors."""
    rows = raw(*shape, b=b)
    return rows / rows.norm(dim=-1, keepdim=True)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_recorded(gradient: Tensor, recorded: dict[str, Any]) -> None:
    assert gradient.norm().item() == pytest.approx(recorded["norm"], rel=1e-9)
    assert gradient.flatten()[:4].tolist() == pytest.approx(recorded["first"], rel=1e-8, abs=1e-11)


class TestSupCon:
    @pytest.mark.parametrize("case", ["supcon/t01", "supcon/t007"])
    def test_recorded_numbers(self, case: str) -> None:
        given_, recorded = RECORDED[case]["inputs"], RECORDED[case]["outputs"]
        z = unit(given_["B"], given_["views"], given_["D"], b=given_["b"]).requires_grad_()
        tau = given_["temperature"]
        labels = torch.tensor(given_["labels"])
        scaled = supcon(z, labels, tau) * SupConConfig(temperature=tau).factor
        assert scaled.item() == pytest.approx(recorded["loss"], rel=1e-9)
        assert_recorded(torch.autograd.grad(scaled, z)[0], recorded["grad"]["features"])
        plain = SupConConfig(temperature=tau, scale="none").factor * supcon(z, labels, tau)
        assert plain.item() == pytest.approx(recorded["loss_without_ratio_of_temperatures"], rel=1e-9)
        alone = supcon(z, torch.arange(given_["B"]), tau) * tau / 0.07
        assert alone.item() == pytest.approx(recorded["loss_no_labels"], rel=1e-9)
        assert SupConConfig(temperature=tau, scale="tau").factor == tau

    @settings(max_examples=30, deadline=None)
    @given(sizes, st.integers(1, 3), sizes, st.floats(0.05, 2), seeds)
    def test_it_is_the_equation(self, batch: int, views: int, dim: int, temperature: float, seed: int) -> None:
        z = normalize(normal(seed, batch, views, dim), dim=2)
        labels = torch.randint(3, (batch,), generator=torch.Generator().manual_seed(seed))
        rows, of = z.flatten(0, 1), labels.repeat_interleave(views)
        losses = []
        for i in range(len(rows)):
            others = [a for a in range(len(rows)) if a != i]
            total = sum(math.exp(float(rows[i] @ rows[a]) / temperature) for a in others)
            positives = [p for p in others if of[p] == of[i]]
            shares = [math.log(math.exp(float(rows[i] @ rows[p]) / temperature) / total) for p in positives]
            losses.append(-sum(shares) / len(shares) if shares else 0.0)
        found = supcon(z, labels, temperature).item()
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-9, abs=1e-12)
        parts = [
            supcon(z[i : i + 1], labels[i : i + 1], temperature, z, labels, position=i).item() for i in range(batch)
        ]
        assert sum(parts) / batch == pytest.approx(found, rel=1e-9, abs=1e-12)

    def test_an_image_without_a_label_has_its_own_views_alone(self) -> None:
        images = Drawn(6)
        images.labels = np.array([0, -1, 2, -1, 0, 1])
        assert labels_or_own(images).tolist() == [0, 4, 2, 6, 0, 1]
        method = small_method(SupConConfig)
        _, labels = method.dataset(images, 16, 0)[Request(0, np.arange(6))].content
        assert labels.tolist() == [0, 4, 2, 6, 0, 1]

    def test_no_label_at_all_is_refused_in_words(self) -> None:
        method, images = small_method(SupConConfig), Drawn(6)
        images.labels = np.array([0, -1, 2, 7, 0, 1])
        with pytest.raises(ImageSourceError, match=r"that of '3.png' is 7, which is not one of 0 to 2"):
            method.dataset(images, 16, 0)
        images.labels = None  # type: ignore[assignment]
        with pytest.raises(ImageSourceError, match=r"^SupCon needs labels, and these 6 images have none: put each"):
            method.dataset(images, 16, 0)
        images.labels = np.full(6, -1)
        with pytest.raises(
            ImageSourceError, match=r"^SupCon needs a label for every image, and that of '0.png' is miss"
        ):
            method.dataset(images, 16, 0)


class TestNNCLR:
    def test_recorded_numbers(self) -> None:
        given_, recorded = RECORDED["nnclr/t01"]["inputs"], RECORDED["nnclr/t01"]["outputs"]
        size, dim = given_["B"], given_["D"]
        z1, z2 = (unit(size, dim, b=given_[name]) for name in ("b_z1", "b_z2"))
        p1, p2 = (raw(size, dim, b=given_[name]).requires_grad_() for name in ("b_p1", "b_p2"))
        queue = unit(given_["M"], dim, b=given_["b_Q"])
        for axes, name in (("predictions", "loss"), ("both", "loss_both_axes_averaged")):
            method = small_method(NNCLRConfig, queue_size=given_["M"], axes=axes).double()
            method.queue.keys.copy_(queue)
            rows = torch.arange(size)
            nn1, nn2 = method.nearest(z1, rows)[0], method.nearest(z2, rows)[0]
            assert torch.equal(nn1, queue[recorded["nearest_of_view1"]])
            assert torch.equal(nn2, queue[recorded["nearest_of_view2"]])
            loss = (method.loss(nn1, p2) + method.loss(nn2, p1)) / 2
            assert loss.item() == pytest.approx(recorded[name], rel=1e-9)
            if axes == "predictions":
                for prediction, of in ((p1, "p1"), (p2, "p2")):
                    (gradient,) = torch.autograd.grad(loss, prediction, retain_graph=True)
                    assert_recorded(gradient, recorded["grad"][of])

    @settings(max_examples=20, deadline=None)
    @given(sizes, sizes, st.integers(0, 3), st.floats(0.05, 2), seeds)
    def test_the_loss_is_the_equation(self, batch: int, dim: int, first: int, tau: float, seed: int) -> None:
        queries, keys = (
            normalize(normal(seed, batch, dim), dim=1),
            normalize(normal(seed + 1, first + batch, dim), dim=1),
        )
        losses = []
        for i in range(batch):
            similar = [math.exp(float(queries[i] @ key) / tau) for key in keys]
            losses.append(-math.log(similar[first + i] / sum(similar)))
        found = batch_info_nce(queries, keys, tau, first).item()
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-9, abs=1e-12)

    def test_half_precision_does_not_choose_the_neighbours(self) -> None:
        """Embeddings that are alike in three digits: the search is made in single precision."""
        method = small_method(NNCLRConfig, queue_size=512)
        dim = method.queue.keys.shape[1]
        keys = normalize(normal(0, 1, dim) + 0.02 * normal(1, 512, dim), dim=1).float()
        method.queue.keys.copy_(keys)
        z, rows = (normal(0, 1, dim) + 0.02 * normal(2, 32, dim)).float(), torch.arange(32)
        exact = method.nearest(z, rows)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method.nearest(z, rows)[0], exact)
            assert not torch.equal(keys[(normalize(z, dim=1) @ keys.T).argmax(1)], exact)

    def test_the_own_image_is_left_out_where_that_is_asked_for(self) -> None:
        """With a queue that holds the data twice over, the nearest is mostly the image itself."""
        shares = {}
        for exclude_self in (False, True):
            method = small_method(NNCLRConfig, exclude_self=exclude_self)
            dataset = method.dataset(Drawn(8), 16, 0)
            for epoch in range(3):
                scalars = method(dataset.on_device(dataset[Request(epoch, np.arange(8))].content))
                method.on_step_end(0.0)
            shares[exclude_self] = scalars["own_neighbours"].item()
        assert shares[True] == 0
        assert shares[False] > 0

    def test_the_first_view_alone_enters_the_queue_after_the_step(self) -> None:
        method = small_method(NNCLRConfig).eval()
        method.queue.train()
        views, rows = batch_of(method)
        method((views, rows))
        method.on_step_end(0.0)
        torch.testing.assert_close(method.queue.keys[:8], normalize(method.embed(views[0]), dim=1))
        assert method.queue.numbers.tolist() == [*range(8), *[-1] * 8]

    def test_a_queue_longer_than_the_data_is_refused_in_words(self) -> None:
        with pytest.raises(
            ValueError, match=r"at most 4, or keep those out of the loss with the method's exclude_self$"
        ):
            small_method(NNCLRConfig).check_data(12, 8)
        small_method(NNCLRConfig, exclude_self=True).check_data(12, 8)


class Given(nn.Module):
    """A backbone whose feature maps are the images."""

    num_features = 8

    def forward_features(self, images: Tensor) -> Tensor:
        return images


class TestDenseCL:
    def test_recorded_numbers(self) -> None:
        given_, recorded = RECORDED["densecl/3x3"]["inputs"], RECORDED["densecl/3x3"]["outputs"]
        config = DenseCLConfig(
            hidden_dim=given_["hidden"],
            projection_dim=given_["D"],
            temperature=given_["temperature"],
            queue_size=given_["K"],
            key_bn="ema",
        )
        method = DenseCL(Given(), config).double()
        for network in (method, method.key_encoder):
            weights = [*network.head.parameters(), *network.dense_head.parameters()]
            for number, weight in enumerate(weights):
                weight.data.copy_(raw(*weight.shape, b=given_["b_w"] + number))
        method.queue.keys.copy_(unit(given_["K"], given_["D"], b=given_["b_q1"]))
        method.dense_queue.keys.copy_(unit(given_["K"], given_["D"], b=given_["b_q2"]))
        shape = given_["N"], given_["C"], given_["H"], given_["H"]
        query, key = raw(*shape, b=given_["b_fq"]).requires_grad_(), raw(*shape, b=given_["b_fk"])
        matches = correspondence(query.flatten(2).mT, key.flatten(2).mT)
        assert matches[0].tolist() == recorded["match_image0"]
        scalars = method([query, key])
        assert scalars["loss"].item() == pytest.approx(recorded["total"], rel=1e-9)
        assert scalars["pooled_loss"].item() / 2 == pytest.approx(recorded["weighted_single"], rel=1e-9)
        assert scalars["dense_loss"].item() / 2 == pytest.approx(recorded["weighted_dense"], rel=1e-9)
        (gradient,) = torch.autograd.grad(scalars["loss"], query)
        assert_recorded(gradient, recorded["grad"]["feature_map_q"])
        method.on_step_end(0.0)
        assert method.queue.keys[0].tolist() == pytest.approx(recorded["queue_column0_after"], rel=1e-9)
        assert method.dense_queue.keys[0].tolist() == pytest.approx(recorded["queue2_column0_after"], rel=1e-9)

    @settings(max_examples=20, deadline=None)
    @given(sizes, sizes, sizes, sizes, st.floats(0.05, 2), seeds)
    def test_the_dense_loss_is_the_equation(
        self, batch: int, positions: int, others: int, dim: int, tau: float, seed: int
    ) -> None:
        features, seen = normal(seed, batch, positions, 3), normal(seed + 1, batch, others, 3)
        r, t = normal(seed + 2, batch, positions, dim), normal(seed + 3, batch, others, dim)
        negatives = normalize(normal(seed + 4, 4, dim), dim=1)
        losses = []
        for i in range(batch):
            for s in range(positions):
                alike = [float(torch.cosine_similarity(features[i, s], other, dim=0)) for other in seen[i]]
                key = t[i, alike.index(max(alike))]
                positive = math.exp(float(torch.cosine_similarity(r[i, s], key, dim=0)) / tau)
                total = sum(math.exp(float(normalize(r[i, s], dim=0) @ other) / tau) for other in negatives)
                losses.append(-math.log(positive / (positive + total)))
        found = dense_info_nce(r, t, correspondence(features, seen), negatives, tau).item()
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-9)

    def test_parts_of_the_dense_loss_are_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = []
        for at_once in (parts.AT_ONCE, 12):
            monkeypatch.setattr(parts, "AT_ONCE", at_once)
            r = normal(0, 2, 4, 3).requires_grad_()
            loss = dense_info_nce(r, normal(1, 2, 4, 3), torch.arange(4).expand(2, -1), normal(2, 4, 3), 0.2)
            found.append((loss.detach(), torch.autograd.grad(loss, r)[0]))
        torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)

    def test_the_dense_loss_joins_when_it_is_asked_to(self) -> None:
        method = small_method(DenseCLConfig, dense_after=0.5, dense_weight=0.25)
        found = []
        for progress in (0.0, 0.49, 0.5, 0.9):
            scalars = method(batch_of(method))
            found.append(method.weight.item())
            expected = (1 - found[-1]) * scalars["pooled_loss"] + found[-1] * scalars["dense_loss"]
            torch.testing.assert_close(scalars["loss"].detach(), expected)
            method.on_step_end(progress)
        assert found == [0, 0, 0, 0.25]

    def test_maps_are_pooled_to_the_grid(self) -> None:
        method = small_method(DenseCLConfig, grid=2)
        assert [part.shape[1:] for part in method.encode(method, batch_of(method)[0])] == [(16,), (4, 16), (4, 64)]

    def test_a_matched_pair_stays_together_through_the_shuffle(self) -> None:
        """Without batch statistics keys do not depend on their neighbours: shuffled or not, the loss is the same."""
        losses = []
        for key_bn in ("shuffle", "ema"):
            method = small_method(DenseCLConfig, key_bn=key_bn).double().eval()
            losses.append(method(batch_of(method, dtype=torch.float64))["dense_loss"].item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (SupConConfig(), {"head": [2048, 2048, 128]}),
        (NNCLRConfig(), {"projector": [2048, 2048, 2048, 256], "predictor": [256, 4096, 256]}),
        (DenseCLConfig(), {"head": [2048, 2048, 128], "dense_head": [2048, 2048, 128]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_heads_are_the_papers(config: MethodConfig, heads: dict[str, list[int]]) -> None:
    with weightless():
        method = config.build(timm.create_model("resnet50", num_classes=0))
    assert {name: widths(getattr(method, name)) for name in heads} == heads
    if isinstance(config, NNCLRConfig):
        normalised = [isinstance(layer, CrossReplicaBatchNorm) for layer in method.projector.modules()]
        assert normalised[-1]
        assert sum(normalised) == 3


@pytest.mark.parametrize(
    ("kind", "choices", "sentence"),
    [
        (SupConConfig, {"scale": "tau/2"}, "scale must be one of none, tau, tau/0.07, not 'tau/2'"),
        (SupConConfig, {"temperature": 0.0}, "temperature must be positive"),
        (NNCLRConfig, {"axes": "neighbours"}, "axes must be one of predictions, both"),
        (NNCLRConfig, {"queue_size": 0}, "queue_size must be positive"),
        (DenseCLConfig, {"dense_weight": 1.5}, "dense_weight is a share"),
        (DenseCLConfig, {"dense_after": -0.1}, "dense_after is a share"),
        (DenseCLConfig, {"grid": -1}, "grid is -1, but must be at least 0"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(kind: type[MethodConfig], choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_method(kind, **choices)


def test_a_densecl_that_gets_half_precision_matches_positions_alike() -> None:
    maps = normal(0, 2, 9, 8), normal(1, 2, 9, 8)
    halved = correspondence(*(converted(one, torch.bfloat16) for one in maps))
    assert (halved == correspondence(*maps)).double().mean() > 0.9
