"""Measure what leads from object to object: DenseCL's correspondences, PixPro's and LEWEL's maps.

Examples:
    ssl-backbones correspond runs/densecl runs/pixpro runs/lewel_b --data voc.parquet --out results/pairs --with_random

Two crops are drawn of each image with a mask. A point or a map on an object in the first leads to the second by the
features, by a run's own embeddings or maps, and by the place; the share of it that lies on the same object is held
against a choice at random. MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

from ssl_backbones.evaluate.correspondence import Options, correspond, table


def run(options: Options) -> None:
    """Print the measures of every alignment, in a table."""
    print(table(correspond(options)))
