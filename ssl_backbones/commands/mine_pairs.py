"""Mine the pairs that FLAGS trains on: python training/mine_pairs.py MODEL --data ... --out pairs.parquet

For every photo, the two photos of its class that are nearest by a layer's features, and the two in the middle of the
list. MODEL is a registered name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

import ssl_backbones
from ssl_backbones.data import Images, open_images, require_labels
from ssl_backbones.evaluate.features import Extraction, features_of
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.mining import Mined, Pairs, mine
from ssl_backbones.mining.neighbours import DISJOINT_FROM, EXACT_UP_TO, SAMPLE
from ssl_backbones.mining.pairs import check_free
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.arguments import Parser, at_least


@dataclass(frozen=True)
class Options:
    """What is asked for on the command line."""

    model: str
    data: str
    out: Path
    layer: str
    size: int | None
    random: bool
    overwrite: bool
    exact_up_to: int
    sample: int
    seed: int
    batch_size: int
    workers: int


def mine_pairs(options: Options) -> Pairs:
    """The pairs of the data, left in the file that is asked for."""
    check_free(options.out, options.overwrite)
    images = open_images(options.data)
    labels = require_labels(images, "mining pairs")
    model = open_model(options.model, size=options.size, layer=options.layer, random=options.random, seed=options.seed)
    how = Extraction(batch_size=options.batch_size, workers=options.workers, seed=options.seed)
    mined = mine(
        features_of(model, images, how).rows,
        torch.from_numpy(labels),
        exact_up_to=options.exact_up_to,
        sample=options.sample,
        seed=options.seed,
    )
    pairs = Pairs(mined.rows.numpy(), about(options, model, mined, images))
    pairs.write(options.out, images, overwrite=options.overwrite)
    return pairs


def about(options: Options, model: EvaluatedModel, mined: Mined, images: Images) -> dict[str, Any]:
    """What a reader of the pairs may want to know, as JSON can hold it."""
    return {
        "model": options.model,
        "pretrained": not options.random,
        "weights_sha256": model.weights_sha256,
        "layer": options.layer,
        "width": model.network.width,
        "size": model.crop.size,
        "seed": options.seed,
        "exact_up_to": max(options.exact_up_to, options.sample),
        "sample": options.sample,
        "sampled_classes": {images.classes[label]: error for label, error in mined.sampled.items()},
        "tiny_classes": [images.classes[label] for label in mined.tiny],
        "versions": {
            "ssl_backbones": ssl_backbones.__version__,
            "torch": str(torch.__version__),
            "timm": timm.__version__,
        },
    }


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options of a command line. What cannot be read ends the process: one sentence, exit code 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = Parser("mine_pairs.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a registered name, hf-hub:org/name, or the folder of a run")
    add("--data", required=True, help="a folder with a folder for each class, parquet files, or a Hub dataset id")
    add("--out", required=True, type=Path, help="the file to write, such as pairs.parquet")
    add("--layer", default="layer3", help="a layer as timm names it; its mean over positions is compared (layer3)")
    add("--size", type=at_least(1), help="side of the middle crop, in pixels (as the model's description says)")
    add("--random", action="store_true", help="random weights instead of the model's, to try things out")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add("--exact_up_to", type=at_least(1), default=EXACT_UP_TO, help=f"photos of a class ({EXACT_UP_TO})")
    add("--sample", type=at_least(DISJOINT_FROM), default=SAMPLE, help=f"photos in place of a larger class ({SAMPLE})")
    add("--seed", type=at_least(0), default=0, help="of the samples, and of random weights (0)")
    add("--batch_size", type=at_least(1), default=256, help="photos embedded at once (256)")
    add("--workers", type=at_least(0), default=min(8, cores - 1), help="processes that read photos")
    return Options(**vars(parser.parse_args(argv)))


def summary(pairs: Pairs, out: Path) -> str:
    """What was done, for a person."""
    sampled: dict[str, float] = pairs.about["sampled_classes"]
    middle = "exact" if not sampled else f"sampled in {len(sampled)} classes (rank +- {max(sampled.values()):.1%})"
    return (
        f"{out} holds the pairs of {len(pairs.rows)} photos by {pairs.about['layer']} of {pairs.about['model']}, "
        f"their middle ranks {middle}; train on them with --method.pairs {out}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; what is refused ends in one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = parse(argv)
    try:
        pairs = mine_pairs(options)
    except Refusal as error:
        print(f"mine_pairs.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(summary(pairs, options.out))


if __name__ == "__main__":
    main()
