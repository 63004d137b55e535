"""ReSim: region similarity. Xiao et al., 2021. https://arxiv.org/abs/2103.12902

MoCo v2 on whole views and on windows of them: what the query's window shows is looked up in the key's feature map, as a
region of any size. Windows, levels and negatives are those of the authors' code for their version with a pyramid
(ReSim-FPN). That code mirrors both views of an image or neither; here each is mirrored for itself, and windows are
looked up where they went, so that a map's positions lie in the middle of their cells, not at their corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_at_least, check_positive
from ssl_backbones.data import Images
from ssl_backbones.data.batches import BatchDataset, Batches
from ssl_backbones.data.exchanged import ExchangedBatches, views_and_places
from ssl_backbones.distributed import gather, own_rows, world_size
from ssl_backbones.losses import all_windows, info_nce, region_info_nce, region_means
from ssl_backbones.losses.regions import seen_in_the_other, sliding_windows
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import normalisation, on_grid, pooled, width_of
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.heads import moco_head
from ssl_backbones.models.key_encoder import KeyEncoderConfig, encode_keys, guard_batch_norm
from ssl_backbones.models.pyramid import Pyramid, last_maps, last_widths
from ssl_backbones.models.queue import Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MOCO_V2_VIEWS, Geometry, Located, LocatedViews, MultiView, Policy

LEVELS = 3
"""Maps of the pyramid; the coarsest has no windows."""
FINE, COARSE = (4, 3), (3, 2)
"""Size and stride of a window, in positions: 32 and 24 px of strides of 8, 48 and 32 px of strides of 16."""
COMPARED = 3
"""Side, in positions, of the windows that are negatives."""


@dataclass(frozen=True)
class ReSimConfig(KeyEncoderConfig, MethodConfig):
    """ReSim's choices; all but the last two are MoCo v2's."""

    name: ClassVar[str] = "resim"
    paper: ClassVar[Paper] = Paper(
        "ReSim",
        "Region Similarity Representation Learning",
        "Xiao et al.",
        2021,
        "https://arxiv.org/abs/2103.12902",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.2
    """tau: divides the cosines."""
    queue_size: int = 65536
    """Keys of past batches, the negatives of whole views."""
    bn_splits: int = 8
    """Groups with batch statistics of their own under "shuffle", and with fine negatives of their own, over all
    processes together: the eight GPUs."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS
    map_dim: int = 256
    """The width of the pyramid's maps."""
    grid: int = 0
    """Positions a side to which a coarser map with more is pooled before the pyramid, and the others to match; 0 for
    those that they have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, queue_size=self.queue_size)
        check_positive(temperature=self.temperature, map_dim=self.map_dim)
        check_at_least(self, grid=0)

    def build(self, backbone: nn.Module) -> ReSim:
        return ReSim(backbone, self)


class ReSim(Method):
    """MoCo on whole views, and on regions of two levels of their feature maps."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: ReSimConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ReSimConfig()
        self.backbone = backbone
        self.head = moco_head(width_of(backbone), config.hidden_dim, config.projection_dim)
        self.pyramid = Pyramid(last_widths(backbone, LEVELS), config.map_dim)
        guard_batch_norm(self, config.key_bn, config.bn_splits)
        self.key_encoder = EMA(config.key_bn == "ema", backbone=self.backbone, head=self.head, pyramid=self.pyramid)
        self.queue = Queue(config.queue_size, config.projection_dim)

    def transform(self, size: int) -> LocatedViews:
        return LocatedViews(MultiView(self.config.views, size, **normalisation(self.backbone)))

    def check_data(self, images: int, batch_size: int) -> None:
        check_queue(self.config.queue_size, images, batch_size, kept_out="")

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches whose keys are shuffled where they are to be, with the places of their views."""
        kind = ExchangedBatches if self.config.key_bn == "shuffle" else Batches
        return kind(images, self.transform(size), seed)

    def forward(self, batch: Located) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image by their places in it; ValueError for maps without windows."""
        (view1, view2), places = views_and_places(batch.views)
        shuffle = self.config.key_bn == "shuffle"
        k, *key_maps = encode_keys(lambda view: self.encode(self.key_encoder, view), view2, shuffle, places)
        q, *maps = self.encode(self, view1)
        self.queue.offer(k)
        whole = info_nce(q, own_rows(k, len(q)), self.queue.keys, self.config.temperature)
        groups = max(1, self.config.bn_splits // world_size())
        fine, of_fine = self.regions(maps[0], key_maps[0], batch.geometry, FINE, groups)
        coarse, of_coarse = self.regions(maps[1], key_maps[1], batch.geometry, COARSE, None)
        chance = math.log(1 + len(self.queue)) + math.log(1 + of_fine) + math.log(1 + of_coarse)
        parts = {"whole_loss": whole.detach(), "fine_loss": fine.detach(), "coarse_loss": coarse.detach()}
        return {"loss": whole + fine + coarse, "chance": chance, **parts}

    def encode(self, network: ReSim | EMA, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The embedding (B, D) of a view (B, 3, H, W), and its finer and coarser map (B, C, h, w)."""
        maps = last_maps(network.backbone, view, LEVELS)
        embedding = network.head(pooled(maps[-1]))
        if grid := self.config.grid:
            sides = 2 * grid, grid, (grid + 1) // 2
            maps = [on_grid(one, side) for one, side in zip(maps, sides, strict=True)]
        fine, coarse = network.pyramid(maps)
        return embedding, fine, coarse

    def regions(
        self, maps: Tensor, everyones: Tensor, geometry: Geometry, window: tuple[int, int], groups: int | None
    ) -> tuple[Tensor, int]:
        """InfoNCE of the windows of one level, mean over those that the key's view holds, and the number of negatives.

        Queries are windows of maps (B, C, h, w), keys the same regions of those of the key encoder, and negatives all
        windows of everyone's maps (G, C, h, w), or of those of each of so many groups of this process's images.
        ValueError for a map without windows.
        """
        high, wide = maps.shape[2:]
        windows = sliding_windows(*window, high, wide, maps.device)
        if not len(windows):
            raise ValueError(
                f"a feature map of {high} x {wide} positions holds no window of {window[0]} and one more position: "
                "take larger views (--size)"
            )
        regions, whole = seen_in_the_other(windows, geometry.boxes.transpose(0, 1), geometry.flips.mT)
        own = own_rows(everyones, len(maps))
        queries, keys = region_means(maps, windows), region_means(own, regions)
        parts = 1 if groups is None else groups
        shared = [everyones] if groups is None else own.chunk(groups)
        chunks = (each.chunk(parts) for each in (queries, keys, whole))
        negatives = [all_windows(each, COMPARED) for each in shared]
        sums = [
            region_info_nce(q, k, others, counted, self.config.temperature)
            for q, k, counted, others in zip(*chunks, negatives, strict=True)
        ]
        count = gather(whole.sum()[None]).float().mean().clamp(min=1 / world_size())  # of a process's share
        return sum(sums[1:], sums[0]) / count, len(negatives[0])

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        online: dict[str, Any] = {"backbone": self.backbone, "head": self.head, "pyramid": self.pyramid}
        self.key_encoder.update(self.config.momentum, **online)
        return {"key_momentum": self.config.momentum}
