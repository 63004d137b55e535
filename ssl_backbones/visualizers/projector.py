"""Files for TensorBoard's projector (projector.tensorflow.org or the plugin), written without TensorBoard."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ssl_backbones.visualizers.neighbours import square

LARGEST = 8192
"""Pixels to the side of a sprite that browsers still show."""
BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def write_projector(
    folder: str | Path,
    features: Tensor,
    columns: Mapping[str, Sequence[str]],
    images: Sequence[Image.Image] = (),
    *,
    side: int = 48,
) -> None:
    """Write features (N, D) as vectors.tsv, what is known of each row as metadata.tsv, and photos as sprite.png.

    `columns` are titles and a word for each row. A configuration beside them lets the plugin find all three.
    """
    count = len(features)
    lengths = {title: len(words) for title, words in columns.items()} | ({"images": len(images)} if images else {})
    if features.ndim != 2 or not count or not columns or any(length != count for length in lengths.values()):
        raise ValueError(
            f"features are {tuple(features.shape)} and there are {lengths or 'no columns'}; give (N, D), at least one "
            "column, and N of each."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vectors = "".join("\t".join(f"{value:.7g}" for value in row) + "\n" for row in features.float().tolist())
    (folder / "vectors.tsv").write_text(vectors, encoding="utf-8")
    rows = [*zip(*columns.values(), strict=True)]
    table = [tuple(columns), *rows] if len(columns) > 1 else rows  # a single column has no title there
    lines = ("\t".join(cell(word) for word in row) + "\n" for row in table)
    (folder / "metadata.tsv").write_text("".join(lines), encoding="utf-8", newline="\n")
    place = {"tensorName": "features", "tensorPath": "vectors.tsv", "metadataPath": "metadata.tsv"}
    known: dict[str, object] = {**place, "tensorShape": list(features.shape)}
    if images:
        made = sprite(images, side)
        made.save(folder / "sprite.png", optimize=True)
        fitted = side_of(count, side)
        known["sprite"] = {"imagePath": "sprite.png", "singleImageDim": [fitted, fitted]}
    (folder / "projector_config.json").write_text(json.dumps({"embeddings": [known]}, indent=1), encoding="utf-8")


def sprite(images: Sequence[Image.Image], side: int) -> Image.Image:
    """The photos in rows of a square board, each side x side or as large as a sprite can have them."""
    side = side_of(len(images), side)
    across = math.ceil(math.sqrt(len(images)))
    board = Image.new("RGB", (across * side, across * side))
    for number, image in enumerate(images):
        board.paste(square(image, side), (number % across * side, number // across * side))
    return board


def side_of(count: int, side: int) -> int:
    """The side of each of so many photos in a sprite, no more than `side`; ValueError where none is left."""
    fitted = min(side, LARGEST // math.ceil(math.sqrt(count)))
    if fitted < 1:
        raise ValueError(f"{count} photos do not fit in a sprite of {LARGEST} pixels to the side; show fewer.")
    return fitted


def cell(word: str) -> str:
    """A word without what would end a cell or a line."""
    return BREAKS.sub(" ", word).strip() or "-"
