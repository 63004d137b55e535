"""Images with the objects in them: boxes, classes and, where the source has them, masks."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.checks import few
from ssl_backbones.data import DecodePolicy, Images, ImageSourceError
from ssl_backbones.data.frames import Frame, turned, turned_boxes
from ssl_backbones.data.listed import ListedImages
from ssl_backbones.data.parquet_in_memory import ParquetImages
from ssl_backbones.data.subset import Subset
from ssl_backbones.evaluate.frames import AnnotationsFrame, Size, annotated_frames

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objects:
    """The N objects of an image."""

    boxes: NDArray[np.float32]
    """(N, 4): left, top, right and bottom in pixels, the last two exclusive."""
    labels: NDArray[np.int64]
    """(N,): from 0."""
    ignored: NDArray[np.bool_]
    """(N,): difficult ones of VOC and crowds of COCO, which count neither as found nor as missed."""
    crowd: NDArray[np.bool_]
    """(N,): those that stand for many and are not trained on."""
    source: NDArray[np.int64]
    """(N,): the number of each in its annotation, by which its mask is found."""

    def __len__(self) -> int:
        return len(self.labels)

    def kept(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Objects:
        """Some of the objects."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@final
class Gathered:
    """The objects of an image as a reader comes upon them; those without an area inside of it are left out."""

    def __init__(self, size: Size | None) -> None:
        """`size` is the width and height that the annotation gives to the image; None where it gives none."""
        self.size = size
        self.left_out: list[str] = []
        """Names of objects."""
        self.rows: list[tuple[list[float], int, bool, bool, int]] = []
        self.names: list[str] = []

    def add(
        self,
        box: Sequence[float],
        label: int,
        name: str,
        *,
        ignored: bool = False,
        crowd: bool = False,
        source: int = 0,
    ) -> bool:
        """Take in one object, cut at the image's border; False if nothing is left of it. `name` is for a person."""
        width, height = self.size or (math.inf, math.inf)
        left, top, right, bottom = box
        left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        taken = all(map(math.isfinite, box)) and right > left and bottom > top
        if taken:
            self.rows.append(([left, top, right, bottom], label, ignored, crowd, source))
            self.names.append(name)
        else:
            self.left_out.append(name)
        return taken

    def objects(self, frame: Frame | None) -> Objects:
        """All of them as they lie in the upright image; `frame` is that of the annotations, None if it is not known."""
        boxes, labels, ignored, crowd, source = zip(*self.rows, strict=True) if self.rows else ((),) * 5
        whole = Objects(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(ignored, np.bool_),
            np.array(crowd, np.bool_),
            np.array(source, np.int64),
        )
        if frame is None:
            return whole
        cut = np.clip(whole.boxes, 0, [*frame.stored, *frame.stored]).astype(np.float32)
        inside = np.asarray((cut[:, 2:] > cut[:, :2]).all(axis=1))
        self.left_out += [name for name, kept in zip(self.names, inside, strict=True) if not kept]
        return replace(whole, boxes=turned_boxes(cut, frame)).kept(inside)


