"""Models made, listed and described by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Any

import timm
from torch import nn

from ssl_backbones.catalogue.configs import FOLDER, HUB, read_config, read_run
from ssl_backbones.catalogue.description import Description, describe_config, describe_tag
from ssl_backbones.models.build import untrained
from ssl_backbones.registry.errors import PretrainedWeightsError, UnknownModelError, explain_weights
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.registry.tags import TAGS, Tag

MODULES = ("small_resnet", "ssl_resnet")
"""The modules, as timm knows them, whose models are ours."""


def create_model(name: str | os.PathLike[str], pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The model of a registered name, `arch.tag`, `hf-hub:org/name`, or the folder that a run wrote.

    Also `<arch>_<method>` of any network that timm knows, without head and with random weights. As in timm, weights
    are random without `pretrained`, and `kwargs` are those of `timm.create_model`. UnknownModelError for a name that
    means nothing, PretrainedWeightsError for weights that cannot be had.
    """
    name = os.fspath(name)
    if network := _network(name):
        if pretrained:
            raise PretrainedWeightsError.unpublished(name)
        return untrained(network, **kwargs)
    source = _source(name)
    with explain_weights(source):
        if source.startswith((*HUB, FOLDER)):
            read_config(source, kwargs.get("cache_dir"))
        if pretrained and kwargs and ":" in source:  # timm loads leniently where a head is added or taken off
            where = {key: kwargs[key] for key in ("cache_dir", "pretrained_cfg_overlay") if key in kwargs}
            timm.create_model(source, pretrained=True, **where)
        model: nn.Module = timm.create_model(source, pretrained=pretrained, **kwargs)
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


def tags_of(architecture: str) -> tuple[Tag, ...]:
    """The tags of a `backbone_method`, that of the bare name first."""
    tags = [tag for tag in TAGS if tag.architecture == architecture]
    return tuple(sorted(tags, key=lambda tag: tag.source is None))


def describe(name: str | os.PathLike[str]) -> Description:
    """Describe a model: a registered name, `hf-hub:org/name`, or the folder that a run wrote.

    A name without a tag stands for its first tag, if there is one. UnknownModelError for a name that means nothing.
    """
    name = os.fspath(name)
    names = {*list_models(), *list_models(include_tags=True)}
    if name in names or _network(name):
        tag = next((tag for tag in TAGS if tag.name == name), next(iter(tags_of(name)), None))
        parts = Name.parse(name)
        paper = PAPERS.get(parts.method)
        label, reference = (paper.label, str(paper)) if paper else (None, None)
        return describe_tag(tag, label, reference) if tag else Description(name, parts.arch, label, reference)
    source = _located(name)
    if source is None:
        raise UnknownModelError(_unknown(name, sorted(names)))
    with explain_weights(source):
        return describe_config(name, source, read_config(source), read_run(source))


def _network(name: str) -> str | None:
    """The timm network of an `<arch>_<method>` that is not registered itself; None for any other name."""
    parts = Name.parse(name)
    ours = parts.method in PAPERS and not parts.tag and not timm.is_model(name)
    return parts.arch if ours and timm.is_model(parts.arch) else None


def _source(name: str) -> str:
    """The name as timm takes it, or UnknownModelError."""
    if timm.is_model(name):
        architecture = Name.parse(name).model
        known = timm.list_models(f"{architecture}.*", include_tags=True)
        if name == architecture or name in known:
            return name
        raise UnknownModelError(_unknown(name, known))
    source = _located(name)
    if source is None:
        raise UnknownModelError(_unknown(name, [*list_models(), *list_models(include_tags=True)]))
    return source


def _located(name: str) -> str | None:
    """A repository or a folder as timm takes it; None for what is neither."""
    if name.startswith((*HUB, FOLDER)):
        return name
    for folder in (name, os.path.join(name, "backbone")) if name else ():
        if os.path.isfile(os.path.join(folder, "config.json")):
            return f"{FOLDER}{folder}"
    if os.path.isdir(name):
        raise UnknownModelError(f"the folder {name!r} holds no backbone, neither config.json nor backbone/config.json")
    return None


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3)
    offer = f"near it are {', '.join(near)}" if near else "`ssl-backbones list` shows the names"
    if "/" in name:
        offer += f", and a repository on the Hub is named 'hf-hub:{name}'"
    return f"no model, and no folder, is called {name!r}: {offer}"
