"""The weights of a tag that others publish: from the cache, or fetched; verified and converted either way."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.constants
from torch import Tensor

from ssl_backbones.convert import ConversionError, Converted, convert, reading
from ssl_backbones.credentials import without_credentials
from ssl_backbones.fetch.download import LARGEST, DownloadError, download
from ssl_backbones.fetch.kept import CHECKPOINT, Kept, check_md5, folder_of, recall, record
from ssl_backbones.files import UnwritableError, clear_leftovers, replacing
from ssl_backbones.locks import held
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.tags import TAGS, Tag
from ssl_backbones.registry.zoo import Origin

FETCHING = threading.Lock()
"""Held by the thread that fetches: the lock of a folder is one of processes."""


def published_weights(
    name: str, url: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> dict[str, Tensor]:
    """The weights, tensors (...) by name, of a tag or of a name at an address; PretrainedWeightsError with ways out."""
    tag = next((tag for tag in TAGS if tag.name == name), None)
    origin = tag.origin if tag else None
    own = origin.url if origin else None
    url = url or own
    folder = folder_of(name, cache_dir)
    if kept := _usable(folder, url, own):
        return _converted(kept.path, name).weights
    if url is None:
        raise _by_hand(name, origin)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise _unreachable(name, url, "HF_HUB_OFFLINE is set and the file is not in the cache")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder, name):
            if kept := _usable(folder, url, own):  # another process has fetched it meanwhile
                return _converted(kept.path, name).weights
            return _fetched(name, url, folder, origin)
    except UnwritableError:
        raise
    except (DownloadError, OSError) as error:
        raise _unreachable(name, url, str(error)) from error


def _usable(folder: Path, url: str | None, own: str | None) -> Kept | None:
    """The file that is kept in a folder, if it came from that address; one imported by hand is the tag's own."""
    kept = recall(folder)
    if kept is None:
        return None
    by_hand = "://" not in kept.came_from
    return kept if (url == own if by_hand else kept.came_from == without_credentials(url or "")) else None


def _fetched(name: str, url: str, folder: Path, origin: Origin | None) -> dict[str, Tensor]:
    """The weights at an address, whose file is then kept in the folder."""
    if origin and url == origin.url:
        with _usable_as(name):
            reading.require_safe_torch(url)
    clear_leftovers(folder)
    with replacing(folder / CHECKPOINT) as file:
        download(url, file, origin.size if origin and origin.size else LARGEST)
        file.flush()
        check_md5(Path(file.name), origin.md5 if origin else "", name)
        weights = _converted(Path(file.name), name).weights
    record(folder, url)
    return weights


@contextmanager
def _alone_in(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process, and no other thread of this one, fetches into the folder."""
    told = "{} fetches the weights of {!r} too: waiting for it"
    with FETCHING, held(folder / ".lock", lambda owner: print(told.format(owner, name), flush=True)):
        yield


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
    with _usable_as(name):
        return convert(path, Name.parse(name).arch)


@contextmanager
def _usable_as(name: str) -> Iterator[None]:
    """Raise PretrainedWeightsError for a file that cannot be converted."""
    try:
        yield
    except ConversionError as error:
        raise PretrainedWeightsError(f"the weights of {name!r} cannot be used: {error}") from error


def _unreachable(name: str, url: str, why: str) -> PretrainedWeightsError:
    return PretrainedWeightsError.in_python(
        f"could not fetch the weights of {name!r} from {url}: {why}; download that file on another machine and run "
        f"`ssl-backbones import {name} FILE`, ",
        "name a mirror of it with pretrained_cfg_overlay=dict(url=ADDRESS), or take random weights with "
        "pretrained=False",
    )


def _by_hand(name: str, origin: Origin | None) -> PretrainedWeightsError:
    if origin is None:
        return PretrainedWeightsError.unpublished(name)
    return PretrainedWeightsError.in_python(
        f"the weights of {name!r} have no address to fetch them from: download them by hand from {origin.page} and run "
        f"`ssl-backbones import {name} FILE`, ",
        f"pretrain it (ssl-backbones pretrain {name} --data FOLDER) and name the folder of the run, pass "
        "pretrained_cfg_overlay=dict(file=PATH) for weights of your own, or take random ones with pretrained=False",
    )
