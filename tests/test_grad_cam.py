"""Grad-CAM and the maps beside it: right where the answer is known, and no trace left on the network."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import ssl_backbones
from ssl_backbones.visualizers import (
    ClassLogit,
    Direction,
    LayerError,
    TopClass,
    feature_norm,
    grad_cam,
    principal_component,
    raw_grad_cam,
    similarity_map,
)

MAPS: list[Callable[..., Tensor]] = [grad_cam, feature_norm, principal_component]


def small(seed: int = 0, **choices: Any) -> nn.Module:
    """A ResNet-8 whose batch statistics are not those it was made with."""
    torch.manual_seed(seed)
    model: nn.Module = ssl_backbones.create_model("resnet8", **{"num_classes": 0, **choices})
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.randn(8, 3, 16, 16))
    return model.eval()


def random_images(count: int = 3, size: int = 24, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("index", [0, 3])
def test_a_linear_head_on_a_mean_makes_it_the_class_activation_map(index: int) -> None:
    model, images = small(num_classes=5), random_images()
    features = model.forward_features(images)
    weights: Tensor = model.fc.weight[index]
    cells = features.shape[2] * features.shape[3]
    cam = torch.einsum("c,bchw->bhw", weights, features).relu() / cells
    torch.testing.assert_close(raw_grad_cam(model, images, ClassLogit(index)), cam.detach(), atol=1e-6, rtol=1e-5)
    large = F.interpolate(cam[:, None], size=(24, 24), mode="bilinear")[:, 0].detach()
    expected = large / large.amax((1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(model, images, ClassLogit(index)), expected, atol=1e-6, rtol=1e-5)


def test_a_headless_network_is_asked_how_alike_each_place_is_to_the_whole() -> None:
    model, images = small(), random_images()
    features = model.forward_features(images).detach()
    whole = features.mean((2, 3))
    along = torch.einsum("bc,bchw->bhw", whole / whole.norm(dim=1, keepdim=True), features) / features[0, 0].numel()
    torch.testing.assert_close(raw_grad_cam(model, images), along.relu(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("make", MAPS)
@pytest.mark.parametrize("shape", [(2, 3, 24, 24), (1, 3, 33, 18)])
def test_maps_are_shares_at_the_size_of_the_image(make: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    maps = make(small(), torch.randn(shape, generator=torch.Generator().manual_seed(2)))
    assert maps.shape == (shape[0], *shape[2:])
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert maps.amin() >= 0
    torch.testing.assert_close(maps.amax((1, 2)), torch.ones(shape[0]))


@pytest.mark.parametrize("make", MAPS)
def test_a_batch_is_its_images_one_by_one(make: Callable[..., Tensor]) -> None:
    model, images = small().train(), random_images(4)
    together = make(model, images)
    alone = torch.cat([make(model, image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    one_target = grad_cam(model, images, Direction(torch.ones(64)))
    assert (one_target.amax((1, 2)) > 0).all()


@pytest.mark.parametrize("make", MAPS)
def test_a_dead_network_has_maps_of_zeros(make: Callable[..., Tensor]) -> None:
    model = small()
    nn.init.zeros_(model.layer3[0].bn2.weight)
    nn.init.constant_(model.layer3[0].bn2.bias, -1e6)
    maps = make(model, random_images())
    assert (maps == 0).all()


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a look must not change."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": hooks,
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "frozen": [p.requires_grad for p in model.parameters()],
        "weights": copy.deepcopy(model.state_dict()),
        "random": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("make", [*MAPS, lambda *given: similarity_map(*given, others=random_images(1))])
def test_nothing_is_left_behind(make: Callable[..., Tensor]) -> None:
    model = small(drop_rate=0.5).train()
    model.layer1.eval()
    model(random_images()).sum().backward()
    model.conv1.weight.requires_grad_(False)
    before = state_of(model)
    make(model, random_images(seed=3))
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)


def test_a_target_that_draws_leaves_the_random_stream_as_it_was() -> None:
    model, before = small(), torch.get_rng_state()
    grad_cam(model, random_images(), lambda outputs: outputs.sum(1) * torch.rand(len(outputs)))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_left_behind_by_a_failure() -> None:
    model = small().train()
    before = state_of(model)

    def broken(outputs: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        grad_cam(model, random_images(), broken)
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)


def test_two_hundred_looks_leak_nothing() -> None:
    model, images = small(), random_images(1, 8)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    grad_cam(model, images)
    before, hooks = tensors(), state_of(model)["hooks"]
    for _ in range(200):
        grad_cam(model, images)
        feature_norm(model, images)
    assert tensors() <= before
    assert state_of(model)["hooks"] == hooks


class TestSurroundings:
    """Whatever stands around the call, the map is the same."""

    @pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
    def test_without_gradients(self, around: Callable[[], Any]) -> None:
        model, images = small(num_classes=4), random_images()
        expected = grad_cam(model, images)
        with around():
            mine = images.clone()  # an inference tensor, in inference mode
            vector = torch.ones(4)
            torch.testing.assert_close(grad_cam(model, mine), expected)
            assert grad_cam(model, mine, Direction(vector)).shape == expected.shape

    def test_with_frozen_weights(self) -> None:
        model, images = small(), random_images()
        expected = grad_cam(model, images)
        torch.testing.assert_close(grad_cam(model.requires_grad_(False), images), expected)

    def test_in_half_precision(self) -> None:
        model, images = small(num_classes=4), random_images()
        expected = grad_cam(model, images, ClassLogit(1))
        with torch.autocast("cpu", torch.bfloat16):
            inside = grad_cam(model, images, ClassLogit(1))
        halved = grad_cam(copy.deepcopy(model).bfloat16(), images, ClassLogit(1))
        for maps in (inside, halved):
            assert maps.dtype == torch.float32
            assert (maps - expected).abs().max() < 0.06
        assert grad_cam(copy.deepcopy(model).double(), images, ClassLogit(1)).dtype == torch.float64

    def test_a_step_of_training_in_autocast_is_not_spoilt(self) -> None:
        model, images = small(), random_images()
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                grad_cam(model, images)
            model.train()(images).sum().backward()
        assert all(weights.grad is not None for weights in model.parameters())

    def test_in_wrappers(self) -> None:
        model, images = small(), random_images()
        expected = grad_cam(model, images)
        torch.testing.assert_close(grad_cam(nn.DataParallel(model), images), expected)
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            torch.testing.assert_close(grad_cam(DistributedDataParallel(model), images), expected)
        finally:
            dist.destroy_process_group()
        compiled = torch.compile(copy.deepcopy(model), backend="eager")
        torch.testing.assert_close(grad_cam(compiled, images), expected)
        compiled(images)
        torch.testing.assert_close(grad_cam(compiled, images, layer="layer3"), expected)
        in_place = copy.deepcopy(model)
        in_place.compile(backend="eager")
        in_place(images)
        torch.testing.assert_close(grad_cam(in_place, images), expected)

    def test_before_an_activation_in_place(self) -> None:
        model, images = small(), random_images()
        before = raw_grad_cam(model, images, lambda outputs: -outputs.sum(1), layer="bn1")
        swapped = copy.deepcopy(model)
        swapped.act1 = nn.ReLU(inplace=False)
        torch.testing.assert_close(raw_grad_cam(swapped, images, lambda out: -out.sum(1), layer="bn1"), before)


class TestLayers:
    def test_by_name_and_by_part(self) -> None:
        model, images = small(), random_images()
        named = grad_cam(model, images, layer="layer2")
        torch.testing.assert_close(grad_cam(model, images, layer=model.layer2), named)
        torch.testing.assert_close(grad_cam(model, images), grad_cam(model, images, layer="layer3"))
        assert not torch.allclose(named, grad_cam(model, images))

    @pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050", "densenet121"])
    def test_timm_says_which_is_the_last(self, name: str) -> None:
        model = timm.create_model(name, num_classes=0)
        assert raw_grad_cam(model, random_images(1, 96)).shape == (1, 3, 3)

    def test_without_places(self) -> None:
        model, images = small(), random_images()
        with pytest.raises(
            LayerError, match=r"^layer 'global_pool' gives \(3, 64\), where .* choose one of act1, layer1"
        ):
            grad_cam(model, images, layer="global_pool")
        with pytest.raises(LayerError, match=r"has no layer 'layer9': choose one of act1, layer1, layer2, layer3$"):
            feature_norm(model, images, "layer9")
        with pytest.raises(LayerError, match=r"the Conv2d given took no part in the pass"):
            grad_cam(model, images, layer=nn.Conv2d(3, 3, 3))
        with pytest.raises(LayerError, match=r"'layer4' gives a map of 1 x 1, .* give larger images$"):
            grad_cam(timm.create_model("resnet18", num_classes=0), random_images(1, 32))
        with pytest.raises(LayerError, match=r"gives .*, where a map needs"):
            grad_cam(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32), random_images(1, 32))
        with pytest.raises(LayerError, match="a Sequential does not list its maps"):
            grad_cam(nn.Sequential(nn.Conv2d(3, 4, 3)), images)
        swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=56, window_size=7)
        with pytest.raises(LayerError, match="96 channels not in second place"):
            grad_cam(swin, random_images(1, 56), layer="layers.0")

    def test_after_what_is_scored(self) -> None:
        with pytest.raises(ValueError, match="the target does not depend on layer 'layer3'"):
            grad_cam(small(), random_images(), lambda outputs: outputs.detach().sum(1))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(2, 1, 8, 8),
        torch.zeros(0, 3, 8, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    ],
)
@pytest.mark.parametrize("make", MAPS)
def test_what_is_no_batch_of_images_is_refused(make: Callable[..., Tensor], images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"give normalised floats \(B, 3, H, W\), one image as a batch of 1$"):
        make(small(), images)


@pytest.mark.parametrize("target", [lambda out: out, lambda out: out.sum(), lambda out: 1.0])
def test_a_target_gives_one_number_for_each_image(target: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ValueError, match=r"the target gives .* for 3 images: give one number for each, \(3,\)"):
        grad_cam(small(), random_images(), target)


def test_the_top_class_is_asked_of_a_classifier_alone() -> None:
    model, images = small(num_classes=5), random_images()
    torch.testing.assert_close(grad_cam(model, images), grad_cam(model, images, TopClass()))
    top = tuple(model(images).argmax(1).tolist())
    torch.testing.assert_close(grad_cam(model, images), grad_cam(model, images, ClassLogit(top)))


def test_a_shifted_image_has_a_shifted_map() -> None:
    model = small()
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 24:36, 24:36] = random_images(1, 12)
    shifted = images.roll((8, 4), (2, 3))
    for make in (raw_grad_cam, lambda *given: feature_norm(*given)[:, ::4, ::4]):
        inner = make(model, images)[:, 4:10, 4:12] / make(model, images).amax()
        there = make(model, shifted)[:, 6:12, 5:13] / make(model, shifted).amax()
        torch.testing.assert_close(there, inner, atol=1e-4, rtol=1e-3)


def test_the_principal_component_is_the_slow_one() -> None:
    model, images = small(), random_images()
    features = model.forward_features(images).detach().double()
    for image, found in zip(features, principal_component(model, images), strict=True):
        vectors = image.flatten(1).T
        values, directions = torch.linalg.eigh(torch.cov(vectors.T))
        along = (vectors - vectors.mean(0)) @ directions[:, values.argmax()]
        lengths = vectors.norm(dim=1)
        sign = 1 if torch.corrcoef(torch.stack([along, lengths]))[0, 1] >= 0 else -1
        coarse = (sign * along).clamp(min=0).view(1, 1, *image.shape[1:])
        large = F.interpolate(coarse, size=(24, 24), mode="bilinear")[0, 0]
        torch.testing.assert_close(found.double(), large / large.max(), atol=1e-4, rtol=1e-3)


def test_a_network_made_under_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        network = timm.create_model("resnet18", num_classes=0)
    with pytest.raises(ValueError, match=r"ResNet was made or loaded under torch\.inference_mode"):
        grad_cam(network, torch.randn(1, 3, 224, 224))


@pytest.mark.parametrize("make", [grad_cam, feature_norm, principal_component])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_has_no_map_and_spoils_no_other(make: Callable[..., Tensor], value: float) -> None:
    network = timm.create_model("resnet18", num_classes=0).eval()
    images = torch.randn(2, 3, 224, 224)
    images[1, :, 100, 100] = value
    maps = make(network, images)
    assert maps[1].isnan().all()
    assert maps[0].isfinite().all()
    assert torch.allclose(maps[0], make(network, images[:1])[0], atol=1e-5)
