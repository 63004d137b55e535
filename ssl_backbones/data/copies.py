"""Copies of training images among the images to ask about, found by their bytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from ssl_backbones.data.images import Images

LOOKED_AT = 1000
"""Images to ask about that are looked for among those to learn from, at most, evenly spread."""
SHOWN = 3


def copies_among(asked: Images, images: Images) -> tuple[list[int], int]:
    """The rows of images to ask about that are bit for bit one of those to learn from, and how many were looked at.

    Only images of equal size in bytes are read. Images whose bytes are not to be had, as those of a cache, are none.
    """
    sizes, known = asked.sizes, images.sizes
    if sizes is None or known is None:
        return [], 0
    rows = np.unique(np.linspace(0, len(asked) - 1, min(LOOKED_AT, len(asked)), dtype=np.int64))
    of_size: dict[int, list[int]] = defaultdict(list)
    for position in np.flatnonzero(np.isin(known, sizes[rows][sizes[rows] > 0])):
        of_size[int(known[position])].append(int(position))
    digests: dict[int, bytes | None] = {}
    found = []
    for row in map(int, rows):
        candidates = of_size.get(int(sizes[row]), [])
        own = digest(asked, row) if candidates else None
        for at in candidates:
            if at not in digests:
                digests[at] = digest(images, at)
        if own is not None and any(digests[at] == own for at in candidates):
            found.append(row)
    return found, len(rows)


def digest(images: Images, row: int) -> bytes | None:
    """The sha256 of an image as it is encoded; None where its bytes are not to be had."""
    content = images.raw(row)
    return None if content is None else hashlib.sha256(content).digest()


def copies_sentence(asked: Images | None, images: Images) -> str:
    """The sentence on images to ask about that were learnt from; empty where there are none, or nobody is asked."""
    if asked is None:
        return ""
    found, looked_at = copies_among(asked, images)
    if not found:
        return ""
    names = ", ".join(repr(asked.keys[row]) for row in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    return (
        f"warning: {len(found)} of the {looked_at} validation images looked at are copies of training images, bit for "
        f"bit ({names}): accuracies are flattered by them; take them out of one of the two."
    )
