"""Checks of the data before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl_backbones.data.images import Images, ImageSourceError


def require_labels(images: Images, why: str) -> np.ndarray:
    """The labels (N,), each of them one of at least two classes; `why` begins the error's sentence.

    ImageSourceError where labels are missing or of one class.
    """
    if images.labels is None:
        raise ImageSourceError(
            f"{why} needs labels, and these {len(images)} images have none: put each class into a folder of its own, "
            "or give parquet files with a column 'label'"
        )
    wrong = np.flatnonzero((images.labels < 0) | (images.labels >= len(images.classes)))
    if len(wrong):
        first = int(wrong[0])
        label = int(images.labels[first])
        has = "missing" if label == -1 else f"{label}, which is not one of 0 to {len(images.classes) - 1}"
        raise ImageSourceError(
            f"{why} needs a label for every image, and that of {images.keys[first]!r} is {has} "
            f"({len(wrong)} of {len(images)} images are wrong): label them or leave them out"
        )
    if len(images.classes) < 2:
        raise ImageSourceError(f"{why} needs at least two classes, and the only one is {images.classes[0]!r}: add some")
    return images.labels


def check_apart(out: Path, *sources: Images | None) -> None:
    """ImageSourceError for an output folder in a folder of images, whose next opening would count what is written."""
    for images in sources:
        if images is not None and images.takes_in(out):
            raise ImageSourceError(
                f"{str(out)!r} lies in the folder of images {str(images.place)!r}, which would take in what is "
                "written: name a folder outside of it with --out, and move what it holds already"
            )


def require_pyarrow() -> None:
    """ImageSourceError where parquet is to be read and pyarrow is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImageSourceError("pyarrow is not installed: pip install 'ssl-backbones[train]'") from error


def require_batch(images: Images, batch_size: int, ways_out: str = "") -> None:
    """ImageSourceError, with the ways out, where the images do not fill one batch."""
    if len(images) < batch_size:
        ways_out = ways_out or f"set the batch size to at most {len(images)}, or add images"
        raise ImageSourceError(f"{len(images)} images are fewer than the batch of {batch_size}: {ways_out}")
