"""Two views of each image with a mask, each with its part of the mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.masks import Scenes
from ssl_backbones.runs.progress import counted
from ssl_backbones.views import SUPERVISED_VIEW, Geometry, LocatedViews, MultiView
from ssl_backbones.views.normalise import normalise


@dataclass(frozen=True)
class ScenePairs:
    """Two crops of each of N images, mirrored or not, with their masks."""

    levels: Tensor
    """(2, N, S, S, 3) uint8"""
    masks: Tensor
    """(2, N, S, S) uint8: the class of each pixel, 0 for the background and 255 for what is not told."""
    corners: Tensor
    """(2, N, 4) x0, y0, x1, y1 in pixels of the images, x0 > x1 in a mirrored view."""

    def __len__(self) -> int:
        return self.levels.shape[1]

    def normalised(self, rows: slice, mean: tuple[float, ...], std: tuple[float, ...]) -> Iterator[Tensor]:
        """Both views (B, 3, S, S) of some images, as a network takes them."""
        for view in self.levels[:, rows]:
            yield normalise(view.permute(0, 3, 1, 2), mean, std)

    def objects(self, rows: slice, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The share (B, K, P) of each of h x w positions that each class has, in both views of some images."""
        masks = self.masks[:, rows]
        kinds = [int(kind) for kind in masks.unique() if kind not in (0, IGNORED)] or [1]
        present = torch.stack([(masks == kind).float() for kind in kinds], dim=2)  # (2, B, K, S, S)
        first, second = (adaptive_avg_pool2d(view, grid).flatten(2) for view in present)
        return first, second

    def with_objects(self) -> list[int]:
        """The images of which both views show a class that is neither background nor ignored."""
        seen = [[set(mask.unique().tolist()) - {0, IGNORED} for mask in view] for view in self.masks]
        return [at for at, (first, second) in enumerate(zip(*seen, strict=True)) if first & second]

    def pictures(self, at: int) -> tuple[Image.Image, Image.Image]:
        """Both views of an image."""
        first, second = (Image.fromarray(levels.numpy()) for levels in self.levels[:, at])
        return first, second


def pairs_of(scenes: Scenes, size: int, area: tuple[float, float], seed: int) -> ScenePairs:
    """Two crops of `size` px of every scene: a function of seed and place, and the same for all networks."""
    policy = replace(SUPERVISED_VIEW, area=area)
    transform = LocatedViews(MultiView((policy, policy), size, "pillow"))
    levels, masks, corners = [], [], []
    for index in counted(range(len(scenes)), len(scenes), "drawing pairs of views"):
        parameters = transform.draw(seed, 0, np.array([index]))
        located = transform.on_host([scenes[index]], parameters)
        levels.append(torch.cat(list(located.views)))
        masks.append(masks_of(scenes.mask(index), located.geometry, size))
        corners.append(located.geometry.corners_in_pixels()[:, 0])
    return ScenePairs(torch.stack(levels, 1), torch.stack(masks, 1), torch.stack(corners, 1))


def masks_of(mask: np.ndarray, geometry: Geometry, size: int) -> Tensor:
    """The parts (V, S, S) of an image's mask (H, W) that its views show."""
    found = []
    for box, flipped in zip(geometry.boxes[0].tolist(), geometry.flips[0].tolist(), strict=True):
        left, top, width, height = box
        part = Image.fromarray(mask[top : top + height, left : left + width])
        levels = torch.from_numpy(np.array(part.resize((size, size), Image.Resampling.NEAREST)))
        found.append(levels.flip(1) if flipped else levels)
    return torch.stack(found)
