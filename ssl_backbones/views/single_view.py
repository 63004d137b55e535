"""One view of every image, by a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from ssl_backbones.views.handed_over import HandedOver


@final
@dataclass(frozen=True)
class SingleView(HandedOver):
    """The one view of each image, (B, 3, S, S), where `views` makes a list of one."""

    def on_device(self, batch: Any) -> Tensor:
        """Normalised images (B, 3, S, S)."""
        (view,) = self.views.on_device(batch)
        return view
