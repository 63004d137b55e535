"""FLAGS: contrast with mined images of the same class, some much alike and some less, beside one's own augmentation.

Yuchi Zhao and Yuhao Zhou, Fuse Local and Global Semantics in Representation Learning. Pairs are mined with labels, so
this is supervised pretraining.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.data import Images, require_labels
from ssl_backbones.data.exchanged import Exchanged, views_and_places
from ssl_backbones.distributed import gather, own_rows, world_size
from ssl_backbones.losses import multi_positive_info_nce
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.mining import PairedBatches, Pairs, PairsError, numbers_of_queries
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.heads import moco_head
from ssl_backbones.models.key_encoder import KeyEncoderConfig, encode_keys, guard_batch_norm
from ssl_backbones.models.queue import Mask, Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy

Enqueue = Literal["all", "first"]
Passes = Literal["separate", "together"]
FlagsMask = Literal[Mask, "class"]


@dataclass(frozen=True)
class Branch:
    """A head with a queue, and the keys that belong there."""

    name: str
    first: int
    """The first of its keys, among all key views."""
    count: int
    temperature: float


@dataclass(frozen=True)
class FlagsConfig(KeyEncoderConfig, MethodConfig):
    """FLAGS's choices. Without the global pair and the local branch, it is MoCo v2 with the same loss."""

    name: ClassVar[str] = "flags"
    paper: ClassVar[Paper] = Paper(
        "FLAGS",
        "Fuse Local and Global Semantics in Representation Learning",
        "Yuchi Zhao and Yuhao Zhou",
        labels="with pairs that labels chose",
        labels_from="pairs",
    )
    pairs: str = ""
    """The file that ssl-backbones mine-pairs wrote of the images to train on."""
    global_pair: bool = True
    """Take the two nearest images as positives, beside the augmentation."""
    local_branch: bool = True
    """Take the two images of the middle ranks as positives, with a head and a queue of their own."""
    hidden_dim: int = 2048
    """The width inside the heads."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.2
    """Divides the cosines of the global branch, which the augmentation belongs to."""
    local_temperature: float = 0.2
    """Divides those of the local branch."""
    queue_size: int = 65536
    """K: keys of past batches in each queue, the negatives."""
    enqueue: Enqueue = "all"
    """Keys that enter a queue: all of its branch, or the first of each image (augmentation, first local)."""
    mask: FlagsMask = "none"
    """Keys in a queue that are no negatives of a query: those of its own image and positives, or of its class."""
    passes: Passes = "separate"
    """Key views go through the key encoder one by one, with batch statistics of their own, or all at once."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS
    """Views of the query and of every key, each drawn for itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, queue_size=self.queue_size)
        check_positive(temperature=self.temperature, local_temperature=self.local_temperature)

    @property
    def partners(self) -> tuple[int, ...]:
        """The columns of the mined pairs that are positives."""
        return (0, 1) * self.global_pair + (2, 3) * self.local_branch

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The global branch, and the local one if there is one."""
        near = 3 if self.global_pair else 1
        local = (Branch("local", near, 2, self.local_temperature),) * self.local_branch
        return (Branch("global", 0, near, self.temperature), *local)

    def build(self, backbone: nn.Module) -> Flags:
        return Flags(backbone, self)


