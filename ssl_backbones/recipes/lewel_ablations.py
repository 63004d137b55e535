"""LEWEL's ablations: those rows of Tables 5, 6 and 7 and points of Fig. 3 that are not among its main recipes.

Huang et al., CVPR 2022, https://arxiv.org/abs/2203.14898. All on ImageNet-100, 240 epochs, each one switch away from
resnet50_lewel_m.in100_240ep, resnet50_lewel_b.in100_240ep or resnet50_moco_v2.in100_240ep, which are rows as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl_backbones.recipes import lewel, moco_v2
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Promise
from ssl_backbones.registry.tables import stated

BASES = {recipe.name: recipe for recipe in (*lewel.RECIPES, *moco_v2.RECIPES) if recipe.promise.data == lewel.IN100}
MOCO = "That the table is MoCo-based is inferred."
BYOL = "LARS and its exclusions are the code's, the batch and the doubled rate the paper's."
ABOVE = "The figure is as recorded, above the one that the table prints in bold (83.3)."
CURVE = (
    "The figure is not recorded: that it is MoCo-based, and which values it shows, is inferred; those here are this "
    "project's."
)


def ablation(method: str, suffix: str, table: str, not_stated: str, **choices: Any) -> Recipe:
    """A method's ImageNet-100 recipe with some of its choices altered, with the paper's top-1 and mIoU where known."""
    base = BASES[f"resnet50_{method}.in100_240ep"]
    name = f"{base.name}_{suffix}"
    found = stated(name, "top-1, linear, ImageNet-100", "mIoU on VOC")
    return replace(
        base,
        name=name,
        method=replace(base.method, **choices),
        promise=Promise(
            paper=lewel.PAPER,
            table=table,
            data=lewel.IN100,
            epochs=base.epochs,
            hardware="not stated",
            hours=None,
            result=f"{f'{found} (paper)' if found else 'no figure recorded'}; here: not measured",
            not_stated=not_stated,
        ),
    )


TABLE_5 = (
    ablation("lewel_m", "aligned_only", "Table 5, aligned loss alone", MOCO, aligned_weight=1.0),
    ablation("lewel_m", "uncoupled", "Table 5, both losses, separate heads", MOCO, coupled_head=False),
)

TABLE_6 = (
    ablation(
        "lewel_m",
        "extra_head",
        "Table 6, MoCo with an extra head",
        f"{MOCO} The extra head is read as the semantic one over the mean of the feature map, its negatives as those "
        "of the aligned loss.",
        alignment="uniform",
        coupled_head=False,
        groups=128,
    ),
    ablation(
        "lewel_m",
        "random",
        "Table 6, random alignment",
        f"{MOCO} How the maps are drawn is not given: here a softmax of normal noise, drawn anew at each step.",
        alignment="random",
        coupled_head=False,
    ),
    ablation(
        "lewel_m",
        "shared_head",
        "Table 6, no extra head",
        f"{MOCO} The row without an extra head is read as one head for global and aligned embeddings.",
        semantic_head="shared",
    ),
    *(
        ablation("moco_v2", f"dim{dim}", f"Table 6, MoCo with {dim} dimensions", MOCO, projection_dim=dim)
        for dim in (256, 512)
    ),
)

TABLE_7 = (
    *(
        ablation("lewel_b", f"c256_h{groups}", f"Table 7, c = 256 and h = {groups}", BYOL, groups=groups)
        for groups in (1, 2, 8, 16)
    ),
    *(
        ablation(
            "lewel_b",
            f"c{width}_h4",
            f"Table 7, c = {width} and h = 4",
            f"{BYOL} {ABOVE}",
            projection_dim=width,
            aligned_dim=width,
        )
        for width in (512, 128, 64)
    ),
)

FIG_3 = (
    *(
        ablation(
            "lewel_m",
            f"share{round(100 * share)}",
            f"Fig. 3a, aligned share {share:g}",
            CURVE,
            aligned_weight=share,
        )
        for share in (0.0, 0.25, 0.75)
    ),
    *(
        ablation("lewel_m", f"d{width}", f"Fig. 3b, {width} aligned dimensions", CURVE, aligned_dim=width)
        for width in (64, 256, 512)
    ),
)

RECIPES = TABLE_5 + TABLE_6 + TABLE_7 + FIG_3
