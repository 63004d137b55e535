"""The labelled images that an evaluation trains on and tests on; those that do not fit together are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.checks import few
from ssl_backbones.data import (
    Images,
    ImageSourceError,
    open_images,
    opened_once,
    relabelled,
    say_copies,
    validation_of,
)
from ssl_backbones.data.copies import without_copies
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.data.subset import Selection
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.evaluate.features import Features

Look = Callable[[np.ndarray], Features]
"""The features of images that are wanted (N,) bool, and no row of another."""


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) and labels (N,) of the images that have both, and the account of the others."""

    rows: Tensor
    labels: Tensor
    unlabelled: int
    unreadable: tuple[str, ...]
    copies: int = 0
    """Labelled images that were left out as another one has their bytes."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def account(self) -> dict[str, Any]:
        """The number of images that count, and those that do not, for results.json."""
        told = {"images": len(self), "unlabelled": self.unlabelled, "unreadable": list(self.unreadable)}
        return told | ({"copies_left_out": self.copies} if self.copies else {})

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Features and labels on a device."""
        return self.rows.to(device), self.labels.to(device)


def labelled(look: Look, images: Images, source: str, once: bool = False) -> Labelled:
    """Features of a source's images that have a label and can be read; `look` computes them for the images it is asked
    for. With `once`, copies of an image are left out, which would name each other."""
    labels = labels_of(images, source, "an evaluation")
    rows = np.flatnonzero(labels >= 0)
    taken = first_decides(lambda: without_copies(images, rows)) if once else rows
    wanted = np.zeros(len(labels), bool)
    wanted[taken] = True
    features = look(wanted)
    kept = torch.from_numpy(np.flatnonzero(features.readable & wanted))
    if not len(kept):
        raise ImageSourceError(f"none of the {len(images)} images of {source} with a label can be read: mend them")
    if copies := len(rows) - len(taken):
        say(f"{copies} of the {len(rows)} labelled images of {source} are copies of others and left out.")
    return Labelled(
        features.rows, torch.tensor(labels)[kept].long(), int((labels < 0).sum()), features.unreadable, copies
    )


class Named(Protocol):
    """Options that name labelled images."""

    @property
    def data(self) -> str: ...
    @property
    def validation(self) -> str: ...
    @property
    def verify(self) -> bool: ...
    @property
    def decoding(self) -> DecodePolicy: ...
    @property
    def selection(self) -> Selection: ...


def open_labelled(named: Named, protocol: str) -> tuple[Images, Images | None, str]:
    """The images to learn from, those to answer about, if any, with the same numbers for the classes, and their source.

    Raises ImageSourceError, in a sentence that names the source, where labels are absent or do not fit.
    """
    data, held = named.data, named.selection.hold_out
    source = named.validation or (f"what is held out of {data}" if held else f"the split kept beside {data}")
    images = opened_once(lambda: open_images(data, named.decoding), named.verify)
    labels_of(images, data, protocol)
    asked = None if held else opened_once(lambda: open_validation(named, images, source), named.verify)
    images, asked = named.selection.of(images, asked)
    present = np.unique(known(labels_of(images, data, protocol)))
    if len(present) < 2:
        only = f"the only one is {images.classes[int(present[0])]!r}" if len(present) else "no image has a label"
        raise ImageSourceError(f"{protocol} needs images of at least two classes, and in {data} {only}: add some")
    if asked is None:
        return images, None, ""
    with naming(source):
        if len(known(labels_of(asked, source, protocol))) == 0:
            raise ImageSourceError("no image has a label, so there is nothing to answer: label some")
        require_known(asked, images, present)
        say_copies(asked, images)
        return images, relabelled(asked, images.classes), source


def open_validation(named: Named, images: Images, source: str) -> Images | None:
    """The images that are named to be asked about, or those kept beside the ones to learn from, if any."""
    with naming(source):
        if named.validation:
            return open_images(named.validation, named.decoding, images.classes)
        return validation_of(named.data, images, named.decoding)


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Context manager: an ImageSourceError that does not name the source begins with it."""
    try:
        yield
    except ImageSourceError as error:
        raise error if source in str(error) else ImageSourceError(f"{source}: {error}") from error


def require_known(asked: Images, images: Images, present: np.ndarray) -> None:
    """Refuse images of classes that there is nothing to learn of."""
    learnt = {images.classes[int(label)] for label in present}
    assert asked.labels is not None
    shown = [asked.classes[int(label)] for label in np.unique(known(asked.labels))]
    if lacking := [name for name in shown if name not in learnt]:
        raise ImageSourceError(
            f"there are images of {few(lacking, 5, spelled=repr)}, and none to learn from "
            f"(of {len(learnt)} classes): leave them out, or add some to the data"
        )


def labels_of(images: Images, source: str, protocol: str) -> np.ndarray:
    """The labels (N,), -1 for an image without one; ImageSourceError where there are none, or others."""
    if images.labels is None:
        raise ImageSourceError(
            f"{protocol} needs labels, and the {len(images)} images of {source} have none: put each class into a "
            "folder of its own, or give parquet files with a column 'label'"
        )
    wrong = np.flatnonzero((images.labels < -1) | (images.labels >= len(images.classes)))
    if len(wrong):
        first = int(wrong[0])
        raise ImageSourceError(
            f"the label of {images.keys[first]!r} in {source} is {int(images.labels[first])}, but must be one of 0 to "
            f"{len(images.classes) - 1}, or -1 for none ({len(wrong)} images are wrong): label them or leave them out"
        )
    return images.labels


def known(labels: np.ndarray) -> np.ndarray:
    """The labels of images that have one."""
    return labels[labels >= 0]


def require_asked(validation: Images | None, data: str, protocol: str) -> None:
    """Refuse an evaluation without validation images."""
    if validation is None:
        raise ImageSourceError(
            f"{protocol} needs validation images, and {data} has no validation split: name labelled "
            "images with --validation, or keep some of each class out of the training with --hold_out 50"
        )
