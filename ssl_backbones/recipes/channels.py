"""The channels and the turns of a recipe's images: what of it goes with them, and what does not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ssl_backbones.checks import check
from ssl_backbones.data.channels import MOST
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.data.statistics import Statistics
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.typed.words import Hidden
from ssl_backbones.views import Policy
from ssl_backbones.views.channel_image import check_policy

StatisticsFrom = Literal["auto", "imagenet", "data"]
Views = Literal["method", "channels"]


@dataclass(frozen=True, kw_only=True)
class ImageFields(ABC):
    """The fields of a recipe on the channels of its images, and on their turns."""

    in_chans: int = 0
    """Channels, 1 to 16, of TIFF and .npy, and 1 of DICOM, that keep all of theirs and all bits; of PNG and JPEG where
    there are none of those; 0 for RGB of 8 bits of any format."""
    views: Views = "method"
    """Views as the method has them, or for channels: without saturation, hue, grey and solarize."""
    turns: float = 0.0
    """Share of the views that are turned by one, two or three quarters, for images without an upright, such as those
    from above or through a microscope; 0.75 makes all four directions alike likely. 0 leaves the views as they are."""
    statistics: StatisticsFrom = "auto"
    """Mean and deviation that channels are brought to: ImageNet's (a start's, if given), or those of the data, measured
    on a sample and recorded; auto measures where in_chans is given."""
    measured: Hidden[Statistics | None] = None
    """Those of the data, once they were measured."""

    @property
    @abstractmethod
    def decoding(self) -> DecodePolicy:
        """The rules by which images are decoded, their channels among them."""


def check_images(given: ImageFields, method: MethodConfig, engine: str, cache: str) -> None:
    """ValueError for channels that no image has, for settings that are made for RGB of 8 bits alone, and for turns of
    views that have none."""
    check(0 <= given.turns <= 1, "turns", given.turns, "from 0 to 1, a share of the views")
    if given.turns and not method.policies:
        check(False, "turns", given.turns, f"0 (leave it out), as {method.paper.label} has none")
    channels = given.in_chans
    check(0 <= channels <= MOST, "in_chans", channels, f"from 1 to {MOST}, or 0 for RGB of 8 bits")
    if not channels:
        return
    kept = f"{'{}'} where images keep {channels} channels of their own (--in_chans {channels})"
    check(not cache, "cache", cache, kept.format("empty, as it holds RGB of 8 bits,"))
    check(engine in ("auto", "pillow"), "engine", engine, kept.format("pillow, or left out,"))
    for number, policy in enumerate(shown(method, given).policies, start=1):
        check_policy(policy, f"view {number} of {method.paper.label}")


def shown(method: MethodConfig, given: ImageFields) -> MethodConfig:
    """A method with the views that a recipe asks for: its own, those without what is of colours alone, or turned ones.

    The method's own turns stay where the recipe names none.
    """
    if given.views == "channels":
        method = with_policies(method, Policy.of_channels)
    return with_policies(method, lambda policy: replace(policy, turn_p=given.turns)) if given.turns else method


def with_interpolation(method: MethodConfig, interpolation: str) -> MethodConfig:
    """A method's configuration whose crops are resized that way."""
    way: Any = interpolation
    return with_policies(method, lambda policy: replace(policy, interpolation=way))


def with_policies(method: MethodConfig, change: Callable[[Policy], Policy]) -> MethodConfig:
    """A method's configuration with every policy of its views changed."""
    return replace(method, **{field.name: changed(getattr(method, field.name), change) for field in fields(method)})


def changed(value: Any, change: Callable[[Policy], Policy]) -> Any:
    """A policy, or several, changed; anything else as it is."""
    if isinstance(value, Policy):
        return change(value)
    if isinstance(value, tuple) and any(isinstance(item, Policy) for item in value):
        return tuple(changed(item, change) for item in value)
    return value
