"""Models made, listed and described by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from timm.models import is_model_in_modules
from torch import nn

from ssl_backbones.catalogue.configs import FOLDER, read_config, read_run
from ssl_backbones.catalogue.description import (
    Description,
    describe_config,
    describe_name,
    describe_recipe,
    describe_tag,
    describe_timms,
)
from ssl_backbones.checks import brief
from ssl_backbones.fetch.from_hub import check_weights, require_safe_weights
from ssl_backbones.models.build import require_safe, untrained
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.registry.errors import PretrainedWeightsError, UnknownModelError, explain_weights
from ssl_backbones.registry.names import HUB, Name
from ssl_backbones.registry.papers import ELSEWHERE, PAPERS
from ssl_backbones.registry.tags import TAGS, tags_of
from ssl_backbones.runs.manifest import last_step
from ssl_backbones.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from ssl_backbones.recipes.recipe import Recipe

MODULES = ("small_resnet", "ssl_resnet")
"""The modules, as timm knows them, whose models are ours."""


def create_model(name: str | os.PathLike[str], pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The model of a registered name, `arch.tag`, `hf-hub:org/name`, or the folder that a run wrote.

    Also `<arch>_<method>` of any network that timm knows, without head and with random weights. As in timm, weights
    are random without `pretrained`, and `kwargs` are those of `timm.create_model`. UnknownModelError for a name that
    means nothing, PretrainedWeightsError for weights that cannot be had.
    """
    name = os.fspath(name)
    network = _untrained(name)
    source = name if network else _source(name)
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    brought = bool(overlay.get("state_dict") or overlay.get("file"))
    if brought:  # timm would load what the folder or the repository itself holds
        kwargs["pretrained_cfg_overlay"] = {"source": None, **overlay}
    own = {key: kwargs[key] for key in ("cache_dir", "pretrained_cfg_overlay") if key in kwargs}
    if pretrained and (network or _is_bare(source)) and "pretrained_cfg_overlay" not in own:
        raise PretrainedWeightsError.unpublished(name, training_command(Name.parse(name)))
    make = partial(untrained, network) if network else partial(timm.create_model, source)
    with explain_weights(source):
        if source.startswith((*HUB, FOLDER)):
            read_config(source, kwargs.get("cache_dir"), kwargs.get("num_classes"))
        if pretrained and source.startswith(HUB) and not brought:
            repository, _, revision = source.partition(":")[2].partition("@")
            check_weights(repository, revision or None)
        if pretrained and source.startswith((*HUB, FOLDER)) and not brought:
            require_safe_weights(source, kwargs.get("cache_dir"))
        if pretrained and kwargs and (network or ":" in source):  # timm loads leniently where a head is added or not
            make(pretrained=True, **own)
        if pretrained:
            require_safe(overlay, kwargs.get("cache_dir"))
        require_safe({"file": kwargs.get("checkpoint_path")})
        model: nn.Module = make(pretrained=pretrained, **kwargs)
    return model


def list_models(
    filter: str | Iterable[str] = "", pretrained: bool = False, include_tags: bool | None = None
) -> list[str]:
    """The names of our models that match a wildcard, or any of several; with tags if these, or weights, are asked for.

    With `pretrained`, only those whose weights are published.
    """
    patterns = [filter or "*"] if isinstance(filter, str) else list(filter)
    if include_tags is None:
        include_tags = pretrained or any("." in pattern for pattern in patterns)
    return list(timm.list_models(patterns, module=MODULES, pretrained=pretrained, include_tags=include_tags))


def describe(name: str | os.PathLike[str]) -> Description:
    """Describe a model: a name here or of timm's, `hf-hub:org/name`, or the folder that a run wrote.

    A name without a tag stands for its first weights, if there are any. UnknownModelError for a name that means
    nothing.
    """
    name = os.fspath(name)
    parts = Name.parse(name)
    if tag := next((tag for tag in TAGS if tag.name == name), next(iter(tags_of(name)), None)):
        return describe_tag(tag, _recipes().get(tag.name), training_command(Name.parse(tag.name)))
    if recipe := _recipes().get(name) if parts.tag else None:
        return describe_recipe(recipe, training_command(Name.parse(name)))
    if _is_ours(name) or _untrained(name):
        return describe_name(parts, training_command(parts))
    if _is_registered(name):
        return describe_timms(name)
    source = _located(name)
    if source is None:
        raise UnknownModelError(_unknown(name, _names()))
    with explain_weights(source):
        return describe_config(name, source, read_config(source, num_classes=0), read_run(source))


