"""Transforms of whole batches: views of several policies, and the middle of an image."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_view_engines import images, synthetic
from torchvision import transforms
from torchvision.transforms import functional as F

from ssl_backbones import views
from ssl_backbones.views import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    MultiView,
    Transform,
)
from ssl_backbones.views import pillow_engine as pillow
from ssl_backbones.views.center_crop import LONGEST, shortened
from ssl_backbones.views.channel_image import ChannelImage


def tensors(content) -> list[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return [content]
    values = content.values() if isinstance(content, dict) else content
    return [tensor for value in values for tensor in tensors(value)]


@pytest.mark.parametrize("engine", ["pillow", "device"])
def test_multi_view_gives_normalised_channels_last_views(engine):
    batch = [synthetic(40 + i, 60 - i, "smooth", i) for i in range(4)]
    transform = pickle.loads(pickle.dumps(MultiView(views.LEWEL_B_VIEWS, 32, engine=engine)))
    parameters = pickle.loads(pickle.dumps(transform.draw(0, 5, np.arange(4))))
    content = transform.on_host(batch, parameters)
    assert tensors(content)[0].dtype == torch.uint8
    shown = transform.on_device(content)
    for view, policy, drawn in zip(shown, transform.policies, parameters, strict=True):
        assert view.shape == (4, 3, 32, 32)
        assert view.dtype == torch.float32
        assert view.is_contiguous(memory_format=torch.channels_last)
        levels = pillow.render(batch, policy, drawn, 32)
        expected = torch.stack([F.normalize(F.to_tensor(x), IMAGENET_MEAN, IMAGENET_STD) for x in levels.copy()])
        assert (view - expected).abs().mean() < (1e-6 if engine == "pillow" else 0.02)


def test_pillow_batches_are_uint8_and_stay_as_they_are():
    transform = MultiView(views.MOCO_V2_VIEWS, 16)
    content = transform.on_host([synthetic(20, 20, "noise")] * 3, transform.draw(0, 0, np.arange(3)))
    assert [(view.shape, view.dtype) for view in content] == [(torch.Size([3, 16, 16, 3]), torch.uint8)] * 2
    before = [view.clone() for view in content]
    transform.on_device(content)
    assert all(torch.equal(view, was) for view, was in zip(content, before, strict=True))
    lossless = MultiView(views.MOCO_V2_VIEWS, 16, engine="device")
    content = lossless.on_host([synthetic(20, 20, "noise")] * 3, lossless.draw(0, 0, np.arange(3)))
    assert torch.equal(lossless.on_device(content)[0], lossless.on_device(content)[0])


def test_views_differ_and_are_counted():
    transform = MultiView(views.MOCO_V2_VIEWS, 16)
    first, second = transform.draw(0, 0, np.arange(50))
    assert not np.isin(first.area, second.area).any()
    again = transform.draw(0, 0, np.array([30, 7]))[1]
    np.testing.assert_array_equal(again.factors, second.factors[[30, 7]])
    assert not np.isin(first.area, transform.draw(0, 1, np.arange(50))[0].area).any()


KINDS = {
    "RGB": lambda levels: Image.fromarray(levels[..., :3]),
    "8 bits": lambda levels: ChannelImage(levels, "8 bits"),
    "16 bits": lambda levels: ChannelImage(levels.astype(np.uint16) * 257, "16 bits"),
    "floats": lambda levels: ChannelImage(levels.astype(np.float32) / 255, "floats"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_a_strip_takes_no_more_memory_than_that_of_a_photo(kind, monkeypatch):
    """Its resize as a whole would have 1,080,000 pixels of 18 rows."""
    pixels, resize = [], Image.Image.resize

    def counted(image, size, *rest):
        pixels.append(size[0] * size[1])
        return resize(image, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", counted)
    levels = np.arange(60_000, dtype=np.uint32).astype(np.uint8)[:, None].repeat(4, axis=1)
    for image in (KINDS[kind](levels[None]), KINDS[kind](levels[:, None])):
        assert max(shortened(image).size) == LONGEST
        middle = CenterCrop(16).on_host([image], None)
        assert middle.shape == (1, 16, 16, 3 if kind == "RGB" else 4)
        assert abs(middle.float().mean().item() - 30_000 % 256) < 2
    assert max(pixels) <= 18 * 18 * LONGEST
    photo = KINDS[kind](levels[:25_600].reshape(1600, 16, 4))
    assert shortened(photo) is photo


@given(image=images, size=st.integers(1, 64), pct=st.floats(0.3, 1.0), name=st.sampled_from(["bilinear", "bicubic"]))
@settings(max_examples=60, deadline=None)
def test_center_crop_is_torchvisions(image, size, pct, name):
    transform = CenterCrop(size, pct, name)
    assert isinstance(transform, Transform)
    assert transform.draw(0, 0, np.arange(1)) is None
    content = transform.on_host([image], None)
    assert (content.shape, content.dtype) == ((1, size, size, 3), torch.uint8)
    mode = transforms.InterpolationMode(name)
    theirs = F.center_crop(F.resize(image, round(size / pct), mode), [size, size])
    np.testing.assert_array_equal(content[0].numpy(), np.asarray(theirs))
    expected = F.normalize(F.to_tensor(theirs), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(transform.on_device(content)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "transform", [MultiView(views.MOCO_V2_VIEWS, 16), MultiView(views.BYOL_VIEWS, 16, "device"), CenterCrop(16)]
)
def test_an_empty_batch_is_an_empty_batch(transform):
    content = transform.on_host([], transform.draw(0, 0, np.arange(0)))
    assert all(len(tensor) == 0 for tensor in tensors(transform.on_device(content)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiView(views.MOCO_V2_VIEWS, 0), "size is 0"),
        (lambda: MultiView((), 32), "policies is empty"),
        (lambda: MultiView(views.MOCO_V2_VIEWS, 32, engine="numpy"), "engine is 'numpy'"),
        (lambda: CenterCrop(0), "size is 0"),
        (lambda: CenterCrop(32, 1.2), r"crop_pct is 1\.2"),
        (lambda: CenterCrop(32, interpolation="nearest"), "interpolation is 'nearest'.*bilinear, bicubic"),
    ],
)
def test_a_transform_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