class Masks(Protocol):
    """The masks of all objects of a source."""

    @property
    def fingerprint(self) -> str:
        """A digest of their content."""
        ...

    def __call__(self, index: int, numbers: NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Masks (N, H, W) of 0 and 1 of the objects with these numbers (N,) in the annotation of an image."""
        ...


@final
@dataclass(frozen=True)
class MasksAt:
    """The masks of a source at some of its rows."""

    masks: Masks
    rows: NDArray[np.int64]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all masks of the source; that of the images says which are used."""
        return self.masks.fingerprint

    def __call__(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The masks (N, H, W) of some annotations of an image."""
        return self.masks(int(self.rows[index]), numbers)


@final
class AnnotatedImages(Images):
    """Images and the objects in each of them."""

    labels = None

    def __init__(
        self,
        images: ListedImages | ParquetImages,
        gathered: Sequence[Gathered],
        classes: Sequence[str],
        metric: str,
        *,
        source: str,
        frame: AnnotationsFrame = "auto",
        masks: Masks | None = None,
    ) -> None:
        """`metric` is the name of the source's own in METRICS of box_metrics.

        `masks` draws objects in the annotations' frame; it has to pickle.
        """
        self.listed, self.keys = images, images.keys
        self.unannotated: Images = images
        self.classes, self.metric = list(classes), metric
        self.source, self.masks = source, masks
        self.frames = annotated_frames(images, [found.size for found in gathered], frame, source)
        self.objects = [found.objects(frame) for found, frame in zip(gathered, self.frames, strict=True)]
        left_out = [name for found in gathered for name in found.left_out]
        self.dropped = len(left_out)
        if left_out:
            logger.warning(
                "%d objects without an area in %s were left out, the first is %s", len(left_out), source, left_out[0]
            )
        self.require_objects()

    def require_objects(self) -> None:
        """ImageSourceError where no image has an object."""
        if not any(len(found) for found in self.objects):
            raise ImageSourceError(
                f"{self.source} holds no object in any of its {len(self)} images: give annotations with boxes"
            )

    def at(self, rows: NDArray[np.int64]) -> AnnotatedImages:
        """The images at some rows, in that order, with their objects."""
        part = copy.copy(self)
        for name in ("fingerprint", "fingerprint_by_sizes", "content_digest"):
            vars(part).pop(name, None)
        part.unannotated = Subset(self.unannotated, rows)
        part.keys = part.unannotated.keys
        part.frames, part.objects = [self.frames[row] for row in rows], [self.objects[row] for row in rows]
        part.masks = self.masks and MasksAt(self.masks, rows)
        return part

    @property
    def digests(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Digests of the images; the fingerprint covers objects and masks as well."""
        return self.unannotated.digests

    def whole_digests(self) -> NDArray[np.uint8] | None:
        return self.unannotated.whole_digests()

    @cached_property
    def fingerprint(self) -> str:
        drawn = f" {self.masks.fingerprint}" if self.masks else ""
        return self.digest_over(self.unannotated.fingerprint + drawn)

    @cached_property
    def fingerprint_by_sizes(self) -> str:
        return self.digest_over(self.unannotated.fingerprint_by_sizes)

    def digest_over(self, fingerprint: str) -> str:
        """A sha256 over the images' fingerprint, the classes and all objects."""
        digest = hashlib.sha256(f"{fingerprint} {list(self.classes)}".encode())
        for found in self.objects:
            for name in ("boxes", "labels", "ignored", "crowd"):
                digest.update(getattr(found, name).tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> Image.Image:
        return self.unannotated[index]

    def decode_by(self, policy: DecodePolicy) -> None:
        """Decode the images by these rules from now on."""
        self.listed.policy = policy

    def require_masks(self, why: str) -> None:
        """ImageSourceError where the source has boxes alone."""
        if self.masks is None:
            raise ImageSourceError(
                f"{why} needs masks, and {self.source} has boxes alone: take a head without masks (faster_fpn or "
                "faster_c4), COCO annotations, or parquet files with a column 'instance_mask'"
            )

    def require_counted(self, masks: bool, way_out: str) -> None:
        """ImageSourceError where a test of boxes, or of `masks`, has no object that counts."""
        found = (self.drawn(row)[0] if masks else self.objects[row] for row in range(len(self)))
        if all(each.ignored.all() for each in found):
            hidden = " and those without a pixel in their mask" if masks else ""
            raise ImageSourceError(
                f"none of the {len(self)} images of {self.source} to be tested on has an object that counts, which "
                f"difficult ones, crowds{hidden} do not: {way_out}"
            )

    def all_masks(self, index: int) -> NDArray[np.uint8]:
        """The masks (N, H, W) of all objects of an image, upright as the image is."""
        assert self.masks is not None
        frame = self.frames[index]
        masks = self.masks(index, self.objects[index].source)
        return masks if frame is None else turned(masks, frame.turn)

    def drawn(self, index: int) -> tuple[Objects, NDArray[np.uint8]]:
        """The objects of an image that have a pixel to show, and their masks (N, H, W)."""
        masks = self.all_masks(index)
        visible = np.asarray(masks.any(axis=(1, 2)))
        return self.objects[index].kept(visible), masks[visible]


def label_of(name: object, classes: Sequence[str], where: str) -> int:
    """The number of a class; ImageSourceError where there is no such class."""
    if isinstance(name, str) and name in classes:
        return classes.index(name)
    raise ImageSourceError(
        f"{where} names the class {name!r}, which is not among the {len(classes)} trained on ({few(classes, 8)}): "
        "correct it, or leave the object out"
    )
