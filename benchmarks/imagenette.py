"""Each method in minutes of one core, its epochs chosen by trial: ResNet-8 on Imagenette at 32 px.

    python benchmarks/imagenette.py --data imagenette_96

What is finished is not done again, as in `ssl-backbones compare`, which this is with rows and columns of its own.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ssl_backbones.commands.compare import COLUMNS, carry_out
from ssl_backbones.evaluate.comparison.comparison import Comparison, Row

RECIPES = {
    "RotNet": "resnet8_rotnet.imagenette32_16ep",
    "Patch RotNet, ratio .3": "resnet8_patch_rotnet.imagenette32_8ep_r30",
    "Patch RotNet, ratio .4": "resnet8_patch_rotnet.imagenette32_8ep_r40",
    "Patch RotNet, ratio .5": "resnet8_patch_rotnet.imagenette32_8ep_r50",
    "Patch RelNet, ratio .3": "resnet8_patch_relnet.imagenette32_8ep_r30",
    "Patch RelNet, ratio .4": "resnet8_patch_relnet.imagenette32_8ep_r40",
    "Patch RelNet, ratio .5": "resnet8_patch_relnet.imagenette32_8ep_r50",
    "Deep InfoMax": "resnet8_deep_infomax.imagenette32_6ep",
    "DeepCluster": "resnet8_deepcluster.imagenette32_50ep",
    "MoCo v2": "resnet8_moco_v2.imagenette32_26ep",
    "LEWEL_M": "resnet8_lewel_m.imagenette32_20ep",
    "BYOL": "resnet8_byol.imagenette32_22ep",
    "LEWEL_B": "resnet8_lewel_b.imagenette32_15ep",
    "FLAGS, augmentation + global (labels)": "resnet8_flags.imagenette32_18ep_global",
    "FLAGS, augmentation + global + local (labels)": "resnet8_flags.imagenette32_13ep_global_local",
    "Supervised (labels)": "resnet8_supervised.imagenette32_56ep",
}


def comparison(data: str, out: Path, seeds: tuple[int, ...]) -> Comparison:
    """All rows and columns of the table."""
    return Comparison(
        title="ResNet-8 on Imagenette at 32 px, epochs chosen by trial",
        data=data,
        out=out,
        rows=(
            Row("Random weights", model="resnet8", random=True, size=32),
            *(Row(label, recipe=name) for label, name in RECIPES.items()),
        ),
        columns=tuple(replace(COLUMNS[name], words=("--workers", "0")) for name in ("knn", "logistic", "mlp")),
        seeds=seeds,
        words=("--precision", "bf16", "--layout", "channels_last", "--workers", "0"),
        pairs_from="MoCo v2",
        notes="Images have labels in the rows that say so; in all others labels are used by the evaluation alone.",
    )


def main() -> int:
    """Do what is not done yet, and print the table; 1 where some of it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Imagenette as a folder or parquet files")
    parser.add_argument("--out", type=Path, default=Path("runs/imagenette"), help="the folder for runs and the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of each row (0)")
    options = parser.parse_args()
    return carry_out(comparison(options.data, options.out, tuple(options.seeds)))


if __name__ == "__main__":
    sys.exit(main())
