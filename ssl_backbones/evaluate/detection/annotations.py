"""Photos with the objects in them: boxes, classes and, where the source has them, masks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.data import DecodePolicy, Images, ImageSourceError
from ssl_backbones.data.decode import USUAL_POLICY, decode
from ssl_backbones.data.keys import PathKeys, fingerprint_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objects:
    """The N objects of a photo."""

    boxes: NDArray[np.float32]
    """(N, 4): left, top, right and bottom in pixels, the last two exclusive."""
    labels: NDArray[np.int64]
    """(N,): from 0."""
    ignored: NDArray[np.bool_]
    """(N,): difficult ones of VOC and crowds of COCO, which count neither as found nor as missed."""
    crowd: NDArray[np.bool_]
    """(N,): those that stand for many and are not trained on."""
    area: NDArray[np.float32]
    """(N,): pixels of the mask; 0 where the source does not say."""
    source: NDArray[np.int64]
    """(N,): the number of each in its annotation, by which its mask is found."""

    def __len__(self) -> int:
        return len(self.labels)

    def kept(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Objects:
        """Some of the objects."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass
class Gathered:
    """The objects of a photo as a reader comes upon them; boxes of no area are left out and counted."""

    width: float
    height: float
    dropped: int = 0

    def __post_init__(self) -> None:
        self.rows: list[tuple[list[float], int, bool, bool, float, int]] = []

    def add(
        self,
        box: Sequence[float],
        label: int,
        *,
        ignored: bool = False,
        crowd: bool = False,
        area: float = 0.0,
        source: int = 0,
    ) -> None:
        """Take in one object, cut at the photo's border."""
        left, top, right, bottom = (float(value) for value in box)
        left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, self.width), min(bottom, self.height)
        if not (right > left and bottom > top):  # NaN is neither
            self.dropped += 1
            return
        self.rows.append(([left, top, right, bottom], label, ignored, crowd, area, source))

    def objects(self) -> Objects:
        """All of them."""
        boxes, labels, ignored, crowd, area, source = zip(*self.rows, strict=True) if self.rows else ((),) * 6
        return Objects(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(ignored, np.bool_),
            np.array(crowd, np.bool_),
            np.array(area, np.float32),
            np.array(source, np.int64),
        )


class ListedImages(Images):
    """Photos by their paths below a folder, in the order of a list."""

    labels = None
    classes: Sequence[str] = ()

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.policy = root, USUAL_POLICY
        self.keys = PathKeys(paths)
        sizes = [path.stat().st_size if (path := root / key).is_file() else -1 for key in paths]
        self.fingerprint = fingerprint_of(self.keys, None, np.array(sizes, np.int64))

    def __getitem__(self, index: int) -> Image.Image:
        path = self.root / self.keys[index]
        return decode(path, str(path), self.policy)


class AnnotatedImages(Images):
    """Photos and the objects in each of them."""

    labels = None

    def __init__(
        self,
        photos: Images,
        objects: Sequence[Objects],
        classes: Sequence[str],
        metric: str,
        *,
        source: str,
        dropped: int = 0,
        masks: Callable[[int], NDArray[np.uint8]] | None = None,
    ) -> None:
        """`metric` is the name of the source's own in METRICS of box_metrics.

        `masks(index)` draws the objects of an image, (N, H, W) of 0 and 1; it has to pickle.
        """
        self.photos, self.keys = photos, photos.keys
        self.objects, self.classes, self.metric = objects, list(classes), metric
        self.source, self.dropped, self.masks = source, dropped, masks
        if not any(len(found) for found in objects):
            raise ImageSourceError(
                f"{source} holds no object in any of its {len(objects)} photos: give annotations with boxes"
            )
        if dropped:
            logger.warning("%d boxes of no width or height in %s were left out", dropped, source)
        self.fingerprint = self.digest()

    def digest(self) -> str:
        """A sha256 over the photos' own, the classes and all objects."""
        digest = hashlib.sha256(f"{self.photos.fingerprint} {list(self.classes)}".encode())
        for found in self.objects:
            for name in ("boxes", "labels", "ignored", "crowd"):
                digest.update(getattr(found, name).tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> Image.Image:
        return self.photos[index]

    def decode_by(self, policy: DecodePolicy) -> None:
        """Decode the images by these rules from now on."""
        photos: Any = self.photos
        photos.policy = policy

    def require_masks(self, why: str) -> None:
        """ImageSourceError where the source has boxes alone."""
        if self.masks is None:
            raise ImageSourceError(
                f"{why} needs masks, and {self.source} has boxes alone: take a head without masks (faster_fpn or "
                "faster_c4), COCO annotations, or parquet files with a column 'instance_mask'"
            )

    def drawn(self, index: int) -> tuple[Objects, NDArray[np.uint8]]:
        """The objects of a photo that have a pixel to show, and their masks (N, H, W)."""
        assert self.masks is not None
        masks = self.masks(index)
        visible = np.asarray(masks.any(axis=(1, 2)))
        return self.objects[index].kept(visible), masks[visible]


def label_of(name: object, classes: Sequence[str], file: object) -> int:
    """The number of a class; ImageSourceError names the file where there is no such class."""
    if name in classes:
        return classes.index(str(name))
    known = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
    raise ImageSourceError(
        f"{str(file)!r} names the class {name!r}, which is not among the {len(classes)} trained on ({known}): "
        "correct it, or leave the object out"
    )
