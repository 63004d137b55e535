"""The images that a command is given, opened as its options ask: to learn from, and to ask about."""

from __future__ import annotations

import copy

from ssl_backbones.data.images import Images

SHOWN = 8
"""Names of classes that a sentence lists, at most."""


def unlabelled(images: Images) -> Images:
    """The same images under the same fingerprints, without their labels."""
    same = copy.copy(images)
    same.fingerprint, same.fingerprint_by_sizes = images.fingerprint, images.fingerprint_by_sizes
    same.labels, same.classes = None, []
    return same


def classes_sentence(images: Images) -> str:
    """The sentence on the classes that images were opened with, and on how to leave them out; empty without classes."""
    if images.labels is None:
        return ""
    count, whence = len(images.classes), f"from the {images.labels_from}" if images.labels_from else "named"
    names = ", ".join(map(str, images.classes[:SHOWN])) + (f" and {count - SHOWN} more" if count > SHOWN else "")
    return f"{count} classes, {whence} {names}: --labels none to leave them out."
