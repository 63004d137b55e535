"""The views of published recipes, number by number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssl_backbones import views
from ssl_backbones.views import BYOL_VIEWS, LEWEL_B_VIEWS, MOCO_V2_VIEWS, Policy

MOCO = Policy(
    area=(0.2, 1.0),
    ratio=(3 / 4, 4 / 3),
    interpolation="bilinear",
    flip_p=0.5,
    flip_last=True,
    jitter_p=0.8,
    jitter=(0.4, 0.4, 0.4, 0.1),
    grey_p=0.2,
    blur_p=0.5,
    sigma=(0.1, 2.0),
    solarize_p=0.0,
    threshold=128,
)
LEWEL_FIRST = replace(MOCO, flip_last=False, jitter=(0.4, 0.4, 0.2, 0.1), blur_p=1.0)
LEWEL_SECOND = replace(LEWEL_FIRST, blur_p=0.1, solarize_p=0.2)


def test_the_published_tables():
    assert MOCO_V2_VIEWS == (MOCO, MOCO)
    assert LEWEL_B_VIEWS == (LEWEL_FIRST, LEWEL_SECOND)
    original = {"area": (0.08, 1.0), "interpolation": "bicubic"}
    assert (replace(LEWEL_FIRST, **original), replace(LEWEL_SECOND, **original)) == BYOL_VIEWS


@pytest.mark.parametrize("name", ["MOCO_V2", "LEWEL_B", "BYOL"])
def test_small_images_get_the_same_without_blur(name):
    small, full = getattr(views, f"{name}_SMALL_VIEWS"), getattr(views, f"{name}_VIEWS")
    assert small == tuple(replace(policy, blur_p=0.0) for policy in full)
