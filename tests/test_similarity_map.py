"""Similarity maps: an image, or a place of one, found again in another."""

from __future__ import annotations

import pytest
import torch
from test_grad_cam import random_images, small
from torch.nn import functional as F

from ssl_backbones.visualizers import similarity_map


def test_a_place_is_found_again_in_a_shifted_copy() -> None:
    model, images = small(), random_images(2, 48)
    found = similarity_map(model, images, images, point=(0.55, 0.3))
    assert found.shape == (2, 48, 48)
    for one in found:
        row, column = divmod(int(one.argmax()), 48)
        assert abs(row - 0.55 * 48) <= 4
        assert abs(column - 0.3 * 48) <= 4
        assert one.max() > 0.8


def test_the_whole_of_one_image_is_asked_of_all() -> None:
    model, images, other = small(), random_images(3), random_images(1, 40, seed=5)
    features = model.forward_features(images).detach()
    whole = model(other).detach()[0]
    cosines = F.cosine_similarity(features, whole[None, :, None, None]).clamp(0, 1)
    expected = F.interpolate(cosines[:, None], size=(24, 24), mode="bilinear")[:, 0]
    torch.testing.assert_close(similarity_map(model, images, other), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_in_a_corner_has_no_map(value: float) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))  # which looks no further than a pixel
    images = torch.randn(2, 3, 8, 8)
    images[1, :, 0, 0] = value
    maps = similarity_map(network, images, images[:1], layer="0")
    assert maps[1].isnan().all()
    assert maps[0].isfinite().all()


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="there are 2 others for 3 images: give one, or one for each"):
        similarity_map(small(), random_images(3), random_images(2))
    with pytest.raises(ValueError, match=r"point is \(2, 0\): give height and width as shares"):
        similarity_map(small(), random_images(1), random_images(1), point=(2, 0))
