"""A frozen teacher in a branch of BYOL, MoCo v2, LEWEL_B and LEWEL_M (Duval et al., 2023. https://arxiv.org/abs/2301.09451).

Teachers, images and optimiser are those of this project's distillation, heads those of its small networks.
"""

from __future__ import annotations

from typing import Any

from ssl_backbones.methods.rob import Loss, RoBConfig
from ssl_backbones.models.teacher_branch import BESIDE
from ssl_backbones.recipes.distilled import CASES, OPTIMIZER, TEACHERS, taught
from ssl_backbones.recipes.own import ARCHS, aligned_heads, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.views import DISTILLED_KEPT_VIEW, LEWEL_B_SMALL_VIEWS

KEPT: dict[str, Any] = {"kept": BESIDE, "views": (DISTILLED_KEPT_VIEW, DISTILLED_KEPT_VIEW)}
GRID = 3
"""Cells of the teacher's map on a side, at least: EfficientNet-Lite0 makes one of 32 px."""
CHOICES: tuple[tuple[Loss, str], ...] = (
    ("byol", "dinov2"),
    ("byol", "lite0"),
    ("moco_v2", "lite0"),
    ("lewel_b", "lite0"),
    ("lewel_m", "lite0"),
)


def rob(arch: str, data: str, size: int, epochs: int, loss: Loss, teacher: str) -> Recipe:
    """A network on some images, by one loss: of kept features, or of every view where maps are needed."""
    aligned = loss in ("lewel_b", "lewel_m")
    shown: dict[str, Any] = {"teacher_size": max(32 * GRID, 2 * size), "views": LEWEL_B_SMALL_VIEWS, "groups": 8}
    chosen = {**TEACHERS[teacher], **(shown if aligned else KEPT)}
    method = RoBConfig(loss=loss, queue_size=4096, **aligned_heads(arch), **chosen)
    return taught(arch, data, size, epochs, f"{loss}_{teacher}", method, "A frozen teacher in a branch")


def of_own(arch: str) -> Recipe:
    """The recipe of a network for one's own images."""
    return own(arch, RoBConfig(loss="byol", **KEPT, **aligned_heads(arch)), OPTIMIZER)


RECIPES = (*(rob(*case, *choice) for case in CASES for choice in CHOICES), *map(of_own, ARCHS))
