"""A network and the images that a judge measures it by during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ssl_backbones.data.batches import Batches
from ssl_backbones.data.images import Images
from ssl_backbones.data.placement import to_device
from ssl_backbones.data.unreadable import Accounts, Unreadable
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import center_crop
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.train.embed import embed
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import (
    MOCO_V2_SMALL_VIEWS,
    MOCO_V2_VIEWS,
    CenterCrop,
    MultiView,
    SingleView,
    Transform,
    seed_of,
)

SMALL = 64
"""Pixels up to which measured views are not blurred."""
MEASURED = 3
"""A counter that makes the draw of measured views another than that of training views."""


@dataclass(frozen=True)
class Bench:
    """A run as its judges see it: the network, the data, and the precision and processes that it is computed in."""

    run: Run
    method: Method
    loader: Loader
    unreadable: Accounts
    accelerator: Accelerator
    shown: nn.Module | None = None
    """The backbone to measure, where it is another than the method's."""

    @property
    def device(self) -> torch.device:
        """The network's device."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def size(self) -> int:
        """Side of a training view, in pixels."""
        return self.run.size

    @property
    def workers(self) -> int:
        """Processes that read images beside this one."""
        return self.loader.workers

    def crop_of(self, backbone: nn.Module) -> CenterCrop:
        """The middle crop of a backbone, at the size and with the channels of the run."""
        return center_crop(backbone, self.size, self.run.decoding.seen)

    def view_of(self, backbone: nn.Module) -> MultiView:
        """The view by which an image is sought, as it is prepared for a backbone."""
        return view_of(self.crop_of(backbone), self.run.decoding.channels)

    def autocast(self) -> AbstractContextManager[Any]:
        """Context manager: compute in the run's precision."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def embed(self, images: Images, indices: np.ndarray) -> Tensor:
        """The backbone's features (N, D) of the images at `indices` (N,), cropped at the centre, in every process."""
        return self.embed_by(self.crop_of(self.method.backbone), images, indices)

    def embed_share(self, images: Images, network: nn.Module) -> Tensor:
        """The features (S, D) that a network makes of this process's share of all images, cropped at the centre.

        They are those at its `own_places`.
        """
        crop = self.crop_of(self.method.backbone)
        return self.embed_by(crop, images, np.arange(len(images)), network, shared_out=True)

    def embed_views(self, images: Images, indices: np.ndarray) -> Tensor:
        """The backbone's features (N, D) of one augmented view of each image, the same view at every call."""
        return self.embed_by(SingleView(self.view_of(self.method.backbone)), images, indices)

    def embed_by(
        self,
        transform: Transform,
        images: Images,
        indices: np.ndarray,
        network: nn.Module | None = None,
        *,
        shared_out: bool = False,
    ) -> Tensor:
        """The features (N, D) of images at `indices` (N,) as a transform makes them, in every process.

        They are the backbone's, unless a network is given. Where they are shared out, a process gets those at its
        `own_places`.
        """
        backbone = network or self.shown or self.method.published
        dataset = Batches(images, transform, seed_of(self.run.seed, MEASURED))
        features, unreadable = embed(
            backbone,
            dataset,
            indices,
            self.device,
            workers=self.workers,
            autocast=self.autocast(),
            shared_out=shared_out,
        )
        self.count_unreadable(images, unreadable)
        return features

    def count_unreadable(self, images: Images, left_out: Mapping[str, str]) -> Unreadable:
        """Add the images (key to reason) that each process could not read, and return the account of all processes.

        All processes call it together; TooManyUnreadableError, in all of them, ends the run.
        """
        return self.unreadable.count(images, left_out)

    def training_batches(self, count: int) -> Iterator[Any]:
        """Yield so many batches of training images from beyond the last epoch, the same at every call.

        Each is on the device, and autocast is on until the next is asked for.
        """
        first = self.run.epochs * self.loader.steps_per_epoch
        for step, micro_batches in enumerate(self.loader.steps(first, first + count), start=first):
            torch.manual_seed(seed_of(self.run.seed, step, self.accelerator.process_index))
            for batch in micro_batches:
                with self.autocast():
                    yield self.loader.dataset.on_device(to_device(batch.content, self.device))


def view_of(crop: CenterCrop, channels: int = 0, count: int = 1) -> MultiView:
    """The view by which an image is sought, or more: MoCo v2's at the size of the crop, whatever a method trains on.

    Small ones are not blurred, and those of images with channels of their own are without what is defined for colours.
    """
    policy, _ = MOCO_V2_SMALL_VIEWS if crop.size <= SMALL else MOCO_V2_VIEWS
    policies = (policy.of_channels() if channels else policy,) * count
    return MultiView(policies, crop.size, "pillow", crop.mean, crop.std)
