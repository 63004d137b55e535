"""Mine the pairs that FLAGS trains on.

Examples:
    ssl-backbones mine-pairs runs/moco --data photos --out pairs.parquet --picture pairs.png

For every image, the two images of its class that are nearest by a layer's features, and the two in the middle of the
list. MODEL is a registered name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import ssl_backbones
from ssl_backbones.checks import check_at_least
from ssl_backbones.data import Images, open_images, require_labels
from ssl_backbones.data.decode import MAX_PIXELS, DecodePolicy
from ssl_backbones.data.subset import Selection
from ssl_backbones.evaluate.features import Extraction, features_of
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.mining import Mined, Pairs, mine
from ssl_backbones.mining.neighbours import DISJOINT_FROM, EXACT_UP_TO, SAMPLE
from ssl_backbones.mining.pairs import check_place
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.typed.words import Positional
from ssl_backbones.visualizers import grid

TITLES = ("image", "global 1", "global 2", "local 1", "local 2")
SHOWN, SIDE = 12, 96
"""Images in the picture, and their longer side in pixels."""


@dataclass(frozen=True)
class Options:
    """The model, the images, and how they are compared."""

    model: Positional[str]
    """A registered name, hf-hub:org/name, or the folder of a run."""
    data: str
    """A folder with a folder for each class, parquet files, or a Hub dataset id."""
    out: Path
    """The file to write, such as pairs.parquet."""
    classes: str = ""
    """A file that names the classes to mine in, one on a line, as for pretrain; empty for all."""
    hold_out: int = 0
    """Images of every class that get no pairs and are nobody's: those that pretrain --hold_out leaves out."""
    picture: Path | None = None
    """A picture to draw of twelve images at even steps through the data, each beside its pairs, such as pairs.png."""
    layer: str = "layer3"
    """A layer as timm names it; its mean over positions is compared."""
    size: int | None = None
    """Side of the middle crop, in pixels; None for what the model's description says."""
    random: bool = False
    """Random weights instead of the model's, to try things out."""
    overwrite: bool = False
    """Replace files that exist."""
    exact_up_to: int = EXACT_UP_TO
    """Images of a class up to which its middle is found exactly."""
    sample: int = SAMPLE
    """Images in place of a larger class."""
    max_pixels: int = MAX_PIXELS
    """Pixels of an image above which it is left out as unreadable."""
    seed: int = 0
    """Of the samples, and of random weights."""
    batch_size: int = 256
    """Images embedded at once."""
    workers: int | None = None
    """Processes that read images; None for what the machine has cores for."""

    def __post_init__(self) -> None:
        check_at_least(self, size=1, exact_up_to=1, sample=DISJOINT_FROM, seed=0, max_pixels=1, batch_size=1, workers=0)
        check_at_least(self, hold_out=0)

    def open(self) -> Images:
        """The images to mine."""
        images = open_images(self.data, DecodePolicy(self.max_pixels))
        return Selection(self.classes, self.hold_out).of(images, None)[0]


def run(options: Options) -> None:
    """Mine, draw, and say what was done."""
    if options.picture:
        check_place(options.picture, options.overwrite)
    pairs = mine_pairs(options)
    print(summary(pairs, options.out))
    if options.picture:
        drawn(options.open(), pairs).save(options.picture)
        print(f"{options.picture} shows {SHOWN} of them")


def mine_pairs(options: Options) -> Pairs:
    """The pairs of the data, left in the file that is asked for."""
    check_place(options.out, options.overwrite)
    images = options.open()
    labels = require_labels(images, "mining pairs")
    model = open_model(options.model, size=options.size, layer=options.layer, random=options.random, seed=options.seed)
    how = Extraction(batch_size=options.batch_size, workers=reading_workers(options.workers), seed=options.seed)
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
    """Notes for a reader of the pairs, as JSON."""
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


def drawn(images: Images, pairs: Pairs) -> Image.Image:
    """A row for each of some images: itself, its global pair (the nearest) and its local pair (the list's middle)."""
    assert images.labels is not None  # pairs are mined within classes
    shown = np.linspace(0, len(images) - 1, min(SHOWN, len(images)), dtype=int)
    rows = [[tile(images[int(row)]) for row in (index, *pairs.rows[index])] for index in shown]
    return grid(rows, titles=TITLES, row_labels=[str(images.classes[images.labels[index]]) for index in shown])


def tile(image: Image.Image) -> Image.Image:
    """An image whose longer side is SIDE pixels."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def summary(pairs: Pairs, out: Path) -> str:
    """A summary in words."""
    sampled: dict[str, float] = pairs.about["sampled_classes"]
    middle = "exact" if not sampled else f"sampled in {len(sampled)} classes (rank +- {max(sampled.values()):.1%})"
    return (
        f"{out} holds the pairs of {len(pairs.rows)} images by {pairs.about['layer']} of {pairs.about['model']}, "
        f"their middle ranks {middle}; train on them with --method.pairs {out}"
    )
