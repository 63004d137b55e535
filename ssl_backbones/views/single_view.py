"""One view of every image, by a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from PIL import Image
from torch import Tensor

from ssl_backbones.views.multi_view import MultiView
from ssl_backbones.views.policy import Parameters
from ssl_backbones.views.reduction import Reduction
from ssl_backbones.views.transform import Transform


@dataclass(frozen=True)
class SingleView(Transform):
    """The one view of each image, (B, 3, S, S), where `views` makes a list of one."""

    engines = MultiView.engines

    views: MultiView

    def at(self, side: int) -> Self:
        """The same view at another side."""
        return replace(self, views=self.views.at(side))

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> tuple[Parameters, ...]:
        """The crop and the flip of each image."""
        return self.views.draw(seed, epoch, indices)

    def reductions(self, seed: int, epoch: int, indices: np.ndarray) -> Sequence[Reduction]:
        """As coarse as the view allows."""
        return self.views.reductions(seed, epoch, indices)

    def on_host(self, images: Sequence[Image.Image], parameters: tuple[Parameters, ...]) -> Any:
        """Levels (B, S, S, 3), uint8, in a list of one."""
        return self.views.on_host(images, parameters)

    def on_device(self, batch: Any) -> Tensor:
        """Normalised images (B, 3, S, S)."""
        (view,) = self.views.on_device(batch)
        return view
