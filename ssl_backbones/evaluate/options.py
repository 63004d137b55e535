"""The options of all that works on a backbone's features."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_backbones.checks import check, check_at_least, check_seed
from ssl_backbones.data.channels import MOST
from ssl_backbones.data.decode import MAX_PIXELS, DecodePolicy
from ssl_backbones.data.subset import Selection, check_hold_out
from ssl_backbones.evaluate.features import Extraction
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.train.precision import Precision
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(ABC):
    """The model, the images, and how features are computed."""

    model: Positional[str]
    """A registered name, hf-hub:org/name, or the folder of a run."""
    data: str
    """A folder of images, parquet files, tar shards, or a Hub dataset id."""
    classes: str = ""
    """A file that names the classes to take, one on a line, as for pretrain; empty for all."""
    hold_out: int = 0
    """Images of every class that are asked about and not learnt from: those that pretrain --hold_out left out."""
    verify: bool = False
    """Hold what is kept of the images from earlier starts against every one of them, not a few: all are read."""
    layer: str = ""
    """A layer as timm names it, whose mean over positions is taken; the network's own output where it is not given."""
    size: int = 0
    """Side of the middle crop, in pixels; 0 for what the model's description says."""
    precision: Precision = "fp32"
    """Number format that the network is computed in."""
    random: bool = False
    """Random weights instead of the model's, as a baseline."""
    seed: int = 0
    """Random seed for everything that is drawn."""
    batch_size: int = 256
    """Images embedded at once, per process."""
    workers: int | None = None
    """Processes that read images, per process; None for what the machine has cores for."""
    unreadable_share: float = 0.01
    """More unreadable images than this share are refused."""
    max_pixels: int = MAX_PIXELS
    """Pixels of an image above which it is left out as unreadable."""
    in_chans: int = 0
    """Channels of the model's images, where it was trained with --in_chans; 0 for RGB of 8 bits."""

    def __post_init__(self) -> None:
        check_at_least(self, size=0, hold_out=0, batch_size=1, max_pixels=1, workers=0)
        check(0 <= self.in_chans <= MOST, "in_chans", self.in_chans, f"from 1 to {MOST}, or 0 for RGB of 8 bits")
        check_seed("seed", self.seed)
        check(0 <= self.unreadable_share <= 1, "unreadable_share", self.unreadable_share, "at least 0 and at most 1")

    @property
    def selection(self) -> Selection:
        """The part of the images that is taken."""
        return Selection(self.classes, self.hold_out)

    @property
    def decoding(self) -> DecodePolicy:
        """The rules by which images are decoded."""
        return DecodePolicy(self.max_pixels, channels=self.in_chans)

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

    def extraction(self, cache: Path | None = None) -> Extraction:
        """The settings of feature extraction, with a folder to keep features in if one is given."""
        return Extraction(
            cache,
            self.precision,
            self.batch_size,
            reading_workers(self.workers),
            self.unreadable_share,
            max_pixels=self.max_pixels,
            in_chans=self.in_chans,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(FeatureOptions, ABC):
    """The images that are asked about beside those that are learnt from, and the folder for the results."""

    validation: str = ""
    """Images to test on; without them, those that the data name as such."""
    out: str
    """The folder for results.json."""
    cache: str = ""
    """The folder that keeps features; one called features beside --out where it is not given."""

    def __post_init__(self) -> None:
        check_hold_out(self.hold_out, self.validation)
        super().__post_init__()

    @property
    def cache_folder(self) -> Path:
        """The folder for features: evaluations that lie side by side share it."""
        return Path(self.cache) if self.cache else Path(self.out).absolute().parent / "features"


FREE = frozenset(
    {"model", "cache", "batch_size", "workers", "unreadable_share", "max_pixels", "data", "validation", "out"}
    | {"classes", "hold_out", "beside", "in_chans", "verify"}
)
"""Options that may differ when a folder is come back to: weights and data are held to what they are, not to names."""
