"""Several views of every image, each by a policy of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, ClassVar, Self, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.views import channel_image, device_engine, opencv_engine, pillow_engine
from ssl_backbones.views.channel_image import have_channels
from ssl_backbones.views.engine import Engine, check_engine, chosen_engine
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from ssl_backbones.views.policy import UNIFORMS, Parameters, Policy
from ssl_backbones.views.randomness import uniform
from ssl_backbones.views.reduction import Reduction, divisor
from ssl_backbones.views.transform import Transform


@dataclass(frozen=True)
class MultiView(Transform):
    """A view (B, 3, S, S) per policy. "pillow" and "opencv" make them on the host; "device" on the network's device.

    S is the size, or a policy's share of it. All engines follow the same parameters. "pillow" is the reference,
    "opencv" the fast one on a CPU. "device" ships the whole images, padded to the largest of the batch, so it wants
    images of moderate and similar size. Where no engine is named it is the one of `using_engine`, and "pillow" outside
    of that.
    """

    engines: ClassVar[tuple[Engine, ...]] = get_args(Engine)

    policies: tuple[Policy, ...]
    """The augmentations of each view."""
    size: int
    engine: Engine = field(default_factory=chosen_engine)
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, in [0, 1]; subtracted."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, in [0, 1]; divided by."""

    def __post_init__(self) -> None:
        """Raise ValueError for views of no pixel, for none at all, or an unknown engine."""
        if self.size < 1:
            raise ValueError(f"size is {self.size}, but a view needs at least 1 pixel")
        if not self.policies:
            raise ValueError("policies is empty, but every view needs a policy: name at least one")
        check_engine(self.engine)

    @property
    def keeps_images(self) -> bool:
        """True for the engine that takes whole images to the device."""
        return self.engine == "device"

    def at(self, side: int) -> Self:
        """The same views at another side of theirs, blurred in proportion."""
        policies = tuple(policy.at(side / self.size) for policy in self.policies)
        return replace(self, policies=policies, size=side)

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> tuple[Parameters, ...]:
        """The parameters of each view, B rows each."""
        return tuple(
            policy.draw(uniform(seed, epoch, indices, view, UNIFORMS)) for view, policy in enumerate(self.policies)
        )

    def reductions(self, seed: int, epoch: int, indices: np.ndarray) -> Sequence[Reduction]:
        """Reduction of each image when it is decoded: with OpenCV as far as all of its crops allow, with other
        engines not at all."""
        if self.engine != "opencv":
            return super().reductions(seed, epoch, indices)
        drawn = cache(partial(self.draw, seed, epoch, indices))  # for the first large image, and then for all
        return [partial(self.divisor_of, drawn, row) for row in range(len(indices))]

    def divisor_of(self, draw: Callable[[], tuple[Parameters, ...]], row: int, width: int, height: int) -> int:
        """The divisor of the sides of an image of that width and height, for its views, drawn in a row of all."""
        drawn = zip(self.policies, [parameters.row(row) for parameters in draw()], strict=True)
        crops = [(int(policy.shortest_side(one, width, height)[0]), policy.side(self.size)) for policy, one in drawn]
        return min(divisor(crop, side) for crop, side in crops)

    def on_host(self, images: Sequence[Image.Image], parameters: tuple[Parameters, ...]) -> Any:
        """For "device", images and parameters; for the others, the levels (B, S, S, 3) of each view, uint8.

        Of images with channels of their own, whatever the engine, the levels (B, S, S, C) as floats.
        """
        views = list(zip(self.policies, parameters, strict=True))
        if have_channels(images):
            return [torch.from_numpy(channel_image.render(images, policy, drawn, self.size)) for policy, drawn in views]
        for image in images:
            pillow_engine.check_rgb(image)
        if self.engine == "device":
            return device_engine.pack(images, views)
        render = (opencv_engine if self.engine == "opencv" else pillow_engine).render
        return [torch.from_numpy(render(images, policy, drawn, self.size)) for policy, drawn in views]

    def on_device(self, batch: Any) -> list[Tensor]:
        """The normalised views (B, 3, S, S), channels-last."""
        if self.engine == "device":
            views = device_engine.render(batch, self.policies, self.size)
        else:
            views = [levels.permute(0, 3, 1, 2) for levels in batch]
        return [normalise(view, self.mean, self.std) for view in views]
