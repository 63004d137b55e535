"""Targets of maps: each against the number it stands for, written out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_methods import CONFIGS, small_method
from test_grad_cam import random_images, small
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_backbones.methods import DeepClusterConfig, LewelBConfig, MoCoV2Config, PatchRotNetConfig, RotNetConfig
from ssl_backbones.visualizers import (
    AlignmentPeak,
    ClassLogit,
    Cluster,
    CosineTo,
    Direction,
    FeatureNorm,
    HasLogits,
    PretextLogit,
    Target,
    TopClass,
    grad_cam,
    raw_grad_cam,
    similar_to,
)


def outputs(count: int = 4, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def test_each_target_is_its_number() -> None:
    rows, vector, many = outputs(), torch.arange(1.0, 7), torch.flip(outputs(), [0])
    torch.testing.assert_close(ClassLogit(2)(rows), rows[:, 2])
    torch.testing.assert_close(
        ClassLogit((0, 1, 5, 2))(rows), torch.stack([rows[0, 0], rows[1, 1], rows[2, 5], rows[3, 2]])
    )
    torch.testing.assert_close(TopClass()(rows), rows.max(1).values)
    torch.testing.assert_close(FeatureNorm()(rows), (rows**2).sum(1).sqrt())
    unit = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(CosineTo(vector)(rows), unit @ (vector / vector.norm()))
    torch.testing.assert_close(CosineTo(many)(rows), (unit * many / many.norm(dim=1, keepdim=True)).sum(1))
    torch.testing.assert_close(Direction(vector)(rows), rows @ vector / vector.norm())
    cosines = unit @ (many[:3] / many[:3].norm(dim=1, keepdim=True)).T
    ranked = cosines.sort(1, descending=True).values
    torch.testing.assert_close(Cluster(many[:3])(rows), ranked[:, 0] - ranked[:, 1])
    torch.testing.assert_close(Cluster(many[:3], 1)(rows), cosines[:, 1] - cosines[:, [0, 2]].max(1).values)
    torch.testing.assert_close(Cluster(many[:1])(rows), cosines[:, 0])


@pytest.mark.parametrize(
    "target",
    [FeatureNorm(), TopClass(), CosineTo(torch.ones(64)), Direction(torch.ones(64)), Cluster(torch.eye(3, 64))],
)
def test_targets_are_frozen_and_explain_a_batch(target: Target) -> None:
    maps = grad_cam(small(), random_images(3), target)
    assert maps.shape == (3, 24, 24)
    for field in dataclasses.fields(target):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, field.name, None)


def test_a_cluster_is_pulled_up_and_its_rival_down() -> None:
    rows = torch.tensor([[1.0, 0.8, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(Cluster(torch.eye(3))(rows).sum(), rows)
    assert gradient[0, 0] > 0 > gradient[0, 1]


class TestSimilarity:
    def test_to_another_image_or_to_another_view_of_each(self) -> None:
        model, images, views = small(), random_images(3), random_images(3, 32, seed=4)
        torch.testing.assert_close(similar_to(model, views).embedding, model(views).detach())
        torch.testing.assert_close(similar_to(model, views[:1]).embedding, model(views[:1]).detach()[0])
        to_views = raw_grad_cam(model, images, similar_to(model, views))
        one = raw_grad_cam(model, images[1:2], CosineTo(model(views[1:2])[0]))
        torch.testing.assert_close(to_views[1:2], one)
        assert grad_cam(model, images, similar_to(model, views[:1])).amax() == 1

    def test_made_in_inference_mode(self) -> None:
        model, images = small().train(), random_images(2)
        with torch.inference_mode():
            vector = model.eval()(random_images(1, seed=7))[0]
            assert vector.is_inference()
            grad_cam(model, images, CosineTo(vector))
            grad_cam(model, images, similar_to(model, images.flip(0)))
        assert not similar_to(model, images).embedding.requires_grad


class TestMethods:
    def test_a_method_is_seen_through_its_backbone(self) -> None:
        method, images = small_method(MoCoV2Config), random_images(2)
        modes = [module.training for module in method.modules()]
        torch.testing.assert_close(grad_cam(method, images), grad_cam(method.backbone, images))
        assert [module.training for module in method.modules()] == modes

    @pytest.mark.parametrize(("kind", "index"), [(PatchRotNetConfig, 6), (RotNetConfig, 3), (DeepClusterConfig, 1)])
    def test_the_logit_of_its_own_head(self, kind: Any, index: int) -> None:
        method, images = small_method(kind).eval(), random_images(2)
        logits = method.head(method.backbone(images))
        torch.testing.assert_close(method.logits(images), logits)
        whole = nn.Sequential(method.backbone, method.head)
        expected = raw_grad_cam(whole, images, lambda out: out[:, index], layer=method.backbone.layer3)
        torch.testing.assert_close(raw_grad_cam(method, images, PretextLogit(index)), expected)
        with pytest.raises(ValueError, match=rf"logit index {logits.shape[1]} is out of range: .* so give 0 to"):
            grad_cam(method, images, PretextLogit(logits.shape[1]))

    def test_each_view_has_the_logit_of_its_own_turn(self) -> None:
        method, images = small_method(RotNetConfig), random_images(4)
        together = raw_grad_cam(method, images, PretextLogit((0, 1, 2, 3)))
        alone = [raw_grad_cam(method, image[None], PretextLogit(turn)) for turn, image in enumerate(images)]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_logits_exist_where_a_head_tells_classes_apart(self) -> None:
        having = {kind.name for kind in CONFIGS if isinstance(small_method(kind), HasLogits)}
        assert having == {"patch_rotnet", "rotnet", "supervised", "deepcluster"}

    def test_an_alignment_map(self) -> None:
        method, images = small_method(LewelBConfig), random_images(2)
        found = raw_grad_cam(method, images, AlignmentPeak(3))
        method.eval()
        features = method.backbone.forward_features(images).detach().requires_grad_()
        peaks = method.head(features).maps[:, 3].flatten(1).max(1).values
        (gradient,) = torch.autograd.grad(peaks.sum(), features)
        expected = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1)).detach()
        torch.testing.assert_close(found, expected)
        with pytest.raises(ValueError, match="map index 16 is out of range: there are 16, so give 0 to 15"):
            grad_cam(method, images, AlignmentPeak(16))


class TestRefusals:
    def test_a_class_that_is_none(self) -> None:
        with pytest.raises(ValueError, match=r"^class index 7 is out of range: there are 5, so give 0 to 4$"):
            grad_cam(small(num_classes=5), random_images(), ClassLogit(7))
        with pytest.raises(ValueError, match="class index -1 is out of range"):
            grad_cam(small(num_classes=5), random_images(), ClassLogit(-1))
        with pytest.raises(ValueError, match="2 class indices are given for 3 images: give one, or one each"):
            grad_cam(small(num_classes=5), random_images(), ClassLogit((1, 2)))

    def test_a_class_of_a_headless_network(self) -> None:
        with pytest.raises(ValueError, match=r"has no head, and its 64 outputs are no classes: take FeatureNorm\(\)"):
            grad_cam(small(), random_images(), ClassLogit(3))

    def test_a_method_without_what_is_asked(self) -> None:
        with pytest.raises(TypeError, match="MoCoV2 has no logits of its own; RotNet, PatchRotNet"):
            grad_cam(small_method(MoCoV2Config), random_images(), PretextLogit(0))
        with pytest.raises(TypeError, match="MoCoV2 has no alignment maps; LewelB, LewelM and Aligned do"):
            grad_cam(small_method(MoCoV2Config), random_images(), AlignmentPeak(0))

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (CosineTo(torch.ones(5)), r"embedding is \(5,\): give \(64,\), or \(3, 64\), one for each"),
            (Direction(torch.ones(2, 64)), r"vector is \(2, 64\): give \(64,\)"),
            (Cluster(torch.ones(64)), r"centroids are \(64,\): give \(K, 64\)"),
            (Cluster(torch.ones(4, 5)), r"centroids is \(4, 5\)"),
            (Cluster(torch.ones(4, 64), 4), "cluster index 4 is out of range"),
        ],
    )
    def test_vectors_of_another_width(self, target: Target, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            grad_cam(small(), random_images(), target)

    def test_a_network_without_an_embedding(self) -> None:
        with pytest.raises(ValueError, match=r"gives \(3, 64, 6, 6\), where an embedding is \(B, D\)"):
            grad_cam(small(global_pool=""), random_images())
