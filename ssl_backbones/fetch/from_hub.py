"""Files of repositories on the Hub, which are asked for their size before they are fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)

from ssl_backbones.convert.reading import is_safe_with_pickles, require_safe_torch
from ssl_backbones.files import LARGEST
from ssl_backbones.registry.errors import ON_THE_WAY, PretrainedWeightsError

SAFE = "model.safetensors"
UNPICKLED = (".safetensors", ".npz", ".npy")
"""Endings of files that timm reads without a pickle."""
LARGEST_WEIGHTS = 20 * 10**9
"""Bytes of weights, or of a training state, at most: timm's largest network has fewer."""


def small_file(
    repository: str, name: str, revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """A file of a repository, such as its config.json, out of the cache or fetched; raises what the Hub's client does.

    PretrainedWeightsError for one that is too large for what it should be.
    """
    check_size(repository, stated_size(repository, (name,), revision), name, LARGEST)
    cache = None if cache_dir is None else os.fspath(cache_dir)
    return Path(hf_hub_download(repository, name, revision=revision, cache_dir=cache))


def parts(repository: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The folder with the files of a repository whose names match; raises what the Hub's client does.

    PretrainedWeightsError where all of them together are larger than weights with their training state may be.
    """
    with suppress(*ON_THE_WAY):
        found = HfApi(endpoint=constants.ENDPOINT).model_info(
            repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        wanted = [each for each in found.siblings or [] if any(fnmatch(each.rfilename, one) for one in patterns)]
        check_size(repository, sum(each.size or 0 for each in wanted), ", ".join(patterns), LARGEST_WEIGHTS)
    return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


def check_weights(repository: str, revision: str | None = None) -> None:
    """PretrainedWeightsError for a repository whose weights are larger than a download may be."""
    check_size(repository, weights_size(repository, revision), "weights", LARGEST_WEIGHTS)


def require_safe_weights(source: str, cache_dir: str | os.PathLike[str] | None = None) -> None:
    """ConversionError for a place of weights that may be a pickle, if one can make this torch run code.

    `source` is named as timm names it, `local-dir:FOLDER` or `hf-hub:org/name`, or `local-dir:FILE`.
    """
    if is_safe_with_pickles():
        return
    kind, _, place = source.partition(":")
    if kind == "local-dir":
        safe = place.endswith(UNPICKLED) or any(Path(place).glob("*.safetensors"))
    else:
        repository, _, revision = place.partition("@")
        cache = None if cache_dir is None else os.fspath(cache_dir)
        kept = try_to_load_from_cache(repository, SAFE, cache_dir=cache, revision=revision or None)
        safe = isinstance(kept, str) or stated_size(repository, (SAFE,), revision or None) > 0
    if not safe:
        require_safe_torch(place)


def weights_size(repository: str, revision: str | None = None) -> int:
    """Bytes of the weights of a repository; 0 where it has none or is out of reach."""
    return stated_size(repository, (SAFE, "pytorch_model.bin"), revision)


def stated_size(repository: str, names: Sequence[str], revision: str | None) -> int:
    """Bytes that the Hub states of the first of these files that a repository has; 0 where nobody can tell."""
    for name in names:
        with suppress(*ON_THE_WAY):
            return get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).size or 0
    return 0


def check_size(repository: str, size: int, what: str, most: int) -> None:
    """PretrainedWeightsError where the Hub states more bytes than are allowed."""
    if size > most:
        raise PretrainedWeightsError(
            f"{repository!r} on the Hub has {size:,} bytes of {what}, and {most:,} are allowed: name another, or "
            "download it by hand and name its folder"
        )
