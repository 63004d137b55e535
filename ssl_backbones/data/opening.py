"""The images that a command is given, opened as its options ask: to learn from, and to ask about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from ssl_backbones.checks import few
from ssl_backbones.data.decode import WHITE, brightest
from ssl_backbones.data.images import Images, ImageSourceError, UnreadableImageError
from ssl_backbones.data.verifying import NotKeptError, verifying
from ssl_backbones.distributed import doing, in_every_process, say, world_size
from ssl_backbones.host_memory import made_once
from ssl_backbones.views.channel_image import ChannelImage

Opened = TypeVar("Opened", bound=Images | None)
TRIED = 20
"""Images that are tried for one that can be read, at most, or looked at for their depth."""
DARK = 2**13
"""The brightest value of 16 bits below which RGB shows a tenth of its levels."""


def opened_once(opened: Callable[[], Opened], verify: bool = False) -> Opened:
    """The images that the first process opens and knows by their fingerprint, in all processes.

    All call it together: one asks the disk about every file, and reports while it does. Keys, labels and the like are
    there once for all processes of a machine, and nobody writes to them. To `verify`, every image is held against what
    is kept of it. An error is raised in all.
    """

    def known() -> Opened:
        images = verified(opened) if verify else opened()
        if images is not None and images.labels is not None:
            images.labels.setflags(write=False)  # in one process as in several
        if images is not None and world_size() > 1:
            _ = images.fingerprint, images.fingerprint_by_sizes
        return images

    images = made_once(known)
    if images is not None and world_size() > 1:
        in_every_process(images.at_hand)
    return images


def verified(opened: Callable[[], Opened]) -> Opened:
    """The images that are opened, each of them read; tells what is not as it was kept, a sentence for each kind."""
    with verifying() as found, doing("Reading every image, for --verify"):
        images = opened()
        if images is not None:
            _ = images.digests
            with suppress(NotKeptError):
                images.whole_digests()
    if images is not None:
        for sentence in found or [f"All {len(images)} images are as their index says."]:
            say(f"--verify: {sentence}")
    return images


def held_to_first(images: Images) -> Images:
    """The images, each to have the depth of the first that can be read, where they keep channels of their own.

    ImageSourceError where none of the first can be read.
    """
    if images.policy is None or not images.policy.channels or images.policy.depth:
        return images
    reason = ""
    for row in range(min(TRIED, len(images))):
        try:
            image = images[row]
        except UnreadableImageError as error:
            reason = reason or str(error)
            continue
        assert isinstance(image, ChannelImage)
        images.policy = replace(images.policy, depth=image.depth)
        return images
    raise ImageSourceError(f"none of the first {min(TRIED, len(images))} images can be read: {reason}")


def classes_sentence(images: Images) -> str:
    """The sentence on the classes that images were opened with, and on how to leave them out; empty without classes."""
    if images.labels is None:
        return ""
    count, whence = len(images.classes), f"from the {images.labels_from}" if images.labels_from else "named"
    names = few(images.classes, 8)
    return f"{count} classes, {whence} {names}: --labels none to leave them out."


def depth_sentence(images: Images) -> str:
    """The sentence on grey images of 16 bits that are so dark that RGB keeps few of their levels; empty for others."""
    if images.policy is None or images.policy.channels:
        return ""
    encoded = (images.raw(row) for row in range(min(TRIED, len(images))))
    most = max((brightest(content, images.policy) for content in encoded if content), default=0)
    if not 0 < most < DARK:
        return ""
    levels = (most * 255 + WHITE // 2) // WHITE + 1
    return (
        f"Grey images of 16 bits: their brightest is {most:,} of {WHITE:,}, of which RGB keeps {levels} levels: "
        "--in_chans 1 --views channels keeps them all."
    )
