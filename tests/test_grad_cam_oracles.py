"""Grad-CAM against two implementations of others', and on a task whose answer is drawn into the image."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_backbones.metrics import energy_inside, pointing_game
from ssl_backbones.visualizers import ClassLogit, grad_cam, raw_grad_cam, stretched


def classifier(seed: int = 0, name: str = "resnet18") -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=10).eval()


def quiet_import(name: str) -> Any:
    """An oracle, without what its import has to say about other libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.parametrize("name", ["resnet18", "resnet8"])
@pytest.mark.parametrize("layer", ["layer2", "layer3"])
@pytest.mark.parametrize("index", [0, 7])
def test_captum_agrees(name: str, layer: str, index: int) -> None:
    attr = quiet_import("captum.attr")
    model, images = classifier(name=name), torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    oracle = attr.LayerGradCam(model, getattr(model, layer))
    expected = oracle.attribute(images, target=index, relu_attributions=True)[:, 0].detach()
    found = raw_grad_cam(model, images, ClassLogit(index), layer)
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.max()))
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.slow
def test_pytorch_grad_cam_agrees_once_both_are_stretched() -> None:
    theirs = quiet_import("pytorch_grad_cam")
    outputs = quiet_import("pytorch_grad_cam.utils.model_targets")
    model, images = classifier(), torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for index in (1, 4):
        with theirs.GradCAM(model=model, target_layers=[model.layer3]) as cam:
            expected = cam(input_tensor=images, targets=[outputs.ClassifierOutputTarget(index)] * len(images))
        found = stretched(grad_cam(model, images, ClassLogit(index), "layer3").numpy())
        assert abs(found - stretched(expected)).max() <= 1e-5


def squares(count: int, seed: int, size: int = 96, side: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (N, 3, S, S) with a square that is bright in one channel, the squares (N, S, S), and the channels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, size, size, generator=generator)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    classes = torch.randint(3, (count,), generator=generator)
    corners = torch.randint(size - side + 1, (count, 2), generator=generator)
    for image, mask, channel, (top, left) in zip(images, masks, classes, corners.tolist(), strict=True):
        image[channel, top : top + side, left : left + side] += 1.5
        mask[top : top + side, left : left + side] = True
    return images, masks, classes


@pytest.mark.slow
def test_a_trained_network_is_seen_to_look_at_the_square() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(40):
        images, _, classes = squares(32, seed=step)
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, masks, classes = squares(64, seed=1000)
    assert (model.eval()(images).argmax(1) == classes).float().mean() >= 0.98
    target = ClassLogit(tuple(classes.tolist()))
    torch.manual_seed(1)
    control = timm.create_model("resnet18", num_classes=3)
    area = masks.float().mean()
    pointing, energy = {}, {}
    for name, network in {"trained": model, "random": control}.items():
        maps = grad_cam(network, images, target, "layer3")
        pointing[name], energy[name] = pointing_game(maps, masks, 8).mean(), energy_inside(maps, masks).mean()
    assert pointing["trained"] >= 0.9
    assert energy["trained"] >= 3 * area
    assert pointing["trained"] - pointing["random"] >= 0.3
    assert energy["trained"] - energy["random"] >= 2 * area
