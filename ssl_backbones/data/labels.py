"""Labels as numbers or names, the classes that they stand for, and images with other labels than their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from ssl_backbones.checks import few
from ssl_backbones.data.images import Images, ImageSourceError

LABEL_NAMES = ("label", "labels", "class", "target", "category", "cls", "fine_label")
"""Names of what holds labels: the column of a table, or the suffix of a file in a shard."""
MOST_CLASSES = 1_000_000


def labels_by_name(texts: Sequence[str | None]) -> tuple[np.ndarray | None, list[str]]:
    """Labels (N,) and sorted class names of images whose classes are named; -1 where one is missing, None where all."""
    names = sorted({text for text in texts if text is not None})
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([-1 if text is None else number[text] for text in texts], np.int64)
    return (labels, names) if names else (None, [])


def labels_by_number(labels: np.ndarray, names: Sequence[str] | None = None) -> tuple[np.ndarray | None, list[str]]:
    """Labels (N,) and class names of images whose classes are numbered; None where all labels are -1, for missing.

    ImageSourceError for numbers that no classes have.
    """
    if not (labels != -1).any():
        return None, []
    if labels.max() >= MOST_CLASSES:
        raise ImageSourceError(
            f"labels go up to {labels.max()}, and are no class numbers from 0 to {MOST_CLASSES - 1}: "
            "give the column another name, and it is left alone"
        )
    return labels, list(names) if names else [str(label) for label in range(int(labels.max()) + 1)]


def labels_as_written(texts: Sequence[str]) -> tuple[np.ndarray | None, list[str]]:
    """Labels (N,) and class names of what label files say: numbers where all are numbers, else names."""
    if all(text.isdecimal() and text.isascii() and len(text) < 10 for text in texts):
        return labels_by_number(np.array([int(text) for text in texts], np.int64))
    return labels_by_name(texts)


def relabelled(images: Images, classes: Sequence[str]) -> Images:
    """The same images, their labels numbered as in `classes`; ImageSourceError for a class that is not among them."""
    if images.labels is None or list(images.classes) == list(classes):
        return images
    number = {name: label for label, name in enumerate(classes)}
    for label, name in enumerate(images.classes):
        if name not in number and (images.labels == label).any():
            raise ImageSourceError(
                f"the class {name!r} of the images to compare with is not one of those trained on "
                f"({few(classes, 10)}): leave its images out"
            )
    table = np.array([number.get(name, -1) for name in images.classes], np.int64)
    known = (images.labels >= 0) & (images.labels < len(table))
    return with_labels(images, np.where(known, table[np.where(known, images.labels, 0)], images.labels), list(classes))


def unlabelled(images: Images) -> Images:
    """The same images under the same fingerprints, without their labels."""
    return with_labels(images, None, [])


def with_labels(images: Images, labels: np.ndarray | None, classes: list[str]) -> Images:
    """The same images with other labels (N,), under the fingerprints of those that their source has."""
    same = copy.copy(images)
    same.fingerprint, same.fingerprint_by_sizes = images.fingerprint, images.fingerprint_by_sizes
    same.labels, same.classes = labels, classes
    return same
