"""Mine the pairs that FLAGS trains on.

Examples:
    ssl-backbones mine-pairs runs/moco --data photos --out pairs.parquet --picture pairs.png

For every image, the two images of its class that are nearest by a layer's features, and the two in the middle of the
list. MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run.
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
from ssl_backbones.data import Images, open_images, opened_once, require_labels
from ssl_backbones.data.digests import spread
from ssl_backbones.distributed import doing
from ssl_backbones.evaluate.features import features_of
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.options import FeatureOptions
from ssl_backbones.mining import Mined, Pairs, mine
from ssl_backbones.mining.neighbours import DISJOINT_FROM, EXACT_UP_TO, SAMPLE
from ssl_backbones.outputs import check_output, together
from ssl_backbones.visualizers import grid
from ssl_backbones.visualizers.figures import save_image

TITLES = ("image", "global 1", "global 2", "local 1", "local 2")
SHOWN, SIDE = 12, 96
"""Images in the picture, and their longer side in pixels."""


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """The model, the images, and how they are compared."""

    out: Path
    """The file to write, such as pairs.parquet."""
    picture: Path | None = None
    """Draw twelve images, spread evenly over the data, beside their pairs into this file, such as pairs.png."""
    layer: str = "layer3"
    """Layer whose mean over positions is compared, by timm's name."""
    overwrite: bool = False
    """Replace files that exist."""
    exact_up_to: int = EXACT_UP_TO
    """Largest class, in images, whose middle is found exactly."""
    sample: int = SAMPLE
    """Images that are sampled from a larger class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, exact_up_to=1, sample=DISJOINT_FROM)

    def open(self) -> Images:
        """The images to mine."""
        images = opened_once(lambda: open_images(self.data, self.decoding), self.verify)
        return self.selection.of(images, None)[0]


def run(options: Options) -> None:
    """Mine, draw, and say what was done."""
    asked = [options.out, options.picture] if options.picture else [options.out]
    for path in asked:
        check_output(path, options.overwrite)
    with together(asked):
        pairs, readable = mine_pairs(options)
        if options.picture:
            save_image(drawn(options.open(), pairs, readable), options.picture)
    print(summary(pairs, options.out))
    if options.picture:
        print(f"{options.picture} shows {SHOWN} of them")


def mine_pairs(options: Options) -> tuple[Pairs, np.ndarray]:
    """The pairs of the data, left in the file that is asked for, and the rows (M,) of the images that can be read."""
    images = options.open()
    labels = require_labels(images, "mining pairs")
    model = options.open_model()
    found = features_of(model, images, options.extraction())
    whole = torch.from_numpy(np.flatnonzero(found.readable))
    with doing(f"Comparing {len(images)} images, class by class"):
        mined = mine(
            found.rows[whole],
            torch.tensor(labels)[whole],
            exact_up_to=options.exact_up_to,
            sample=options.sample,
            seed=options.seed,
        )
    rows = torch.arange(len(images))[:, None].repeat(1, mined.rows.shape[1])  # what cannot be read is its own partner
    rows[whole] = whole[mined.rows]
    pairs = Pairs(rows.numpy(), about(options, model, mined, images))
    pairs.write(options.out, images, overwrite=options.overwrite)
    return pairs, whole.numpy()


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


def drawn(images: Images, pairs: Pairs, readable: np.ndarray) -> Image.Image:
    """A row for each of some images: itself, its global pair (the nearest) and its local pair (the list's middle).

    They are some of those that can be read, by their rows (M,).
    """
    assert images.labels is not None  # pairs are mined within classes
    shown = readable[spread(len(readable), SHOWN)]
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
