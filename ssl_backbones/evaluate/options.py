"""The options of all that shows images to a model, or works on its features."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_backbones.checks import check, check_at_least, check_seed
from ssl_backbones.data.channels import MOST
from ssl_backbones.data.decode import MAX_PIXELS, DecodePolicy
from ssl_backbones.data.subset import Selection, check_hold_out
from ssl_backbones.evaluate.feature_store import folder_beside
from ssl_backbones.evaluate.features import Extraction
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.train.precision import Precision
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ABC):
    """The model, the images, and how they are shown to it."""

    model: Positional[str]
    """A registered name, a timm name, hf-hub:org/name, or the folder of a run."""
    data: str
    """A folder of images, parquet files, tar shards, or a Hub dataset id."""
    verify: bool = False
    """Check the index kept from earlier starts against every image instead of a few; reads all images."""
    size: int = 0
    """Side of the centre crop, in pixels; 0 for the model's own."""
    precision: Precision = "fp32"
    """Number format that the network is computed in."""
    batch_size: int = 256
    """Images shown at once, per process."""
    workers: int | None = None
    """Processes that read images, per process. Default: as many as the machine has cores for."""
    unreadable_share: float = 0.01
    """Share of unreadable images above which the command ends."""
    max_pixels: int = MAX_PIXELS
    """Largest image, in pixels; a larger one is skipped as unreadable."""
    in_chans: int = 0
    """Channels of the model's images, where it was trained with --in_chans; 0 for RGB of 8 bits."""

    def __post_init__(self) -> None:
        check_at_least(self, size=0, batch_size=1, max_pixels=1, workers=0)
        check(0 <= self.in_chans <= MOST, "in_chans", self.in_chans, f"from 1 to {MOST}, or 0 for RGB of 8 bits")
        check(0 <= self.unreadable_share <= 1, "unreadable_share", self.unreadable_share, "at least 0 and at most 1")

    @property
    def decoding(self) -> DecodePolicy:
        """The rules by which images are decoded."""
        return DecodePolicy(self.max_pixels, channels=self.in_chans)

    def extraction(self, cache: Path | None = None) -> Extraction:
        """The settings of feature extraction, with a folder to keep features in if one is given."""
        return Extraction(
            cache,
            self.precision,
            self.batch_size,
            reading_workers(self.workers),
            self.unreadable_share,
        )


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(ImageOptions, ABC):
    """The part of the images that is taken, and how features are computed."""

    classes: str = ""
    """File that lists the classes to use, one on a line, as for pretrain; empty for all."""
    hold_out: int = 0
    """Images of each class held out for validation: those that pretrain --hold_out held out. 0 holds none out."""
    layer: str = ""
    """Layer whose mean over positions is taken, by timm's name. Default: the network's own output."""
    random: bool = False
    """Use random weights instead of the model's, as a baseline."""
    seed: int = 0
    """Random seed for everything that is drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, hold_out=0)
        check_seed("seed", self.seed)

    @property
    def selection(self) -> Selection:
        """The part of the images that is taken."""
        return Selection(self.classes, self.hold_out)

    def open_model(self, device: torch.device | None = None) -> EvaluatedModel:
        """The model on the device, or the usual one, with its middle crop; raises as `open_model` does."""
        return open_model(
            self.model,
            device,
            size=self.size or None,
            layer=self.layer or None,
            random=self.random,
            seed=self.seed,
            channels=self.decoding.seen,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(FeatureOptions, ABC):
    """The images that are asked about beside those that are learnt from, and the folder for the results."""

    validation: str = ""
    """Images to test on. Default: the data's own validation split."""
    out: str
    """The folder for results.json."""
    cache: str = ""
    """Folder that caches features. Default: features, beside --out."""

    def __post_init__(self) -> None:
        check_hold_out(self.hold_out, self.validation)
        super().__post_init__()

    @property
    def cache_folder(self) -> Path:
        """The folder for features: evaluations that lie side by side share it."""
        return Path(self.cache) if self.cache else folder_beside(Path(self.out))


FREE = frozenset(
    {"model", "cache", "batch_size", "workers", "unreadable_share", "max_pixels", "data", "validation", "out"}
    | {"classes", "hold_out", "in_chans", "verify"}
)
"""Options that may differ when a folder is come back to: weights and data are held to what they are, not to names."""
