"""A frozen teacher as a branch of a method: its features of views, or kept ones of middle squares, less their mean."""

from __future__ import annotations

import re
from abc import ABC
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_backbones.checks import check_at_least
from ssl_backbones.data import BatchDataset, Batches, Images, NumberedBatches
from ssl_backbones.distributed import doing, share_first
from ssl_backbones.models.kept_features import keep_features
from ssl_backbones.models.records_behind import shown
from ssl_backbones.models.teacher import Output, Seen, Teacher, TeacherError
from ssl_backbones.models.teacher_moments import Moments, looked_over
from ssl_backbones.typed.values import check_choices, to_plain
from ssl_backbones.views import DISTILLED_KEPT_VIEW, MultiView, Policy

LARGEST = 224
"""Largest side of an image's middle square, or of a view enlarged for a teacher, unless another is asked for."""
BESIDE = "beside"
"""The name of a folder beside the images."""


@dataclass(frozen=True)
class TeacherConfig(ABC):  # noqa: B024  # fields alone
    """The choice of a frozen teacher, of its features, and of the images that it sees."""

    teacher: str = "vit_small_patch14_dinov2.lvd142m"
    """Frozen network to learn from: a timm name with weights, hf-hub:org/name, or a folder written by timm or a run."""
    teacher_layer: str = ""
    """Layer of the teacher, by timm's name, such as blocks.10; empty for the last, after its norm."""
    teacher_output: Output = "pooled"
    """Features of the teacher: its own pooling, the class token, the mean of the patches, or both of these."""
    teacher_size: int = 0
    """Side of the teacher's images, in pixels; 0 for twice the student's up to 224, no less than the student's; or, for
    kept features, the teacher's own up to 224."""
    kept: str = ""
    """Folder that keeps the teacher's features, computed once for the middle square of each image; "beside" for a
    folder beside the images; empty to run the teacher on every view."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, teacher_size=0)

    @property
    def given(self) -> tuple[str, ...]:
        """The name of the teacher, which a run must not move."""
        return (self.teacher,)

    @property
    def usual_views(self) -> tuple[Policy, ...]:
        """Mild crops where features of the middle square are kept, and those of the method where each view is seen."""
        own: Any = {field.name: field.default for field in fields(self)}["views"]
        return (DISTILLED_KEPT_VIEW,) * len(own) if self.kept else own

    def on_trial(self, folder: Path) -> Self:
        """The same teacher for a trial on some images, its kept features in a folder of the trial's own."""
        return replace(self, kept=str(folder)) if self.kept else self


