"""config.json of a folder or of a repository on the Hub, read with suspicion."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import hf_hub_download
from timm.models import PretrainedCfg

from ssl_backbones.files import read_object
from ssl_backbones.registry.errors import PretrainedWeightsError

FOLDER = "local-dir:"
_FIELDS = {field.name for field in fields(PretrainedCfg)}


def read_config(source: str, cache_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The configuration of `local-dir:FOLDER` or `hf-hub:org/name`; PretrainedWeightsError if timm could not use it."""
    place = source.partition(":")[2]
    if source.startswith(FOLDER):
        path = Path(place) / "config.json"
    else:
        cache = None if cache_dir is None else os.fspath(cache_dir)
        repository, _, revision = place.partition("@")
        path = Path(hf_hub_download(repository, "config.json", revision=revision or None, cache_dir=cache))
    config = _object(path)
    if fault := _fault(config):
        raise _refusal(path, fault)
    return config


def read_run(source: str) -> dict[str, Any]:
    """The results that a run left beside the folder of its backbone; empty where none did."""
    path = Path(source.partition(":")[2]).parent / "results.json"
    return _object(path) if source.startswith(FOLDER) and path.is_file() else {}


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or PretrainedWeightsError."""
    return read_object(path, _WAY_OUT, PretrainedWeightsError)


_WAY_OUT = "restore it from where it came from, or write the folder anew with `ssl-backbones convert FILE --out DIR`"


def _refusal(path: Path, fault: str) -> PretrainedWeightsError:
    return PretrainedWeightsError(f"{path} does not describe a model ({fault}): {_WAY_OUT}")


def _fault(config: dict[str, Any]) -> str | None:
    """The fields that timm would stumble over."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        return f"timm knows no architecture {architecture!r}"
    if not isinstance(config.get("model_args", {}), dict):
        return "its model_args is no object, as in what transformers writes"
    cfg = config.get("pretrained_cfg", {})
    if not isinstance(cfg, dict):
        return "its pretrained_cfg is no object"
    if unknown := sorted(map(str, cfg.keys() - _FIELDS)):
        return f"its pretrained_cfg holds {unknown[0]!r}, which timm does not know"
    for name in ("input_size", "mean", "std"):
        value = cfg.get(name, [1, 1, 1])
        if not (isinstance(value, list) and value and all(_positive(number, name) for number in value)):
            return f"its {name} is {value!r}"
    return None


def _positive(number: Any, name: str) -> bool:
    """True if a side is a count, and a mean or a deviation a number."""
    kinds = int if name == "input_size" else int | float
    return isinstance(number, kinds) and not isinstance(number, bool) and number >= 0
