"""config.json of a folder or of a repository on the Hub, read with suspicion."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import timm
from timm.models import PretrainedCfg

from ssl_backbones.catalogue.trial import WEIGHTS, check_network
from ssl_backbones.checks import brief, check
from ssl_backbones.fetch.from_hub import small_file, weights_size
from ssl_backbones.files import read_object
from ssl_backbones.models.provenance import records
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.runs.results import upgraded
from ssl_backbones.typed.values import check_form

FOLDER = "local-dir:"
LARGEST_SIDE = 2048
"""Pixels of an image, twice what any network of timm's was trained at."""
MOST_CLASSES = 10**6
LARGEST_NUMBER = 2**20
"""Largest number among the arguments of a network."""
MOST_ARGUMENTS = 1000
INTERPOLATIONS = {"bicubic", "bilinear", "box", "hamming", "lanczos", "nearest", "random"}
"""The names that timm has for them."""
_FIELDS = {field.name for field in fields(PretrainedCfg)}

Names = str | list[str] | None
ClassNames = list[str] | dict[str, str] | None


class Prepared(TypedDict, total=False):
    """The fields of timm's pretrained_cfg that something reads, as JSON has them."""

    architecture: str | None
    input_size: list[int]
    test_input_size: list[int] | None
    min_input_size: list[int] | None
    fixed_input_size: bool
    interpolation: str
    crop_pct: float
    test_crop_pct: float | None
    crop_mode: str
    mean: list[float]
    std: list[float]
    num_classes: int
    label_names: ClassNames
    pool_size: list[int] | None
    test_pool_size: list[int] | None
    first_conv: Names
    classifier: Names
    tag: str | None
    license: str | None
    description: str | None
    origin_url: str | None
    paper_name: str | None
    paper_ids: Names


class Config(TypedDict, total=False):
    """config.json as timm writes it."""

    num_classes: int
    label_names: ClassNames
    num_features: int
    global_pool: str
    model_args: dict[str, Any]
    pretrained_cfg: dict[str, Any]


def read_config(
    source: str, cache_dir: str | os.PathLike[str] | None = None, num_classes: int | None = None
) -> dict[str, Any]:
    """The configuration of `local-dir:FOLDER` or `hf-hub:org/name`; PretrainedWeightsError if timm could not use it.

    Its network is made once without memory, with `num_classes` where that is given, and has to fit the weights.
    """
    repository, _, revision = source.partition(":")[2].partition("@")
    if local := source.startswith(FOLDER):
        path = Path(source.removeprefix(FOLDER)) / "config.json"
    else:
        path = small_file(repository, "config.json", revision or None, cache_dir)
    elsewhere = int if local else partial(weights_size, repository, revision or None)

    def checked(config: Mapping[str, Any]) -> None:
        _check_values(config)
        if odd := [one.name for one in path.parent.iterdir() if one.name.endswith(WEIGHTS) and not one.is_file()]:
            raise ValueError(f"{odd[0]!r} beside it is not a regular file")
        check_network(path.parent, config["architecture"], num_classes, elsewhere)

    return read_object(path, _WAY_OUT, PretrainedWeightsError, check=checked)


def class_names(config: Mapping[str, Any]) -> dict[int, str]:
    """The name of each class by its number, as timm's configuration of a classifier has them; empty without any."""
    names = config.get("label_names") or ()
    return {int(number): name for number, name in (names.items() if isinstance(names, dict) else enumerate(names))}


def read_run(source: str) -> dict[str, Any]:
    """The results of the run that left a folder or a repository; empty where none did."""
    _, results = records(source)
    return upgraded(results) if results else {}


_WAY_OUT = "restore it from where it came from, or write the folder anew with `ssl-backbones convert FILE --out DIR`"


def _check_values(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that describes no model here, and values that none has: ValueError."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise ValueError(f"timm knows no architecture {brief(repr(architecture))}")
    check_form(Config, config)
    cfg = config.get("pretrained_cfg", config)
    if unknown := sorted(cfg.keys() - _FIELDS) if cfg is not config else []:
        raise ValueError(f"its pretrained_cfg holds {unknown[0][:80]!r}, which timm does not know")
    check_form(Prepared, cfg)
    _check_numbers(cfg)
    for classes in (config, cfg):
        found = classes.get("num_classes", 0)
        check(found <= MOST_CLASSES, "num_classes", found, f"at most {MOST_CLASSES:,}")
        named = classes.get("label_names")
        odd = [number for number in named if not number.isdecimal()] if isinstance(named, dict) else []
        check(not odd, "label_names", brief(repr(odd)), "names by their numbers, or a list of them")
    _check_arguments(config.get("model_args", {}))


def _check_numbers(cfg: Mapping[str, Any]) -> None:
    """Refuse sizes and statistics that no image has."""
    for name in ("input_size", "test_input_size", "min_input_size"):
        if size := cfg.get(name):
            right = len(size) == 3 and all(1 <= side <= LARGEST_SIDE for side in size)
            check(right, name, size, f"three counts of at most {LARGEST_SIDE}, channels and sides")
    for name in ("crop_pct", "test_crop_pct"):
        share = cfg.get(name)
        check(share is None or 0 < share <= 2, name, share, "a share of at most 2")
    mean, std = cfg.get("mean", [0]), cfg.get("std", [1] * len(cfg.get("mean", [0])))
    check(0 < len(mean) <= LARGEST_SIDE and min(mean) >= 0, "mean", mean, "a number of at least 0 for each channel")
    check(len(std) == len(mean) and min(std) > 0, "std", std, "a positive number for each one in mean")
    way = cfg.get("interpolation", "bicubic")
    check(way in INTERPOLATIONS, "interpolation", way[:80], f"one of {', '.join(sorted(INTERPOLATIONS))}")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of a network that are beyond those of any."""
    found = list(_leaves(arguments))
    check(len(found) <= MOST_ARGUMENTS, "model_args", f"{len(found)} values", f"at most {MOST_ARGUMENTS}")
    for name, value in found:
        if name.endswith("_rate"):
            right = value is None or (not isinstance(value, str) and 0 <= value <= 1)
            check(right, f"model_args.{name}"[:80], str(value)[:80], "a share")
        right = len(value) <= MOST_ARGUMENTS if isinstance(value, str) else abs(value or 0) <= LARGEST_NUMBER
        check(right, f"model_args.{name}"[:80], str(value)[:80], f"a number of at most {LARGEST_NUMBER:,}, or a word")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, text or truth value in a JSON value, by the key that it lies under."""
    if not isinstance(value, dict | list):
        yield name, value
        return
    for key, part in value.items() if isinstance(value, dict) else ((name, part) for part in value):
        yield from _leaves(part, key)
