"""Turn another project's checkpoint, or a run that is not finished, into a folder that plain timm loads.

Examples:
    ssl-backbones convert swav_800ep_pretrain.pth.tar --out swav --licence cc-by-nc-4.0
    ssl-backbones convert solo_learn.ckpt --out mine --prefix momentum_backbone
    ssl-backbones convert runs/mine --out mine_so_far

The backbone is found wherever it lies in the file, as the one part that fills a network. A moving average beside it
(momentum_backbone, target_net, encoder_k) is left out, and taken with --prefix. Of a run's folder the backbone of the
newest checkpoint is taken, also while the run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ssl_backbones.cleanup import is_new_or_empty, new_folder
from ssl_backbones.convert import ConversionError, convert
from ssl_backbones.distributed import doing
from ssl_backbones.files import file_digest
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.hub.trained import save_unfinished
from ssl_backbones.registry.licences import on_the_hub
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True)
class Options:
    """The checkpoint, and what is known of it."""

    file: Positional[Path]
    """The checkpoint: a .pth, .pth.tar, .safetensors or .npz file, or the folder of a run that is not finished."""
    out: Path
    """The folder to write, new or empty."""
    licence: str | None = None
    """Licence of the weights, as their publisher states it and the Hub abbreviates it."""
    licence_link: str | None = None
    """Address of the licence's text, for a licence that the Hub does not list."""
    architecture: str | None = None
    """Refuse a checkpoint of any other architecture than this, such as resnet50."""
    prefix: str | None = None
    """Network to take from a file that has several, by the prefix of its keys, such as momentum_backbone."""

    def __post_init__(self) -> None:
        if self.licence is not None or self.licence_link is not None:
            on_the_hub(self.licence or "", self.licence_link)


def run(options: Options) -> None:
    """Convert the checkpoint or the run into a new folder."""
    if options.architecture and not timm.is_model(options.architecture):
        raise ConversionError(f"timm knows no architecture {options.architecture!r}: name one such as 'resnet50'")
    if not is_new_or_empty(options.out):
        raise ConversionError(f"{str(options.out)!r} is not an empty folder: name a new one with --out")
    if RunFolder(options.file).recipe.is_file():
        convert_run(options)
    else:
        convert_file(options)


def convert_run(options: Options) -> None:
    """Write the backbone of a run as it stands, under the terms of what the run was given."""
    there = RunFolder(options.file)
    if there.results.exists():
        raise ConversionError(f"the run in {there.path} is finished and has left its backbone: take {there.backbone}")
    told = ("licence", "licence_link", "architecture", "prefix")
    if given := [f"--{name}" for name in told if getattr(options, name) is not None]:
        raise ConversionError(f"{given[0]} is not for a run, whose recipe tells its network and terms: leave it out")
    with new_folder(options.out) as folder:
        said = save_unfinished(there.path, folder)
    print(f"{options.out}: {said}")


def convert_file(options: Options) -> None:
    """Write the backbone of a file, and say what was found and what was left out."""
    with doing(f"Reading {options.file}"):
        converted = convert(options.file, options.architecture, options.prefix)
    model = timm.create_model(converted.architecture, num_classes=0)
    model.load_state_dict(converted.weights)
    sha256 = file_digest(options.file)
    terms = f"; its licence: {options.licence_link}" if options.licence_link else ""
    notes = f"; {converted.notes}" if converted.notes else ""
    description = f"converted from {options.file.name} (sha256 {sha256}), {converted.source}{notes}{terms}"
    described: Any = model.pretrained_cfg
    small = converted.architecture in timm.list_models(module="small_resnet")
    side = described["input_size"][-1] if small or described["fixed_input_size"] else 224
    crop = 1.0 if small else 0.875
    with new_folder(options.out) as folder:
        save_backbone(
            model,
            folder,
            converted.architecture,
            input_size=(3, side, side),
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            interpolation="bilinear",
            crop_pct=crop,
            license=options.licence,
            description=description,
        )
    print(f"{options.out}: a {converted.architecture}, {description}; {converted.rest}")