@final
class TeacherBranch(nn.Module):
    """The features that a method learns from a frozen teacher, which is neither trained nor saved; no parameters.

    The means that are taken off are buffers, measured on the images before the first step.
    """

    measured_anew: ClassVar[tuple[str, ...]] = ("centre", "map_centre", "map_scale", "sha256")
    """Buffers that a run has of its own teacher and images, and takes over from no other."""
    centre: Tensor
    """(D,): the mean of the teacher's features."""
    shift: Tensor
    scale: Tensor
    """(3, 1, 1): from a view's normalisation to the teacher's."""
    map_centre: Tensor
    map_scale: Tensor
    """(E,) and (): the mean of the cells of the teacher's maps, and their spread; there where maps are asked for."""
    sha256: Tensor
    """(32,) uint8: the digest of the teacher's weights, so that a run goes on with the same; zeros before `batches`."""

    def __init__(self, config: TeacherConfig, views: MultiView, maps: str = "") -> None:
        """Raise TeacherError for a teacher that nothing is known of, or that has not what is asked for.

        `maps` are the words of an error on what asks for feature maps, and the way out; empty where nothing does.
        """
        super().__init__()
        self.config = config
        self.teacher = Teacher(config.teacher, config.teacher_layer, config.teacher_output)
        self.width, self.map_width = self.teacher.width, self.teacher.map_width or 0
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("sha256", torch.zeros(32, dtype=torch.uint8))
        shift, scale = self.teacher.affine(views.mean, views.std)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.has_looked = False  # told apart without asking a device
        self.asks_for_maps = bool(maps)
        if maps:
            if not self.map_width:
                raise TeacherError(
                    f"the teacher {config.teacher!r} has no feature maps, which {maps}, or take a teacher that has them"
                )
            self.register_buffer("map_centre", torch.zeros(self.map_width))
            self.register_buffer("map_scale", torch.ones(()))

    def batches(self, images: Images, transform: MultiView, seed: int) -> BatchDataset:
        """Batches of views, with the teacher's features of images' middle squares where those are kept.

        Opens the teacher and, the first time, measures its means. TeacherError for one that cannot be had, and for
        kept features that are of something else.
        """
        side = self.side_for(transform.size)
        self.teacher.open(side)
        digest = torch.frombuffer(bytearray.fromhex(self.teacher.sha256), dtype=torch.uint8)
        begun = bool(self.sha256.any())
        if not self.config.kept:
            if not begun:
                with doing(f"{self.teacher.name} looks at some of the images, for the mean of its features"):
                    self.measured(*looked_over(self.teacher, side, images))
            self.taken_up(digest)
            return Batches(images, transform, seed)
        features = keep_features(self.teacher, side, images, self.folder_for(images, side))
        if not begun:
            self.measured(Moments.over(features.blocks()), None)
        self.taken_up(digest)
        return NumberedBatches(images, transform, seed, features)

    def taken_up(self, digest: Tensor) -> None:
        """Remember the teacher whose means are measured."""
        self.sha256.copy_(digest)
        self.has_looked = True

    def measured(self, moments: Moments, of_maps: Moments | None) -> None:
        """Take up the moments of the teacher's features and of its maps, alike in all processes."""
        self.centre.copy_(moments.mean)
        share_first(self.centre)
        if self.asks_for_maps and of_maps is not None:
            self.map_centre.copy_(of_maps.mean)
            self.map_scale.fill_(of_maps.scale)
            share_first(self.map_centre)
            share_first(self.map_scale)

    def side_for(self, size: int) -> int:
        """The side of the images that the teacher sees, where the student's views are of `size` pixels."""
        if self.config.teacher_size:
            return self.config.teacher_size
        whole, view = min(self.teacher.own_side, LARGEST), max(size, min(2 * size, LARGEST))
        return self.teacher.fitting(whole if self.config.kept else view)

    def cells(self, side: int) -> int:
        """The count of cells of its map of an image of `side` pixels; TeacherError where it takes none such."""
        maps = self.teacher.tried(self.teacher.made(side, weights=False), side).maps
        return 0 if maps is None else maps[0, 0].numel()

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
        teacher = self.teacher
        words = (shown(teacher.name), teacher.layer, teacher.output, f"{side}px")
        by = re.sub(r"[^\w.-]+", "_", "-".join(filter(None, words)))
        return place.with_name(f"{place.name}{images.part_mark}.{by}")

    def look(self, view: Tensor) -> Seen:
        """The features (B, D) of a view (B, 3, S, S) less their mean, and standardised maps (B, E, h, w) if asked for.

        The teacher sees the view at its own side, and in its normalisation.
        """
        seen = self.teacher.look(self.shown(view))
        if not self.asks_for_maps or seen.maps is None:
            return Seen(self.centred(seen.features), None)
        maps = (seen.maps.to(self.map_centre.dtype) - self.map_centre[:, None, None]) / self.map_scale
        return Seen(self.centred(seen.features), maps)

    def centred(self, features: Tensor) -> Tensor:
        """The teacher's features (B, D) less their mean; TeacherError before the mean is measured or loaded."""
        if not self.has_looked:
            raise TeacherError(
                f"the teacher {self.config.teacher!r} has not seen the images yet: make the batches by "
                "method.dataset(images, size, seed) before the first step"
            )
        return features.to(self.centre.dtype) - self.centre

    def shown(self, view: Tensor) -> Tensor:
        """A view (B, 3, S, S) as the teacher wants it: at its side, and in its normalisation."""
        side = self.teacher.side or self.side_for(view.shape[-1])
        if side != view.shape[-1]:
            view = interpolate(view, (side, side), mode="bilinear", antialias=side < view.shape[-1])
        return view * self.scale + self.shift

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
                "of": "the middle square of each image, kept" if self.config.kept else "every view",
                "size": teacher.side,
                "multiple_of": teacher.patch,
                "mean": list(teacher.cfg["mean"]),
                "std": list(teacher.cfg["std"]),
            },
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take up a state; TeacherError for one of another teacher than that of this run."""
        saved, own = state_dict.get(f"{prefix}sha256"), self.sha256.cpu()
        if saved is not None and saved.any() and own.any() and not torch.equal(saved.cpu(), own):
            raise TeacherError(
                f"the teacher {self.config.teacher!r} is not the one that the run began with (sha256 of its weights "
                f"{own.numpy().tobytes().hex()[:12]} instead of {saved.cpu().numpy().tobytes().hex()[:12]}): bring "
                "that one back, or begin another run with --out"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.has_looked = self.has_looked or (saved is not None and bool(saved.any()))
