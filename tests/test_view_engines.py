"""Both engines against torchvision on PIL images, per operation and together, and the transforms made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as F

from ssl_backbones import views
from ssl_backbones.views import (
    MultiView,
    Parameters,
    Policy,
    uniform,
)
from ssl_backbones.views import device_engine as device
from ssl_backbones.views import pillow_engine as pillow
from ssl_backbones.views.channel_image import ChannelImage
from ssl_backbones.views.policy import UNIFORMS

STILL = Policy(area=(1.0, 1.0), flip_p=0, jitter_p=0, grey_p=0, blur_p=0, solarize_p=0)


def synthetic(width: int, height: int, kind: str, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    if kind == "noise":
        return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    if kind == "flat":
        return Image.new("RGB", (width, height), tuple(generator.integers(0, 256, 3).tolist()))
    coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


images = st.builds(
    synthetic, st.integers(3, 90), st.integers(3, 90), st.sampled_from(["noise", "flat", "smooth"]), st.integers(0, 99)
)


def equal(ours: Image.Image, theirs: Image.Image) -> None:
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


# The Pillow engine: equal to torchvision


@given(
    image=images,
    factor=st.floats(0, 2.5),
    turn=st.floats(-0.5, 0.5),
    sigma=st.floats(0.1, 3),
    level=st.integers(0, 256),
)
@settings(max_examples=60, deadline=None)
def test_each_pillow_operation_is_torchvisions(image, factor, turn, sigma, level):
    equal(pillow.flip(image), F.hflip(image))
    equal(pillow.brightness(image, factor), F.adjust_brightness(image, factor))
    equal(pillow.contrast(image, factor), F.adjust_contrast(image, factor))
    equal(pillow.saturation(image, factor), F.adjust_saturation(image, factor))
    equal(pillow.hue(image, turn), F.adjust_hue(image, turn))
    equal(pillow.grey(image), F.to_grayscale(image, 3))
    equal(pillow.blur(image, sigma), image.filter(ImageFilter.GaussianBlur(radius=sigma)))
    equal(pillow.solarize(image, level), F.solarize(image, level))
    equal(pillow.solarize(image, 128), F.solarize(image, 128))


@given(image=images, size=st.integers(1, 64), seed=st.integers(0, 99), name=st.sampled_from(["bilinear", "bicubic"]))
@settings(max_examples=60, deadline=None)
def test_the_pillow_crop_is_torchvisions(image, size, seed, name):
    policy = replace(STILL, area=(0.05, 1.0))
    drawn = policy.draw(uniform(seed, 0, [0], 0, UNIFORMS))
    left, top, width, height = box = policy.crop_boxes(drawn, np.array([image.size]))[0].tolist()
    ours = pillow.crop(image, box, size, pillow.RESAMPLING[name])
    mode = transforms.InterpolationMode(name)
    equal(ours, F.resized_crop(image, top, left, height, width, [size, size], mode))


def torchvision_view(image: Image.Image, policy: Policy, drawn: Parameters, size: int) -> Image.Image:
    """The first row's view as a recipe of torchvision's would make it, in the order of the published code."""
    left, top, width, height = policy.crop_boxes(drawn, np.array([image.size]))[0].tolist()
    mode = transforms.InterpolationMode(policy.interpolation)
    image = F.resized_crop(image, top, left, height, width, [size, size], mode)
    if drawn.flip[0] and not policy.flip_last:
        image = F.hflip(image)
    adjust = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for operation in drawn.order[0]:
        if operation >= 0:
            image = adjust[operation](image, drawn.factors[0, operation])
    if drawn.grey[0]:
        image = F.to_grayscale(image, 3)
    if drawn.sigma[0]:
        image = image.filter(ImageFilter.GaussianBlur(radius=float(drawn.sigma[0])))
    if drawn.solarize[0]:
        image = F.solarize(image, policy.threshold)
    return F.hflip(image) if drawn.flip[0] and policy.flip_last else image


POLICIES = [*views.MOCO_V2_VIEWS[:1], *views.LEWEL_B_VIEWS, *views.BYOL_VIEWS]


@pytest.mark.parametrize("policy", [*POLICIES, replace(POLICIES[2], threshold=100, solarize_p=0.5)])
def test_a_pillow_view_is_torchvisions_on_images(sample_images, policy):
    check_views_are_torchvisions(sample_images, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pillow_view_is_torchvisions_on_patterns(policy):
    kinds = ["noise", "smooth", "flat"] * 8
    check_views_are_torchvisions([synthetic(20 + 3 * i, 70 - 2 * i, kind, i) for i, kind in enumerate(kinds)], policy)


def check_views_are_torchvisions(batch: list[Image.Image], policy: Policy) -> None:
    rows = uniform(3, 1, np.arange(len(batch)), 0, UNIFORMS)
    ours = pillow.render(batch, policy, policy.draw(rows), 40)
    assert ours.shape == (len(batch), 40, 40, 3)
    assert ours.dtype == np.uint8
    for row, image in enumerate(batch):
        theirs = torchvision_view(image, policy, policy.draw(rows[row : row + 1]), 40)
        np.testing.assert_array_equal(ours[row], np.asarray(theirs))


# The device engine: equal to the Pillow engine within the tolerances it states


def both(batch: list[Image.Image], policy: Policy, size: int, seed: int = 0) -> np.ndarray:
    """The differences between the engines' views (B, 3, S, S), in levels."""
    drawn = policy.draw(uniform(seed, 0, np.arange(len(batch)), 0, UNIFORMS))
    theirs = pillow.render(batch, policy, drawn, size).transpose(0, 3, 1, 2)
    (ours,) = device.render(device.pack(batch, [(policy, drawn)]), (policy,), size)
    assert (ours == ours.round()).all()
    return np.abs(ours.numpy() - theirs)


