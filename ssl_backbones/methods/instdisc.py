"""InstDisc: instance discrimination by a memory of all images. Wu et al., 2018. https://arxiv.org/abs/1805.01978

Each image is a class of its own, and its last embeddings are that class's weights. The paper's proximal term is left
out, as it is in the authors' code. Their code takes colours away before it changes them; here it is after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check, check_at_least, check_momentum, check_positive
from ssl_backbones.data import Images, NumberedBatches
from ssl_backbones.distributed import gather, own_rows, share_first, world_size
from ssl_backbones.losses import instance_exponentials, instance_nce, instance_softmax
from ssl_backbones.losses.precision import widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.held_back import HeldBack
from ssl_backbones.models.image_rows import require_rows
from ssl_backbones.models.memory_bank import MemoryBank
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import INSTDISC_VIEW, MultiView, Policy, SingleView

SHARPEST = 0.0125
"""The lowest temperature at which exp(1 / tau) is a number of single precision, with room to sum."""


@dataclass(frozen=True)
class InstDiscConfig(MethodConfig):
    """InstDisc's choices."""

    name: ClassVar[str] = "instdisc"
    paper: ClassVar[Paper] = Paper(
        "InstDisc",
        "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
        "Wu et al.",
        2018,
        "https://arxiv.org/abs/1805.01978",
    )
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.07
    """tau: the temperature of the softmax."""
    noise: int = 4096
    """m: other images that an image is told from, drawn anew in each step (NCE); 0 for all images, a full softmax."""
    memory_momentum: float = 0.5
    """The weight of an image's old embedding in the memory, against the new one's."""
    views: tuple[Policy] = (INSTDISC_VIEW,)

    def __post_init__(self) -> None:
        check_positive(projection_dim=self.projection_dim, temperature=self.temperature)
        check_at_least(self, noise=0)
        sharp = self.noise == 0 or self.temperature >= SHARPEST
        check(sharp, "temperature", self.temperature, f"at least {SHARPEST} beside noise, lest exponentials overflow")
        check_momentum("memory_momentum", self.memory_momentum)

    def build(self, backbone: nn.Module) -> InstDisc:
        return InstDisc(backbone, self)


class InstDisc(Method):
    """An image's embedding finds the one that the memory has of it among those of other images.

    The memory is a buffer with a row for each image that `dataset` was given, the same in every process.
    """

    mean_exponential: Tensor
    """Z / N: the constant of NCE for an image of the memory, of the first step; 0 before."""

    def __init__(self, backbone: nn.Module, config: InstDiscConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or InstDiscConfig()
        self.backbone = backbone
        self.head = nn.Linear(width_of(backbone), config.projection_dim)
        self.memory = MemoryBank(config.projection_dim)
        self.register_buffer("mean_exponential", torch.zeros(()))
        self.estimates = HeldBack()

    def transform(self, size: int) -> SingleView:
        return SingleView(MultiView(self.config.views, size, **normalisation(self.backbone)))

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches with the row of each image, by which the memory knows it."""
        self.memory.of_images(len(images), seed)
        return NumberedBatches(images, self.transform(size), seed)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """Score views (B, 3, S, S) of images at these rows (B,) in the data."""
        view, rows = batch
        require_rows(self.memory.keys)
        v = normalize(widened(self.head(pooled(feature_map(self.backbone, view)))), dim=1)
        self.memory.offer(rows, v)
        images, m = len(self.memory.keys), self.config.noise
        if m == 0:
            loss = instance_softmax(v, self.memory.keys, rows, self.config.temperature)
            return {"loss": loss, "chance": math.log(images)}
        at = torch.cat([rows[:, None], self.draw(rows)], 1)
        exponentials = instance_exponentials(v, self.memory.keys, at, self.config.temperature)
        loss = instance_nce(exponentials, self.constant(exponentials), images)
        return {"loss": loss, "chance": math.log(1 + m) + m * math.log(1 + 1 / m)}  # where each P is 1 / N

    @torch.no_grad()
    def draw(self, rows: Tensor) -> Tensor:
        """Noise for each of the images (B,): rows (B, m) of the memory, as one process would draw them for all."""
        drawn = torch.randint(len(self.memory.keys), (world_size() * len(rows), self.config.noise), device=rows.device)
        share_first(drawn)
        return own_rows(drawn, len(rows))

    @torch.no_grad()
    def constant(self, exponentials: Tensor) -> Tensor:
        """Z, a scalar: N times the mean of the first batch's exponentials (B, 1 + m), of all processes.

        Of a first batch that is scored in parts, each part has its own, and their mean is kept. N is the number of
        images in the memory, also where the mean is of a run on others.
        """
        found = gather(exponentials.mean()[None]).mean()
        if self.training:
            self.estimates.hold(found[None])
        return len(self.memory.keys) * torch.where(self.mean_exponential > 0, self.mean_exponential, found)

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.memory.commit(self.config.memory_momentum)
        if estimates := self.estimates.take():
            found = estimates[0].mean()
            self.mean_exponential.copy_(torch.where(self.mean_exponential > 0, self.mean_exponential, found))
        return {}
