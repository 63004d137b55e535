"""Copies of images in a source, and of training images among those to ask about, found by their digests."""

from __future__ import annotations

import numpy as np

from ssl_backbones.checks import few
from ssl_backbones.data.digests import EMPTY, MISSING, as_items, as_rows
from ssl_backbones.data.images import Images
from ssl_backbones.distributed import rank, say


def say_copies(asked: Images | None, images: Images) -> None:
    """Warn where images to ask about are, some or all, those to learn from."""
    if rank() == 0 and (warning := copies_sentence(asked, images)):
        say(warning)


def copies_among(asked: Images, images: Images) -> list[int]:
    """The rows of images to ask about that are, by their digests, one of those to learn from; no empty or missing one.

    Images whose digests nobody knows, as those of a cache that 0.1.0.dev0 made, are none.
    """
    if asked.digests is None or images.digests is None:
        return []
    own = as_items(asked.digests)
    found = np.isin(own, as_items(images.digests)) & ~np.isin(own, as_items(as_rows([MISSING, EMPTY])))
    return [int(row) for row in np.flatnonzero(found)]


def without_copies(images: Images, rows: np.ndarray) -> np.ndarray:
    """Those of some rows (N,) whose image is, by its digest, at no earlier one of them; empty and missing ones stay.

    All of them where nobody knows digests.
    """
    if images.digests is None:
        return rows
    items = as_items(images.digests[rows])
    first = np.zeros(len(rows), bool)
    first[np.unique(items, return_index=True)[1]] = True
    return rows[first | np.isin(items, as_items(as_rows([MISSING, EMPTY])))]


def copies_sentence(asked: Images | None, images: Images) -> str:
    """The sentence on images to ask about that were learnt from; empty where there are none, or nobody is asked."""
    if asked is None:
        return ""
    found = copies_among(asked, images)
    if not found:
        return ""
    if len(found) == len(asked):
        return (
            f"warning: all {len(asked)} validation images are training images, so the numbers mean nothing: name "
            "others with --validation."
        )
    names = few(found, spelled=lambda row: repr(asked.keys[row]))
    return (
        f"warning: {len(found)} of the {len(asked)} validation images are copies of training images "
        f"({names}), so the numbers are too high: take them out of one of the two."
    )
