"""Images of a page: as they are shown, the features a network gives them, and the views its method is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_backbones.data import Images, ImageSourceError, UnreadableImageError
from ssl_backbones.data.placement import to_device
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import modes_kept
from ssl_backbones.views import CenterCrop, CropFlip, LocatedViews, MultiView, PatchViews, Rotations, Transform
from ssl_backbones.views.channel_image import picture
from ssl_backbones.visualizers.alignment import alignment_maps
from ssl_backbones.visualizers.grad_cam import grad_cam
from ssl_backbones.visualizers.targets import HasLogits, PretextLogit

SIDE = 144
"""Side of an image on the page, in pixels."""
MAP_SCALE = 2
"""Maps are made of images so many times larger than those the network was trained on, for a finer grid."""
BLOCK = 64
"""Images that pass the network at once."""
TURNS = ("0°", "90°", "180°", "270°")


@dataclass(frozen=True)
class Viewer:
    """A network with all that it needs to look at images."""

    name: str
    model: nn.Module
    """A method with its heads where there is one, or else a backbone."""
    crop: CenterCrop
    """The preparation of images for it."""
    device: torch.device
    seed: int = 0

    @property
    def backbone(self) -> nn.Module:
        return self.model.published if isinstance(self.model, Method) else self.model

    def crop_to(self, size: int) -> CenterCrop:
        """The same part of an image, with another number of pixels."""
        return replace(self.crop, size=size)

    def on_device(self, levels: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) of levels (B, S, S, 3)."""
        return self.crop.on_device(levels.to(self.device))

    def pictures(self, images: Tensor) -> list[Image.Image]:
        """Normalised images (B, 3, S, S) in their own colours."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.crop.mean, self.crop.std))
        levels = (255 * (images.detach().float().cpu() * std + mean)).round().clamp(0, 255).byte()
        return [picture(levels_of.permute(1, 2, 0).contiguous().numpy()) for levels_of in levels]


@dataclass(frozen=True)
class PageImages:
    """Some images of a source, as they are shown and as the network sees them; none larger than that."""

    source: Images
    indices: list[int]
    """(N,) of the source, those that can be read."""
    shown: list[Image.Image]
    """(N,) SIDE x SIDE, the part that the network sees."""
    features: Tensor
    """(N, D), on the CPU."""
    unreadable: int
    """The number of those asked for that could not be read."""

    def name(self, at: int) -> str:
        """The image's own name."""
        return self.source.keys[self.indices[at]]

    @property
    def labels(self) -> np.ndarray | None:
        """(N,), or None where the source has none."""
        return None if self.source.labels is None else np.asarray(self.source.labels)[self.indices]

    def class_of(self, at: int) -> str:
        """The name of the image's class; empty without one."""
        label = -1 if self.labels is None else int(self.labels[at])
        return self.source.classes[label] if label >= 0 else ""

    def some(self, count: int) -> list[int]:
        """Up to `count` of the images, evenly spread."""
        return at_even_distances(len(self.indices), count)


def at_even_distances(total: int, count: int) -> list[int]:
    """Up to `count` whole numbers below `total`, at even distances."""
    chosen: list[int] = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    return chosen


def read_page_images(viewer: Viewer, source: Images, count: int) -> PageImages:
    """Up to `count` images, evenly spread, with their features; ImageSourceError where none can be read."""
    display = viewer.crop_to(SIDE)
    indices: list[int] = []
    shown: list[Image.Image] = []
    features: list[Tensor] = []
    asked = at_even_distances(len(source), count)
    for start in range(0, len(asked), BLOCK):
        read = list(readable(source, asked[start : start + BLOCK]))
        if not read:
            continue
        indices += [index for index, _ in read]
        images = [image for _, image in read]
        shown += [picture(levels) for levels in display.on_host(images, None).numpy()]
        features.append(features_by(viewer, images))
    if not indices:
        raise ImageSourceError(f"none of {len(asked)} images can be read: look at the files, or name others")
    return PageImages(source, indices, shown, torch.cat(features), len(asked) - len(indices))