def jitter(column: int, strength: float) -> dict[str, object]:
    return {"jitter_p": 1.0, "jitter": tuple(strength * (column == other) for other in range(4))}


EXACT = {
    "nothing": {},
    "flip": {"flip_p": 0.5},
    "flip last": {"flip_p": 0.5, "flip_last": True},
    "turn": {"turn_p": 0.75},
    "turn, flip last": {"turn_p": 0.75, "flip_p": 0.5, "flip_last": True},
    "brightness": jitter(0, 0.9),
    "contrast": jitter(1, 0.9),
    "saturation": jitter(2, 1.2),
    "grey": {"grey_p": 0.5},
    "solarize": {"solarize_p": 0.5, "threshold": 90},
}


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat"])
@pytest.mark.parametrize("name", EXACT)
def test_device_operations_that_are_exact(name, kind):
    batch = [synthetic(48, 48, kind, seed) for seed in range(12)]
    assert both(batch, replace(STILL, **EXACT[name]), 48).max() == 0


@pytest.mark.parametrize("name", EXACT)
def test_device_operations_that_are_exact_on_images(sample_images, name):
    square = [image.resize((64, 64)) for image in sample_images]
    assert both(square, replace(STILL, **EXACT[name]), 64).max() == 0


@pytest.mark.parametrize("size", [16, 32, 96, 200])
def test_device_crop_on_images(sample_images, size):
    apart = both(sample_images, replace(STILL, area=(0.05, 1.0), flip_p=0.5), size)
    assert apart.max() <= 2
    assert apart.mean() < 0.1
    apart = both(sample_images, replace(STILL, area=(0.05, 1.0), flip_p=0.5, interpolation="bicubic"), size)
    assert apart.max() <= 8
    assert apart.mean() < 0.1


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_device_crop_on_patterns_of_any_size(name):
    batch = [synthetic(8 + 9 * i, 150 - 7 * i, "smooth", i) for i in range(16)]
    apart = both(batch, replace(STILL, area=(0.05, 1.0), flip_p=0.5, interpolation=name), 32)
    assert apart.max() <= 2
    assert apart.mean() < 0.1


def patterns(size: int) -> list[Image.Image]:
    return [synthetic(size, size, kind, seed) for seed in range(8) for kind in ("noise", "smooth", "flat")]


def test_device_blur_on_images(sample_images):
    check_blur([image.resize((64, 64)) for image in sample_images])


@pytest.mark.parametrize("size", [4, 9, 32])
def test_device_blur_on_patterns(size):
    check_blur(patterns(size))


def check_blur(batch: list[Image.Image]) -> None:
    apart = both(batch, replace(STILL, blur_p=0.9, sigma=(0.1, 2.0)), batch[0].width)
    assert apart.max() <= 2
    assert apart.mean() < 0.5


