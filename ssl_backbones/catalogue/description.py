"""Descriptions of models, as values and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import timm

from ssl_backbones.catalogue.configs import class_names
from ssl_backbones.checks import few
from ssl_backbones.models.provenance import LEARNT, of_timms
from ssl_backbones.registry.image_sets import DATA
from ssl_backbones.registry.licences import is_non_commercial, marked
from ssl_backbones.registry.names import LEFT, Name
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.registry.tags import Origin, Tag

if TYPE_CHECKING:  # all recipes are read where one is asked for
    from ssl_backbones.recipes.recipe import Recipe


@dataclass(frozen=True)
class Description:
    """The description of a model; None where something does not apply, or was not measured."""

    name: str
    """As `create_model` takes it."""
    backbone: str
    """timm's name of the network."""
    method: str | None = None
    """As the authors call it."""
    paper: str | None = None
    data: str | None = None
    """The images that were learned from."""
    data_terms: str | None = None
    """The terms of these images."""
    epochs: int | None = None
    """Epochs of the training."""
    licence: str | None = None
    """Licence of the weights."""
    source: str | None = None
    """The address that they are fetched from."""
    origin: Origin | None = None
    """The publisher of the weights, where others trained them."""
    paper_number: float | None = None
    """As `our_number`, in the paper."""
    our_number: float | None = None
    """Linear evaluation, top-1 in %, as the paper gives it, and as it was measured with this repository."""
    settings: str | None = None
    """The place that the recipe's settings are from, where there are no weights."""
    training: str | None = None
    """The command that trains it, where a recipe here does."""
    notes: str = ""
    """Remarks of the publisher, or on the run."""

    @property
    def non_commercial(self) -> bool:
        """True if the licence of the weights itself forbids commercial use; the terms of the images are another."""
        return is_non_commercial(self.licence)

    @property
    def terms(self) -> str:
        """The licence of the weights, marked where it forbids commercial use."""
        return marked(self.licence)

    def __str__(self) -> str:
        origin = self.origin
        facts = {
            "backbone": self.backbone,
            "method": self.method or "none",
            "paper": self.paper or "none",
            "data": self._data,
            "licence": self._licence,
            "origin": origin.publisher if origin else None,
            "source": self.source or (f"by hand, from {origin.page}" if origin else "no weights published"),
            "settings": self.settings,
            "to train it" if self._is_trained_so else "a recipe like it": self.training,
            "paper's top-1": _percent(self.paper_number),
            "their top-1": _percent(origin.number) if origin else None,
            "our top-1": _percent(self.our_number) or "not measured",
            "notes": " ".join(note for note in (self.notes, origin.notes if origin else "") if note),
        }
        known = {label: fact for label, fact in facts.items() if fact}
        width = max(map(len, known))
        return "\n".join([self.name, *(f"  {label:{width}}  {fact}" for label, fact in known.items())])

    @property
    def _is_trained_so(self) -> bool:
        """True if the command is that of these weights, or of no weights in particular."""
        return not Name.parse(self.name).tag or self.name in (self.training or "").split()

    @property
    def _data(self) -> str:
        epochs = f", {self.epochs} epochs" if self.epochs else ""
        images = f" (the images: {self.data_terms})" if self.data_terms and not self.licence else ""
        return f"{self.data}{epochs}{images}" if self.data else "not recorded" if self.licence else "not pretrained"

    @property
    def _licence(self) -> str:
        images = f"; the images: {self.data_terms}" if self.data_terms else ""
        return f"{self.terms}{images}" if self.licence else "not stated" if self.source else "none"


def _percent(number: float | None) -> str | None:
    """A figure of linear evaluation in words."""
    return None if number is None else f"{number} %, linear"


def describe_tag(tag: Tag, recipe: Recipe | None, training: str | None) -> Description:
    """The description of weights that somebody has, with the paper's figure where a recipe here has that name."""
    return replace(
        describe_name(Name.parse(tag.name), training),
        data=tag.data.name,
        data_terms=tag.data.terms,
        epochs=tag.epochs,
        licence=tag.licence,
        source=tag.source,
        origin=tag.origin,
        paper_number=recipe.promise.linear_top1 if recipe else None,
        our_number=tag.our_number,
        notes=tag.notes,
    )


def describe_recipe(recipe: Recipe, training: str | None) -> Description:
    """The description of a model that a recipe trains and whose weights nobody has."""
    promise = recipe.promise
    return replace(
        describe_name(Name.parse(recipe.model), training),
        name=recipe.name,
        data=promise.data,
        data_terms=next((data.terms for data in DATA if data.name == promise.data), None),
        epochs=promise.epochs,
        paper_number=promise.linear_top1,
        settings=f"{promise.paper}, {promise.table}",
        notes=promise.not_stated,
    )


def describe_name(name: Name, training: str | None) -> Description:
    """The description of a network and a method, with no word of weights."""
    paper = PAPERS.get(name.method)
    label, reference = (paper.label, str(paper)) if paper else (None, None)
    return Description(str(name), name.arch, label, reference, training=training)


def describe_config(name: str, source: str, config: Mapping[str, Any], run: Mapping[str, Any]) -> Description:
    """Describe a folder or a repository by its config.json, and a run by its results."""
    cfg = config.get("pretrained_cfg", config)
    paper = PAPERS.get(Name.parse(str(run.get("model", ""))).method)
    images = run.get("data", {}).get("images")
    label = paper.label if paper else "not recorded"
    if run.keys() & LEFT:  # of a transfer, which trained it on with labels
        label = f"{paper.label if paper else run.get('model')}, then trained with labels: {run.get('protocol')}"
    names = list(class_names({**cfg, **config}).values())
    told = (
        f"Tells classes apart: {few(names, 10)}" if names else None,
        cfg.get("description"),
        f"The images are prepared {preparation(cfg)}." if "mean" in cfg else None,
    )
    return Description(
        name=name,
        backbone=config["architecture"],
        method=label,
        paper=str(paper) if paper else cfg.get("paper_name"),
        data=f"{images} images" if images else None,
        epochs=run.get("epochs"),
        licence=cfg.get("license"),
        source=source,
        notes=" ".join(f"{part.rstrip('.')}." for part in told if part),
    )


def describe_timms(name: str) -> Description:
    """Describe a network of timm's, with its weights as far as timm knows whose they are."""
    cfg = timm.get_pretrained_cfg(name).to_dict()
    known = Description(name, name.partition(".")[0])
    source = f"hf-hub:{cfg['hf_hub_id']}" if cfg.get("hf_hub_id") else cfg.get("url")
    if not source:
        return known
    about = of_timms(name, cfg)
    origin = f"From {cfg['origin_url']}. " if cfg.get("origin_url") else ""
    return replace(
        known,
        method=LEARNT.get(about["labels"], "not recorded"),
        paper=cfg.get("paper_name"),
        data=about["images"],
        data_terms=about["images_terms"],
        licence=about["licence"],
        source=source,
        notes=f"{origin}The images are prepared {preparation(cfg)}.",
    )


def preparation(cfg: Mapping[str, Any]) -> str:
    """The preparation of images that a configuration asks for, in words."""
    side = cfg.get("input_size", ["?"])[-1]
    crop, interpolation = cfg.get("crop_pct", "?"), cfg.get("interpolation", "?")
    return f"at {side} px, crop {crop}, {interpolation}, mean {list(cfg['mean'])}, std {list(cfg.get('std', []))}"