def features_by(viewer: Viewer, images: list[Image.Image]) -> Tensor:
    """The features (N, D) that a network gives to images, on the CPU."""
    with modes_kept(viewer.backbone), torch.no_grad():
        found: Tensor = viewer.backbone.eval()(viewer.on_device(viewer.crop.on_host(images, None))).float().cpu()
    return found


def seen_by(viewer: Viewer, images: PageImages) -> PageImages:
    """The same images with the features that another network gives them."""
    parts = [images.indices[start : start + BLOCK] for start in range(0, len(images.indices), BLOCK)]
    features = [features_by(viewer, [images.source[index] for index in part]) for part in parts]
    return replace(images, features=torch.cat(features))


def readable(source: Images, indices: list[int]) -> Iterator[tuple[int, Image.Image]]:
    """Those of the images that can be read, with their indices."""
    for index in indices:
        try:
            yield index, source[index]
        except UnreadableImageError:
            continue


def magnified(viewer: Viewer, images: PageImages, chosen: list[int]) -> Tensor:
    """Some of the images as normalised images (B, 3, S, S), with more pixels than the network was trained on."""
    crop = viewer.crop_to(MAP_SCALE * viewer.crop.size)
    levels = [crop.on_host([images.source[images.indices[at]]], None) for at in chosen]
    return viewer.on_device(torch.cat(levels))


@dataclass(frozen=True)
class TaskViews:
    """The views of an image by which a method learns, and a map of each."""

    pictures: list[Image.Image]
    heats: np.ndarray
    """(V, S, S) in [0, 1]."""
    titles: list[str]
    told: list[str]
    """The turn that the method's head takes each view for, and its probability."""


def task_views(viewer: Viewer, images: PageImages, at: int) -> TaskViews | None:
    """The turned views that the method is trained on, with the map of each one's own logit and what its head says.

    They have the size of training, and neither its shifts nor its mirror images. None for a network that does not
    learn by turns.
    """
    model, size = viewer.model, viewer.crop.size
    own = model.transform(size) if isinstance(model, Method) else None
    if not (isinstance(model, HasLogits) and isinstance(own, PatchViews | Rotations)):
        return None
    transform = replace(own, base=CropFlip(size, padding=0.0, flip_p=0.0))
    views: Tensor = transformed(transform, images, [at], viewer)
    turned = list(TURNS) if len(views) == 4 else [*TURNS, *(f"patch {turn}" for turn in TURNS)]
    heats = grad_cam(model, views, PretextLogit(tuple(range(len(views))))).cpu().numpy()
    with modes_kept(model), torch.no_grad():
        model.eval()
        shares = model.logits(views).float().softmax(1).cpu()
    told = [f"{turned[int(row.argmax())]}, {row.max():.0%}" for row in shares]
    return TaskViews(viewer.pictures(views), heats, turned, told)


def transformed(transform: Transform, images: PageImages, chosen: list[int], viewer: Viewer) -> Any:
    """The content that a transform makes of some of the images, as in the first epoch."""
    indices = np.asarray([images.indices[at] for at in chosen])
    parameters = transform.draw(viewer.seed, 0, indices)
    content = transform.on_host([images.source[int(index)] for index in indices], parameters)
    return transform.on_device(to_device(content, viewer.device))


def view_pairs(
    viewer: Viewer, images: PageImages, chosen: list[int]
) -> tuple[tuple[list[Image.Image], list[Image.Image]], tuple[Tensor, Tensor]] | None:
    """Two augmented views of some images as the method is trained on them, and the alignment maps (B, n, h, w) of each.

    None for a method that takes no two such views.
    """
    if not isinstance(viewer.model, Method):
        return None
    transform = viewer.model.transform(MAP_SCALE * viewer.crop.size)
    transform = transform.views if isinstance(transform, LocatedViews) else transform
    if not isinstance(transform, MultiView) or len(transform.policies) != 2:
        return None
    first, second = transformed(transform, images, chosen, viewer)
    maps = tuple(alignment_maps(viewer.model, view).float().cpu() for view in (first, second))
    return (viewer.pictures(first), viewer.pictures(second)), (maps[0], maps[1])
