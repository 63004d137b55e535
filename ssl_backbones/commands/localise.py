"""Measure where maps look: how they meet the objects that people marked in images.

Examples:
    ssl-backbones localise runs/mine resnet50_swav.in1k_800ep --data voc.parquet --out results/where --with_random

Grad-CAM, feature norm, principal component and, for a run's folder, alignment maps, beside a uniform map and one that
knows the centre alone. MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

from ssl_backbones.evaluate.localise import Options, localise, table


def run(options: Options) -> None:
    """Print the measures of every map, in a table."""
    print(table(localise(options)))
