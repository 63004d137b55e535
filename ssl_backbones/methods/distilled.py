"""Distillation: a small network learns to predict the features of a frozen teacher, without labels of the images.

A regression by cosine through a head that is thrown away (SimReg: Navaneet et al., 2021. https://arxiv.org/abs/2201.05131),
towards features less their mean, so that what all images share teaches nothing; and of feature maps, cell by cell
(AM-RADIO: Ranzinger et al., 2024. https://arxiv.org/abs/2312.06709).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_backbones.checks import check, check_choice, check_positive
from ssl_backbones.data import BatchDataset, Batches, Images, NumberedBatches
from ssl_backbones.data.subset import Subset
from ssl_backbones.distributed import doing, share_first
from ssl_backbones.losses import cosine_distance, map_distance
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.kept_features import keep_features
from ssl_backbones.models.teacher import Output, Seen, Teacher, TeacherError
from ssl_backbones.models.teacher_moments import Moments, looked_over
from ssl_backbones.registry.papers import Paper
from ssl_backbones.typed.values import to_plain
from ssl_backbones.views import DISTILLED_VIEW, MultiView, Policy

LARGEST = 224
"""Side of the whole images that a teacher sees, unless it was made for smaller ones or another is asked for."""
BESIDE = "beside"
"""The name of a folder beside the images."""


@dataclass(frozen=True)
class DistilledConfig(MethodConfig):
    """The choices of distillation."""

    name: ClassVar[str] = "distilled"
    paper: ClassVar[Paper] = Paper(
        "distillation",
        "SimReg: Regression as a Simple Yet Effective Tool for Self-supervised Knowledge Distillation",
        "Navaneet et al.",
        2021,
        "https://arxiv.org/abs/2201.05131",
    )
    teacher: str = "vit_small_patch14_dinov2.lvd142m"
    """The frozen network to learn from: of timm's with weights, hf-hub:org/name, or a folder of timm's or a run's."""
    teacher_layer: str = ""
    """Its layer, by timm's name for it, such as blocks.10; empty for the last, after its norm."""
    teacher_output: Output = "pooled"
    """Its features of an image: by its own pooling, the class token, the mean of the patches, or both."""
    teacher_size: int = 0
    """Side of the images it sees; 0 for twice the student's or, of kept features, its own and at most 224."""
    kept: str = ""
    """Folder for its features of whole images, made once; "beside" for one beside the images; empty, and the teacher
    sees every view that the student sees."""
    dense_weight: float = 0.0
    """Weight of the feature maps against that of the pooled features; 0 for none. Kept features have no maps."""
    hidden_dim: int | None = None
    """The width inside the head; None for twice the student's."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy] = (DISTILLED_VIEW,)

    def __post_init__(self) -> None:
        check_choice("teacher_output", self.teacher_output, Output)
        check(self.teacher_size >= 0, "teacher_size", self.teacher_size, "at least 0")
        check(0 <= self.dense_weight < np.inf, "dense_weight", self.dense_weight, "at least 0")
        check(not (self.kept and self.dense_weight), "dense_weight", self.dense_weight, "0 where features are kept")
        if self.hidden_dim is not None:
            check_positive(hidden_dim=self.hidden_dim)

    @property
    def given(self) -> tuple[str, ...]:
        return (self.teacher,)

    def build(self, backbone: nn.Module) -> Distilled:
        return Distilled(backbone, self)


class Distilled(Method):
    """The pooled features of a view, through a head, predict the teacher's; its feature map predicts the teacher's map.

    The means that are taken off are buffers, measured on the images before the first step.
    """

    centre: Tensor
    """(D,): the mean of the teacher's features."""
    shift: Tensor
    scale: Tensor
    """(3, 1, 1): from a view's normalisation to the teacher's."""
    map_centre: Tensor
    map_scale: Tensor
    """(E,) and (): the mean of the cells of the teacher's maps, and their spread; there with the dense term alone."""
    teacher_sha256: Tensor
    """(32,) uint8: the digest of the teacher's weights, so that a run goes on with the same; zeros before `dataset`."""

    def __init__(self, backbone: nn.Module, config: DistilledConfig | None = None) -> None:
        """Raise TeacherError for a teacher that nothing is known of, or that has not what is asked for."""
        super().__init__()
        self.config = config = config or DistilledConfig()
        self.backbone = backbone
        self.teacher = Teacher(config.teacher, config.teacher_layer, config.teacher_output)
        width = width_of(backbone)
        self.projector = MLPHead(width, config.hidden_dim or 2 * width, self.teacher.width)
        self.register_buffer("centre", torch.zeros(self.teacher.width))
        self.register_buffer("teacher_sha256", torch.zeros(32, dtype=torch.uint8))
        views = self.transform(1)
        shift, scale = self.teacher.affine(views.mean, views.std)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        if config.dense_weight:
            self.add_dense(width)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def add_dense(self, width: int) -> None:
        """Add what the dense term needs; TeacherError for a teacher without feature maps."""
        maps = self.teacher.map_width
        if maps is None:
            raise TeacherError(
                f"the teacher {self.config.teacher!r} has no feature maps, which dense_weight "
                f"{self.config.dense_weight:g} asks for: set --method.dense_weight 0, or take a teacher that has them"
            )
        self.map_projector = nn.Conv2d(width, maps, 1)
        self.register_buffer("map_centre", torch.zeros(maps))
        self.register_buffer("map_scale", torch.ones(()))

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches of views, with the teacher's features of the whole images where those are kept.

        Opens the teacher and, the first time, measures its means. TeacherError for one that cannot be had, and for
        kept features that are of something else.
        """
        side = self.side_for(size)
        self.teacher.open(side)
        digest = torch.frombuffer(bytearray.fromhex(self.teacher.sha256), dtype=torch.uint8)
        if not self.config.kept:
            if not self.teacher_sha256.any():
                with doing(f"{self.teacher.name} looks at some of the images, for the mean of its features"):
                    self.measured(*looked_over(self.teacher, side, images))
            self.teacher_sha256.copy_(digest)
            return Batches(images, self.transform(size), seed)
        features = keep_features(self.teacher, side, images, self.folder_for(images, side))
        if not self.teacher_sha256.any():
            self.measured(Moments.over(features.blocks()), None)
        self.teacher_sha256.copy_(digest)
        return NumberedBatches(images, self.transform(size), seed, features)

    def account(self) -> dict[str, Any]:
        """The provenance of the teacher, and which of its features were learnt from how prepared images."""
        teacher = self.teacher
        if teacher.provenance is None:
            return {}
        return {
            "teacher": to_plain(teacher.provenance),
            "taught": {
                "layer": teacher.layer or "the last",
                "output": teacher.output,
                "of": "whole images, kept" if self.config.kept else "every view",
                "size": teacher.side,
                "multiple_of": teacher.patch,
                "mean": list(teacher.cfg["mean"]),
                "std": list(teacher.cfg["std"]),
            },
        }

    def measured(self, moments: Moments, of_maps: Moments | None) -> None:
        """Take up the moments of the teacher's features and of its maps, alike in all processes."""
        self.centre.copy_(moments.mean)
        share_first(self.centre)
        if self.config.dense_weight and of_maps is not None:
            self.map_centre.copy_(of_maps.mean)
            self.map_scale.fill_(of_maps.scale)
            share_first(self.map_centre)
            share_first(self.map_scale)

    def side_for(self, size: int) -> int:
        """The side of the images that the teacher sees, where the student's views are of `size` pixels."""
        if self.config.teacher_size:
            return self.config.teacher_size
        usual = min(self.teacher.own_side, LARGEST) if self.config.kept else 2 * size
        return self.teacher.fitting(usual)

    def folder_for(self, images: Images, side: int) -> Path:
        """The folder of kept features; TeacherError where it is to lie beside images that lie nowhere here."""
        if self.config.kept != BESIDE:
            return Path(self.config.kept).expanduser()
        if images.place is None:
            raise TeacherError(
                "features cannot be kept beside these images, which lie in no folder of this machine: name a folder "
                "with --method.kept"
            )
        place = images.place.expanduser().absolute()
        part = f"-{images.fingerprint[:8]}" if isinstance(images, Subset) else ""
        teacher = self.teacher
        words = (Path(teacher.name).name, teacher.layer, teacher.output, f"{side}px")
        return place.with_name(f"{place.name}{part}." + re.sub(r"[^\w.-]+", "_", "-".join(filter(None, words))))

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score a batch: views [(B, 3, S, S)] and, where they are kept, the teacher's features (B, D)."""
        if self.config.kept:
            (view,), features = batch
            seen = Seen(features, None)
        else:
            (view,) = batch
            seen = self.teacher.look(self.shown(view))
        maps = feature_map(self.backbone, view)
        target = seen.features.to(self.centre.dtype) - self.centre
        loss = cosine_distance(self.projector(pooled(maps)), target) / 2
        if not self.config.dense_weight:
            return {"loss": loss, "chance": 1.0}
        dense = self.dense_loss(maps, seen.maps)
        total = loss + self.config.dense_weight * dense
        return {"loss": total, "pooled_loss": loss.detach(), "dense_loss": dense.detach()}

    def shown(self, view: Tensor) -> Tensor:
        """A view (B, 3, S, S) as the teacher wants it: at its side, and in its normalisation."""
        side = self.side_for(view.shape[-1])
        if side != view.shape[-1]:
            view = interpolate(view, (side, side), mode="bilinear", antialias=side < view.shape[-1])
        return view * self.scale + self.shift

    def dense_loss(self, maps: Tensor, target: Tensor | None) -> Tensor:
        """The distance of the student's maps (B, C, h, w), at the teacher's size, from its maps (B, D, H, W)."""
        assert target is not None
        predicted = interpolate(self.map_projector(maps), target.shape[-2:], mode="bilinear")
        target = (target.to(self.map_centre.dtype) - self.map_centre[:, None, None]) / self.map_scale
        return map_distance(predicted, target)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take up a state; TeacherError for one of another teacher than that of this run."""
        saved, own = state_dict.get("teacher_sha256"), self.teacher_sha256.cpu()
        if saved is not None and saved.any() and own.any() and not torch.equal(saved.cpu(), own):
            raise TeacherError(
                f"the teacher {self.config.teacher!r} is not the one that the run began with (sha256 of its weights "
                f"{own.numpy().tobytes().hex()[:12]} instead of {saved.cpu().numpy().tobytes().hex()[:12]}): bring "
                "that one back, or begin another run with --out"
            )
        return super().load_state_dict(state_dict, *args, **kwargs)
