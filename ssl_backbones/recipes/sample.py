"""The sample recipe, which runs without arguments: LEWEL_M in minutes, on the images that ship with the repository."""

from __future__ import annotations

from pathlib import Path

from ssl_backbones.methods.lewel_m import LewelMConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.views import MOCO_V2_SMALL_VIEWS

IMAGES = Path(__file__).parents[2] / "training" / "sample_photos"

SAMPLE = Recipe(
    name="sample",
    model="resnet8_lewel_m",
    method=LewelMConfig(
        hidden_dim=256,
        projection_dim=64,
        aligned_dim=64,
        queue_size=2048,
        momentum=0.99,
        bn_splits=4,
        views=MOCO_V2_SMALL_VIEWS,
    ),
    size=32,
    epochs=34,
    batch_size=128,
    optimizer=OptimizerConfig("sgd", 0.12, weight_decay=5e-4, exclude_norm_and_bias=True),
    schedule=ScheduleConfig(warmup_epochs=2, per="step"),
    monitoring=Monitoring(knn_every=10),
    data=str(IMAGES) if IMAGES.is_dir() else "",
    promise=Promise(
        paper="Small images (no paper)",
        table="sample",
        data="photos of garments, CC0, in training/sample_photos",
        epochs=34,
        hardware="2 CPU cores",
        hours=0.06,
        result="k-NN +6.0, +9.0 and +11.8 points over random weights with three seeds, 95% intervals of +-3.7 points "
        "(benchmarks/results/sample_seed*.json, 2026-11-29)",
    ),
)

RECIPES = (SAMPLE,)
