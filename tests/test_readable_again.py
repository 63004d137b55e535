"""Images that were noted as unreadable are tried again, so that the way out that their error names works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from cache_sources import kept, small_blocks
from small_methods import SMALL

from ssl_backbones.data import DecodePolicy, Images, TooManyUnreadableError, open_images
from ssl_backbones.evaluate import features as features_module
from ssl_backbones.evaluate.features import Extraction, features_of
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.models import kept_features
from ssl_backbones.models.kept_features import keep_features
from ssl_backbones.models.teacher import Teacher
from ssl_backbones.train.cache import ImageCacheError, cached

__all__ = ["small_blocks"]

LARGE = (2, 5, 6)
"""The images that are too large at first, of ten."""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(features_module, "BLOCK", 4)
    monkeypatch.setattr(kept_features, "BLOCK", 4)
    (tmp_path / "photos").mkdir()
    for at in range(10):
        side = 64 if at in LARGE else 32
        (tmp_path / "photos" / f"{at}.jpg").write_bytes(hostile.jpeg(side, side, seed=at))
    return tmp_path / "photos"


def cache_of(side: int) -> Callable[[Images, Path, float], np.ndarray]:
    def made(images: Images, folder: Path, share: float) -> np.ndarray:
        found = cached(images, "photos", kept(folder, side=side, unreadable_share=share))
        return np.concatenate([np.asarray(found[at]).ravel() for at in range(len(found))])

    return made


def features(images: Images, folder: Path, share: float) -> np.ndarray:
    model = open_model("resnet8", torch.device("cpu"), size=16, random=True)
    found = features_of(model, images, Extraction(folder, unreadable_share=share))
    assert found.readable.all()
    return found.rows.numpy()


def of_a_teacher(images: Images, folder: Path, share: float) -> np.ndarray:
    found = keep_features(Teacher(SMALL["teacher"]), 32, images, folder)[np.arange(10)]
    if share == 0 and not found.any(axis=1).all():
        raise TooManyUnreadableError
    return found


STORES = {
    "a cache of pixels": cache_of(0),
    "a cache of JPEG": cache_of(20),
    "features": features,
    "a teacher's features": of_a_teacher,
}


@pytest.mark.parametrize("store", STORES)
def test_the_way_out_that_an_unreadable_image_names_works(store: str, photos: Path, tmp_path: Path) -> None:
    make = STORES[store]
    with pytest.raises(TooManyUnreadableError):
        make(open_images(photos, DecodePolicy(max_pixels=2000)), tmp_path / "kept", 0)
    images = open_images(photos)
    again = make(images, tmp_path / "kept", 0)
    np.testing.assert_array_equal(again, make(images, tmp_path / "fresh", 0))


@pytest.mark.parametrize("side", [0, 20])
def test_a_whole_cache_without_an_image_that_can_be_read_now_is_refused(
    side: int, photos: Path, tmp_path: Path
) -> None:
    how = kept(tmp_path, side=side)
    cached(open_images(photos, DecodePolicy(max_pixels=2000)), "photos", how)
    with pytest.raises(ImageCacheError, match=r"^'2\.jpg' can be read now, and could not be .*: delete .*anew, or"):
        cached(open_images(photos), "photos", how)
