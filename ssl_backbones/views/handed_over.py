"""Views as a MultiView makes them, handed over to a method in another form."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from PIL import Image

from ssl_backbones.views.multi_view import MultiView
from ssl_backbones.views.policy import Parameters
from ssl_backbones.views.reduction import Reduction
from ssl_backbones.views.transform import Transform


@dataclass(frozen=True)
class HandedOver(Transform, ABC):
    """The views (B, 3, S, S) of a MultiView, on its engine and by its randomness; `on_device` gives them their form."""

    engines = MultiView.engines

    views: MultiView

    @property
    def keeps_images(self) -> bool:
        """True where the views' engine takes whole images to the device."""
        return self.views.keeps_images

    def at(self, side: int) -> Self:
        """The same at another side of the views."""
        return replace(self, views=self.views.at(side))

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> tuple[Parameters, ...]:
        """The parameters of each view, B rows each."""
        return self.views.draw(seed, epoch, indices)

    def reductions(self, seed: int, epoch: int, indices: np.ndarray) -> Sequence[Reduction]:
        """As coarse as the views allow."""
        return self.views.reductions(seed, epoch, indices)

    def on_host(self, images: Sequence[Image.Image], parameters: tuple[Parameters, ...]) -> Any:
        """The views as they are on the host."""
        return self.views.on_host(images, parameters)
