"""BYOL as lightly's users would write it from its documentation: its transform, modules, loss and loop.

lightly is no dependency; where it is not installed, nothing is compared with it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from steps import Case
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssl_backbones.data import Images
from ssl_backbones.train.precision import DTYPES

INSTALLED = find_spec("lightly") is not None


class Views(Dataset[Any]):
    """lightly's two views of each image."""

    def __init__(self, images: Images, size: int) -> None:
        from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform

        self.images = images
        self.views = BYOLTransform(BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        views: list[Tensor] = self.views(self.images[index])
        return views


class Byol(nn.Module):
    """Backbone, projector and predictor, with the slow copies of the first two."""

    def __init__(self, backbone: nn.Module, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        self.backbone = backbone  # pools by itself
        self.projector = BYOLProjectionHead(width, hidden, dim)
        self.predictor = BYOLPredictionHead(dim, hidden, dim)
        self.slow_backbone, self.slow_projector = copy.deepcopy(self.backbone), copy.deepcopy(self.projector)
        deactivate_requires_grad(self.slow_backbone)
        deactivate_requires_grad(self.slow_projector)

    def predicted(self, view: Tensor) -> Tensor:
        """The view's prediction (B, D) of the other's embedding."""
        found: Tensor = self.predictor(self.projector(self.backbone(view)))
        return found

    def target(self, view: Tensor) -> Tensor:
        """The slow copies' embedding (B, D)."""
        with torch.no_grad():
            found: Tensor = self.slow_projector(self.slow_backbone(view))
        return found.detach()


def steps(case: Case, images: Images, precision: str, workers: int, device: torch.device) -> Iterator[float]:
    """A training step each time that it is asked for; the seconds that it waited for its batch."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.utils import update_momentum
    from lightly.utils.scheduler import cosine_schedule

    backbone = case.network()
    widths = case.widths
    hidden, dim = widths.get("hidden_dim", 4096), widths.get("projection_dim", 256)
    model = Byol(backbone, backbone.num_features, hidden, dim).to(device).train()  # type: ignore[arg-type]
    criterion, dtype = NegativeCosineSimilarity(), DTYPES.get(precision)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Views(images, case.size), batch_size=case.batch, shuffle=True, drop_last=True, num_workers=workers
    )
    epochs, running = 100_000, torch.zeros((), device=device)
    for epoch in range(epochs):
        momentum = cosine_schedule(epoch, epochs, 0.996, 1)
        batches = iter(loader)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            waited = time.perf_counter() - start
            if batch is None:
                break
            update_momentum(model.backbone, model.slow_backbone, m=momentum)
            update_momentum(model.projector, model.slow_projector, m=momentum)
            first, second = (view.to(device) for view in batch)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                predicted1, predicted2 = model.predicted(first), model.predicted(second)
                target1, target2 = model.target(first), model.target(second)
                loss = 0.5 * (criterion(predicted1, target2) + criterion(predicted2, target1))
            running += loss.detach()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield waited
