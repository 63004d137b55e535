"""The weights of a tag that others publish: from the cache, or fetched; verified and converted either way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import huggingface_hub.constants
from torch import Tensor

from ssl_backbones.convert import ConversionError, Converted, convert
from ssl_backbones.fetch.download import DownloadError, download
from ssl_backbones.fetch.kept import CHECKPOINT, check_md5, folder_of, recall, record
from ssl_backbones.files import replacing
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.tags import TAGS, Tag
from ssl_backbones.registry.zoo import Origin


def published_weights(
    name: str, url: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> dict[str, Tensor]:
    """The weights, tensors (...) by name, of a tag or of a name at an address; PretrainedWeightsError with ways out."""
    tag = next((tag for tag in TAGS if tag.name == name), None)
    origin = tag.origin if tag else None
    url = url or (origin.url if origin else None)
    folder = folder_of(name, cache_dir)
    kept = recall(folder)
    if kept and (kept.came_from == url or not _is_address(kept.came_from)):
        return _converted(kept.path, name).weights
    if url is None:
        raise _by_hand(name, origin)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise _unreachable(name, url, "HF_HUB_OFFLINE is set and the file is not in the cache")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / CHECKPOINT) as file:
            download(url, file)
            file.flush()
            check_md5(Path(file.name), origin.md5 if origin else "", name)
            weights = _converted(Path(file.name), name).weights
        record(folder, url)
    except (DownloadError, OSError) as error:
        raise _unreachable(name, url, str(error)) from error
    return weights


def import_file(name: str, file: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> Converted:
    """Keep a file that was downloaded by hand as the weights of a tag; refused unless it is what the tag says."""
    tag = _importable(name)
    converted = convert(file, tag.backbone)
    check_md5(Path(file), tag.origin.md5 if tag.origin else "", name)
    folder = folder_of(name, cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(file, "rb") as given, replacing(folder / CHECKPOINT) as kept:
        shutil.copyfileobj(given, kept)
    record(folder, Path(file).name)
    return converted


def _importable(name: str) -> Tag:
    """The tag of that name, if others publish its weights."""
    published = [tag for tag in TAGS if tag.origin]
    for tag in published:
        if tag.name == name:
            return tag
    raise PretrainedWeightsError(
        f"nobody else publishes weights as {name!r}, so no file can be imported as such: names are "
        f"{', '.join(sorted(tag.name for tag in published))}; any other file becomes a folder to load with "
        "`ssl-backbones convert FILE --out DIR`"
    )


def _converted(path: Path, name: str) -> Converted:
    try:
        return convert(path, Name.parse(name).arch)
    except ConversionError as error:
        raise PretrainedWeightsError(f"the weights of {name!r} cannot be used: {error}") from error


def _is_address(came_from: str) -> bool:
    return "://" in came_from


def _unreachable(name: str, url: str, why: str) -> PretrainedWeightsError:
    return PretrainedWeightsError(
        f"could not fetch the weights of {name!r} from {url}: {why}; download that file on another machine and run "
        f"`ssl-backbones import {name} FILE`, name a mirror of it with pretrained_cfg_overlay=dict(url=ADDRESS), or "
        "take random weights with pretrained=False"
    )


def _by_hand(name: str, origin: Origin | None) -> PretrainedWeightsError:
    if origin is None:
        return PretrainedWeightsError.unpublished(name)
    return PretrainedWeightsError(
        f"the weights of {name!r} have no address to fetch them from: download them by hand from {origin.page} and run "
        f"`ssl-backbones import {name} FILE`, pretrain it (ssl-backbones pretrain {name} --data "
        "FOLDER) and name the folder of the run, pass pretrained_cfg_overlay=dict(file=PATH) for weights of your own, "
        "or take random ones with pretrained=False"
    )
