"""Some of the images of a source: those with labels, those of a list, or a few of every class.

A draw of a few of every class is nested, the smaller in the larger, and a function of the labels, the share and a seed
alone, so it is the same on every machine and in every run.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from ssl_backbones.checks import few
from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.data.subset import drawn_by_class
from ssl_backbones.files import regular
from ssl_backbones.refusal import reason


def labelled_rows(images: Images) -> np.ndarray:
    """The rows of images that have a label."""
    assert images.labels is not None
    return np.flatnonzero(np.asarray(images.labels) >= 0)


def stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The rows, in order, of a share of every class of the labels (N,), at least one of each.

    The seed draws one order for all shares, so that what a smaller share takes, a larger one takes too.
    """
    classes = drawn_by_class(labels, seed).values()
    return np.sort(np.concatenate([members[: max(1, round(share * len(members)))] for members in classes]))


def listed(images: Images, path: Path) -> np.ndarray:
    """The rows, in order, of the images that a file names, one on a line, by their keys or the last part of them.

    ImageSourceError names what is not there, or is there more than once.
    """
    names = read_names(path)
    keys = {key: row for row, key in enumerate(images.keys)}
    last = Counter(PurePosixPath(key).name for key in keys)
    by_last = {PurePosixPath(key).name: row for key, row in keys.items()}
    unknown = [name for name in names if name not in keys and name not in by_last]
    if unknown:
        raise ImageSourceError(
            f"{path} names {len(names)} images, and {len(unknown)} of them are not in the data "
            f"({few(unknown, spelled=repr)}): give the list of these data, whose names are like {images.keys[0]!r}"
        )
    twice = [name for name in names if name not in keys and last[name] > 1]
    if twice:
        raise ImageSourceError(
            f"{path} names {few(twice, spelled=repr)}, and the data have more than one image of that name: write their "
            f"whole names, like {images.keys[0]!r}"
        )
    return np.unique([keys[name] if name in keys else by_last[name] for name in names])


def read_names(path: Path) -> list[str]:
    """The lines of a file that are not empty; ImageSourceError where there are none."""
    try:
        lines = regular(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise ImageSourceError(
            f"{path} cannot be read ({reason(error)}): give --subset a file with an image's name on each line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ImageSourceError(f"{path} names no image: give --subset a file with an image's name on each line")
    return names