def architecture_of(name: str | os.PathLike[str]) -> str:
    """timm's name of the network of whatever `create_model` takes; UnknownModelError for a name that means nothing."""
    name = os.fspath(name)
    return Name.parse(name).arch if timm.is_model(name) or _untrained(name) else describe(name).backbone


def training_command(name: Name) -> str | None:
    """The command that trains a model, by the recipe of its name, one of its network, or one of its method.

    None for a method that nothing here trains.
    """
    alike = [recipe for recipe in _recipes().values() if recipe.method.name == name.method and "." in recipe.name]
    if not alike:
        return None
    small = name.arch in SMALL
    best = min(
        alike,
        key=lambda recipe: (
            recipe.name != str(name),
            recipe.model != name.model,
            (Name.parse(recipe.model).arch in SMALL) != small,
        ),
    )
    other = "" if best.model == name.model else f" --model {name.model}"
    return f"ssl-backbones pretrain {best.name}{other} --data FOLDER"


def _recipes() -> dict[str, Recipe]:
    """Every recipe by its name; read where one is asked for, so that making a model needs none of them."""
    from ssl_backbones.recipes import RECIPES

    return RECIPES


def _names() -> list[str]:
    """All names that mean something here."""
    return [*list_models(), *list_models(include_tags=True), *(name for name in _recipes() if "." in name)]


def _is_registered(name: str) -> bool:
    """True if timm knows a name, with its tag."""
    model = Name.parse(name).model
    return timm.is_model(model) and (name == model or name in timm.list_models(f"{model}.*", include_tags=True))


def _untrained(name: str) -> str | None:
    """The network of an `<arch>_<method>`, or of a recipe's name, that timm does not know; None for any other name."""
    parts = Name.parse(name)
    trainable = parts.method in PAPERS.keys() - ELSEWHERE.keys() and timm.is_model(parts.arch)
    if not trainable or _is_registered(name):
        return None
    return parts.arch if not parts.tag or name in _recipes() else None


def _is_ours(name: str) -> bool:
    """True for a name without a tag that `list_models` gives."""
    return "." not in name and is_model_in_modules(name, MODULES)


def _is_bare(source: str) -> bool:
    """True for the name of a network and a method of ours that nobody has weights of."""
    return Name.parse(source).method in PAPERS and not tags_of(source) and _is_ours(source)


def _source(name: str) -> str:
    """The name as timm takes it, or UnknownModelError."""
    if _is_registered(name):
        return name
    source = None if timm.is_model(name) else _located(name)
    if source is None:
        raise UnknownModelError(_unknown(name, _names()))
    return source


def _located(name: str) -> str | None:
    """A repository or a folder as timm takes it; None for what is neither."""
    if name.startswith((*HUB, FOLDER)):
        return name
    for folder in (name, os.path.join(name, "backbone")) if name else ():
        if os.path.isfile(os.path.join(folder, "config.json")):
            return f"{FOLDER}{folder}"
    if os.path.isdir(name):
        raise UnknownModelError(
            f"the folder {name!r} holds no backbone, neither config.json nor backbone/config.json: "
            f"{_to_a_backbone(RunFolder(Path(name)))}"
        )
    return None


def _to_a_backbone(there: RunFolder) -> str:
    """The ways to the backbone that a folder lacks, for an error message."""
    step = last_step(there.checkpoints)
    if step and there.recipe.is_file() and not there.results.exists():
        return (
            f"its run is at step {step} and not finished, so take what it has learnt with `ssl-backbones convert "
            f"{there.path} --out NEW`, start its own command once more to go on, or the same with --max_steps {step} "
            "to end it there, which leaves its backbone"
        )
    return "name one that does, or where a run was trained there, start its own command once more, which makes it anew"


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3)
    offer = f"near it are {', '.join(near)}" if near else "`ssl-backbones list` shows the names"
    if "/" in name:
        offer += f", and a repository on the Hub is named {brief(repr(f'hf-hub:{name}'))}"
    return f"no model, and no folder, is called {brief(repr(name))}: {offer}"
