"""Look at mined pairs: python training/draw_pairs.py pairs.parquet --data ... --out pairs.png

Each row of the picture is a photo, its global pair (the nearest of its class) and its local pair (the middle of the
list). Photos are taken at even steps through the data, so that every class appears where the data mix them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_backbones.data import Images, open_images
from ssl_backbones.mining import Pairs
from ssl_backbones.mining.pairs import check_free
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.arguments import Parser
from ssl_backbones.visualizers import grid

TITLES = ("photo", "global 1", "global 2", "local 1", "local 2")


@dataclass(frozen=True)
class Options:
    """What is asked for on the command line."""

    pairs: Path
    data: str
    out: Path
    count: int
    side: int
    overwrite: bool


def draw_pairs(options: Options) -> Image.Image:
    """The picture, left in the file that is asked for."""
    check_free(options.out, options.overwrite)
    images = open_images(options.data)
    pairs = Pairs.read(options.pairs, images)
    shown = np.linspace(0, len(images) - 1, min(options.count, len(images)), dtype=int)
    rows = [[tile(images, row, options.side) for row in (index, *pairs.rows[index])] for index in shown]
    picture = grid(rows, titles=TITLES, row_labels=[class_of(images, index) for index in shown])
    picture.save(options.out)
    return picture


def tile(images: Images, row: int, side: int) -> Image.Image:
    """A photo whose longer side is `side` pixels."""
    photo = images[int(row)]
    scale = side / max(photo.size)
    width, height = (max(1, round(scale * length)) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def class_of(images: Images, row: int) -> str:
    """The name of a photo's class."""
    assert images.labels is not None  # pairs are mined within classes
    return str(images.classes[images.labels[row]])


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options of a command line. What cannot be read ends the process: one sentence, exit code 2."""
    parser = Parser("draw_pairs.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, metavar="PAIRS", help="the file that mine_pairs.py wrote")
    add("--data", required=True, help="the photos that the pairs were mined from")
    add("--out", required=True, type=Path, help="the picture to write, such as pairs.png")
    add("--count", type=int, default=12, choices=range(1, 101), metavar="N", help="photos shown, 1 to 100 (12)")
    add(
        "--side", type=int, default=96, choices=range(16, 513), metavar="PX", help="longer side of each, 16 to 512 (96)"
    )
    add("--overwrite", action="store_true", help="replace the picture if it exists")
    return Options(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; what is refused ends in one sentence and exit code 2."""
    options = parse(argv)
    try:
        picture = draw_pairs(options)
    except Refusal as error:
        print(f"draw_pairs.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{options.out}: {picture.width} x {picture.height} pixels")


if __name__ == "__main__":
    main()