class Flags(Method):
    """A view finds its image's augmentation and mined partners, each for itself, among keys of past batches."""

    def __init__(self, backbone: nn.Module, config: FlagsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FlagsConfig()
        self.backbone = backbone
        names, dim = [branch.name for branch in config.branches], config.projection_dim
        self.heads = nn.ModuleDict({name: moco_head(width_of(backbone), config.hidden_dim, dim) for name in names})
        guard_batch_norm(self, config.key_bn, config.bn_splits)
        self.key_encoder = EMA(config.key_bn == "ema", backbone=self.backbone, heads=self.heads)
        numbered = config.mask != "none"
        self.queues = nn.ModuleDict({name: Queue(config.queue_size, dim, numbered) for name in names})

    def transform(self, size: int) -> MultiView:
        query, key = self.config.views
        return MultiView((query, key, *[key] * len(self.config.partners)), size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        for branch in self.config.branches if self.config.mask == "none" else ():
            taken = branch.count if self.config.enqueue == "all" else 1
            check_queue(self.config.queue_size, images, batch_size, taken)

    def dataset(self, images: Images, size: int, seed: int) -> PairedBatches:
        """Batches with the partners of each image; ImageSourceError where these are not known."""
        columns = self.config.partners
        rows = partners_of(images, self.config.pairs)[:, columns] if columns else None
        by_class = self.config.mask == "class"
        numbers = require_labels(images, "FLAGS with mask='class'") if by_class else np.arange(len(images))
        exchanged = self.config.key_bn == "shuffle" and self.config.passes == "separate"  # or views are shuffled too
        return PairedBatches(images, self.transform(size), seed, rows, numbers, exchanged)

    def forward(self, batch: tuple[list[Tensor] | Exchanged, Tensor]) -> dict[str, Tensor | float]:
        """Score a view of each image and its key views (B, 3, S, S), with the numbers of images and partners.

        The numbers are of the images whose key views these are.
        """
        shown, numbers = batch
        (query_view, *key_views), places = views_and_places(shown)
        keys = self.keys(key_views, places)
        features = pooled(feature_map(self.backbone, query_view))
        if self.config.mask != "none":
            numbers = numbers_of_queries(numbers, places)
        losses = {
            f"{branch.name}_branch_loss": self.loss(
                branch, self.heads[branch.name](features), keys[branch.name], numbers
            )
            for branch in self.config.branches
        }
        loss = torch.stack(list(losses.values())).sum()
        if self.config.mask != "none":
            return {"loss": loss, **{name: value.detach() for name, value in losses.items()}}
        chance = len(losses) * math.log(1 + self.config.queue_size)
        return {"loss": loss, "chance": chance, **{name: value.detach() for name, value in losses.items()}}

    def keys(self, views: list[Tensor], places: Tensor | None = None) -> dict[str, Tensor]:
        """The keys (P, G, D) of each branch: of its key views, of the images of all processes."""
        encoder, shuffle = self.key_encoder, self.config.key_bn == "shuffle"

        def encode(images: Tensor) -> tuple[Tensor, ...]:
            features = pooled(feature_map(encoder.backbone, images))
            return tuple(head(features) for head in encoder.heads.values())

        if self.config.passes == "together":
            everything = encode_keys(encode, torch.cat(views), shuffle)
            by_head = [by_view(keys, len(views)) for keys in everything]
        else:
            by_view_and_head = [encode_keys(encode, view, shuffle, places) for view in views]
            by_head = list(map(torch.stack, zip(*by_view_and_head, strict=True)))
        found = zip(self.config.branches, by_head, strict=True)
        return {branch.name: keys[branch.first : branch.first + branch.count] for branch, keys in found}

    def loss(self, branch: Branch, queries: Tensor, keys: Tensor, numbers: Tensor) -> Tensor:
        """The loss of a branch: queries (B, D) against their own of its keys (P, G, D), and the queue as it was."""
        queue: Queue = self.queues[branch.name]  # type: ignore[assignment]
        taken = branch.count if self.config.enqueue == "all" else 1
        mine = numbers[:, branch.first : branch.first + branch.count]
        if queue.numbers is None:
            excluded = None
            queue.offer(keys[:taken].flatten(0, 1))
        else:
            excluded = queue.of(torch.cat([numbers[:, :1], mine], dim=1))
            queue.offer(keys[:taken].flatten(0, 1), gather(mine).T[:taken].flatten())
        positives = torch.stack([own_rows(key, len(queries)) for key in keys], dim=1)
        return multi_positive_info_nce(queries, positives, queue.keys, branch.temperature, excluded)

    def on_step_end(self, progress: float) -> dict[str, float]:
        for queue in self.queues.values():
            queue.commit()  # type: ignore[operator]
        self.key_encoder.update(self.config.momentum, backbone=self.backbone, heads=self.heads)
        return {"key_momentum": self.config.momentum}


def by_view(keys: Tensor, views: int) -> Tensor:
    """The keys (V, G, D) of each view, of keys (world * V * B, D) that stand view by view within each process."""
    return keys.view(world_size(), views, -1, keys.shape[1]).transpose(0, 1).flatten(1, 2)


def partners_of(images: Images, path: str) -> np.ndarray:
    """The mined partners (N, 4) of images; ImageSourceError where there are none of theirs."""
    require_labels(images, "FLAGS")
    if not path:
        raise PairsError(
            "FLAGS learns from mined pairs, and none are named: mine them with ssl-backbones mine-pairs and name the "
            "file with --method.pairs, or train without them (--method.no_global_pair --method.no_local_branch)"
        )
    return Pairs.read(path, images).rows
