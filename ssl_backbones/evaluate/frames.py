"""The frame that annotations were made in, held against each image as it is read.

Annotations of an image with an EXIF turn may belong to the image as it is seen, or to its pixels as they are stored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ssl_backbones.checks import few
from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.frames import Frame, frame_of
from ssl_backbones.runs.progress import counted

AnnotationsFrame = Literal["auto", "upright", "stored"]
"""The frame of annotations whose sizes do not tell: the image as it is seen, or its pixels as stored; auto asks."""
Size = tuple[float, float]
"""Width and height in pixels."""


class EncodedImages(Protocol):
    """Images whose encoded form is at hand."""

    @property
    def keys(self) -> Sequence[str]:
        """A name for each."""

    def encoded(self, index: int) -> bytes | Path | None:
        """The bytes of an image or its file; None where there is neither."""


def annotated_frames(
    images: EncodedImages, stated: Sequence[Size | None], choice: AnnotationsFrame, source: str
) -> list[Frame | None]:
    """The frame that the annotations of each image were made in: its turn is 1 where that is the image as it is read.

    `stated` is the size that the annotations of each image give, if any. Where it is that of the stored pixels alone,
    so are the annotations. Where an EXIF turn leaves it open, `choice` decides. None for an image that cannot be read,
    which reading it will tell. ImageSourceError for a size that fits neither, and for what is left open under "auto".
    """
    found = (frame_of(images.encoded(index)) for index in range(len(images.keys)))  # threads would take longer
    frames = [*counted(found, len(images.keys), "looking at the images' sizes")]
    known = [(row, frame, size) for row, (frame, size) in enumerate(zip(frames, stated, strict=True)) if frame]
    if wrong := [each for each in known if each[2] not in (None, each[1].upright, each[1].stored)]:
        raise ImageSourceError(mismatch(images.keys, wrong, source))
    stored = {row for row, frame, size in known if size == frame.stored != frame.upright}
    unclear = {row for row, frame, size in known if frame.turn > 1 and (not size or frame.upright == frame.stored)}
    if unclear and choice == "auto":
        raise ImageSourceError(question(images.keys, sorted(unclear), stored, source))
    stored |= unclear if choice == "stored" else set()
    return [frame and (frame if row in stored else Frame(frame.upright)) for row, frame in enumerate(frames)]


def mismatch(keys: Sequence[str], wrong: Sequence[tuple[int, Frame, Size | None]], source: str) -> str:
    """The sentence on images of another size than their annotations say."""
    row, frame, size = wrong[0]
    assert size is not None
    found = spelled(frame.upright)
    if frame.turn > 1:
        found += f", or {spelled(frame.stored)} before its EXIF turn {frame.turn}"
    more = f" (and {len(wrong) - 1} more likewise)" if len(wrong) > 1 else ""
    return (
        f"{keys[row]!r} has {found} pixels, and its annotations in {source} are for {spelled(size)}{more}: "
        f"{cause(frame, size)}"
    )


def cause(frame: Frame, size: Size) -> str:
    """The likely cause of two sizes, and the way out."""
    for width, height in (frame.upright, frame.stored):
        across, down = width / size[0], height / size[1]
        if abs(across - down) < 1 / min(size):
            return (
                f"it seems to have been saved at {across:.3g} times its size, so put the images back that were "
                "annotated, or scale the annotations along"
            )
    return "it may be another image, or a cut one, so put the image back that was annotated, or annotate this one"


def question(keys: Sequence[str], unclear: Sequence[int], stored: Collection[int], source: str) -> str:
    """The sentence that asks in which frame images were annotated."""
    named = few(unclear, spelled=lambda row: repr(keys[row]))
    hint = f" ({len(stored)} others there were annotated as stored)" if stored else ""
    return (
        f"{named} have an EXIF turn, and no size in {source} tells if their annotations belong to the image as "
        f"it is seen or to its pixels as stored{hint}: say --annotations_frame upright or --annotations_frame stored"
    )


def spelled(size: Size) -> str:
    """A size as people write it."""
    return " x ".join(f"{side:g}" for side in size)