def test_box_radius_is_pillows():
    """A box blur three times at that radius is Pillow's Gaussian."""
    line = synthetic(61, 1, "noise").convert("L").resize((61, 61), Image.Resampling.NEAREST)
    for sigma in (0.1, 0.5, 1.0, 1.7, 2.0, 5.0):
        boxed = line
        for _ in range(3):
            boxed = boxed.filter(ImageFilter.BoxBlur((device.box_radius(sigma), 0)))
        equal(boxed, line.filter(ImageFilter.GaussianBlur((sigma, 0))))


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_device_hue_on_images(sample_images, strength):
    check_hue([image.resize((64, 64)) for image in sample_images], strength)


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_device_hue_on_patterns(strength):
    check_hue(patterns(64), strength)


def check_hue(batch: list[Image.Image], strength: float) -> None:
    apart = both(batch, replace(STILL, **jitter(3, strength)), 64)
    assert apart.max() <= 6
    assert (apart > 0).mean() < 1 / 200


@pytest.mark.parametrize("policy", POLICIES)
def test_device_views_are_pillows_nearly_everywhere(sample_images, policy):
    apart = both(sample_images, policy, 64, seed=2)
    assert apart.mean() < 0.5
    assert (apart > 3).mean() < 2e-3
    assert apart.max() <= 24


def test_the_colour_operations_follow_each_images_own_order():
    """Orders matter on these pixels, so an engine with one order for all would be found out."""
    image = synthetic(32, 32, "noise")
    policy = replace(STILL, jitter_p=1.0, jitter=(0.8, 0.8, 0.8, 0.3))
    batch = [image] * 24
    apart = both(batch, policy, 32)
    assert (apart > 0).mean() < 0.02
    drawn = policy.draw(uniform(0, 0, np.arange(24), 0, UNIFORMS))
    turned = replace(drawn, order=drawn.order[:, ::-1])
    assert (pillow.render(batch, policy, drawn, 32) != pillow.render(batch, policy, turned, 32)).mean() > 0.3


def test_device_views_do_not_depend_on_the_company(sample_images):
    policy = POLICIES[2]
    rows = uniform(0, 0, np.arange(8), 0, UNIFORMS)
    (together,) = device.render(device.pack(sample_images[:8], [(policy, policy.draw(rows))]), (policy,), 32)
    for row in range(8):
        (alone,) = device.render(
            device.pack(sample_images[row : row + 1], [(policy, policy.draw(rows[row : row + 1]))]), (policy,), 32
        )
        assert (alone[0] - together[row]).abs().max() <= 1


@pytest.mark.parametrize("flip_last", [False, True])
@pytest.mark.parametrize("engine", ["pillow", "opencv", "device", "channels"])
def test_a_turned_view_is_the_view_that_is_not_turned_by_quarters(sample_images, engine, flip_last):
    policy, batch, rows = replace(POLICIES[2], flip_last=flip_last), sample_images[:12], np.arange(12)
    if engine == "channels":
        policy, batch = policy.of_channels(), [ChannelImage(np.asarray(image), "8 bits") for image in batch]
    plain, turned = (
        MultiView((replace(policy, turn_p=chance),), 32, "pillow" if engine == "channels" else engine)
        for chance in (0.0, 1.0)
    )
    (drawn,) = turned.draw(0, 0, rows)
    assert {*drawn.quarters.tolist()} == {1, 2, 3}
    upright, found = (one.on_device(one.on_host(batch, one.draw(0, 0, rows)))[0] for one in (plain, turned))
    for view, same, quarters in zip(found, upright, drawn.quarters.tolist(), strict=True):
        assert torch.equal(view, same.rot90(quarters, (1, 2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU, and SSL_BACKBONES_TEST_GPU=1 to see it")
def test_device_views_on_a_gpu(sample_images):
    transform = MultiView(views.BYOL_VIEWS, 64, engine="device")
    content = transform.on_host(sample_images, transform.draw(0, 0, np.arange(len(sample_images))))
    for here, there in zip(transform.on_device(content), transform.on_device(to(content, "cuda")), strict=True):
        assert there.is_cuda
        assert (here - there.cpu()).abs().mean() < 0.01


def to(content, where: str):
    if isinstance(content, torch.Tensor):
        return content.to(where)
    if isinstance(content, dict):
        return {key: to(value, where) for key, value in content.items()}
    return [to(value, where) for value in content]


# The transforms
