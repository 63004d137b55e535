"""The card of a backbone, a run's draft or a published one: from recipe.json, results files and the registry alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ssl_backbones.catalogue.description import Description
from ssl_backbones.catalogue.lookup import describe, list_models
from ssl_backbones.hub.evaluation_section import evaluation, on_new_labels
from ssl_backbones.hub.evaluations import Results, apart, data_set, index
from ssl_backbones.hub.export import KEPT
from ssl_backbones.hub.given import (
    UNLICENSED,
    Terms,
    base_model,
    clash,
    givens,
    sentences,
    settled,
    terms_of,
    with_labels,
)
from ssl_backbones.hub.markup import cell, plain_texts
from ssl_backbones.hub.run_name import data_name, fingerprint, on_own_images, run_name
from ssl_backbones.hub.training_section import training
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.recipes import RECIPES
from ssl_backbones.registry.image_sets import known_by
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.runs.results import Number, percent, upgraded


@dataclass(frozen=True)
class Places:
    """The places of the files that a card names, for who reads that card there."""

    weights: str
    """Their file, as a sentence begins with it."""
    preparation: str
    """The file in which timm reads how images are prepared, as a sentence ends with it."""
    recipe: str
    """Place of recipe.json."""
    state: str = ""
    """The place of the training state, if it is published."""
    half: bool = False
    """Kernels and matrices are float16 there."""


IN_A_RUN = Places("`backbone/model.safetensors`", "`backbone/config.json`, where timm reads it", "recipe.json")
"""Places of the files for the draft in a run's folder."""
ON_THE_HUB = Places("`model.safetensors`", "`config.json`, where timm reads it", "recipe.json", "beside it")
"""Beside the card."""


def in_this_repository(name: str, ships: bool, published: str | None) -> Places:
    """Places of the files for a card in model_cards/: records lie among the results, weights that ship in the package.

    `published` is the repository on the Hub that the training state is in, if there is one.
    """
    records = f"benchmarks/results/{name}"
    return Places(
        f"`ssl_backbones/_weights/{name}.safetensors`" if ships else "The file of the weights",
        f"`{records}/config.json`{'; timm knows it from the package' if ships else ''}",
        f"{records}/recipe.json",
        f"in {published} on the Hub",
    )


def model_card(
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    source: str | None = None,
    terms: Terms | None = None,
    evaluations: Sequence[Results] = (),
    state: Sequence[str] = (),
    places: Places = ON_THE_HUB,
) -> str:
    """Markdown with the Hub's front matter; what its sources do not hold is said to be not measured or not recorded.

    `recipe`, `results` and `config` are a run's recipe.json, results.json and backbone/config.json; `evaluations` are
    the results of others about the same weights, random ones, and those that the run was given. `source` is what the
    backbone is loaded by; without one the card is the draft in a run's folder; `.` is that of the card. `state` names
    the files of the training state, where they lie beside the card; `places` is where the others do.
    """
    recipe, results, config, evaluations = plain_texts([recipe, upgraded(results), config or {}, evaluations])
    places, given = places if source else IN_A_RUN, givens(results)
    terms = UNLICENSED if source is None and clash(given) else settled(terms or Terms(), given)
    known = replace(facts_of(recipe, results), name=name or run_name(recipe, results))
    return template().render(
        draft=source is None,
        known=known,
        recipe=recipe,
        state=state,
        places=places,
        licence=str(terms),
        front=front_matter(recipe, results, known, terms, apart(evaluations, given)[0]),
        how=pretrained(recipe, known, given),
        given=sentences(given),
        given_terms=terms_of(given, terms.licence if source else None),
        preparation=preparation(config),
        training=training(recipe, results, places.recipe),
        images_terms=images_terms(recipe, results, known, terms),
        **loading(known, source),
        **evaluation(recipe, results, known, evaluations, source or ".", given),
    )


@cache
def template() -> Template:
    """The template of a card, whose blocks leave no empty lines."""
    made = Environment(
        loader=PackageLoader("ssl_backbones.hub", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["cell"] = cell
    return made.get_template("card.md.jinja")


def facts_of(recipe: Mapping[str, Any], results: Results) -> Description:
    """The registry's description of the recipe; of one that is not registered, or on one's own images, its paper."""
    name, model = str(recipe["name"]), Name.parse(str(recipe["model"]))
    known_here = Name.parse(name).tag and (name in RECIPES or name in list_models(include_tags=True))
    if known_here and not on_own_images(recipe, results):
        return replace(describe(name), origin=None)  # of the run's own weights, not of others'
    paper = PAPERS.get(model.method)
    return Description(name, model.arch, paper.label, str(paper)) if paper else Description(name, model.arch)


def front_matter(
    recipe: Mapping[str, Any],
    results: Results,
    known: Description,
    terms: Terms,
    evaluations: Sequence[Results],
) -> str:
    """The block that the Hub reads; its model-index holds what the results files hold."""
    knn = on_new_labels(results, "knn")
    stated = {"dataset_type": terms.dataset, "dataset_name": terms.images}
    said = {fingerprint(results): {field: value for field, value in stated.items() if value}}
    images = data_set(data_name(recipe), fingerprint(results), said)
    data = ModelCardData(
        library_name="ssl-backbones" if known.backbone in list_ours() else "timm",
        **terms.on_the_hub,
        pipeline_tag="image-feature-extraction",
        tags=tags_for(recipe, givens(results)),
        base_model=base_model(givens(results)),
        datasets=[terms.dataset] if terms.dataset else None,
        model_name=known.name,
        eval_results=[*([measured(knn, images)] if knn else []), *index(evaluations, said)] or None,
    )
    return data.to_yaml()


def list_ours() -> list[str]:
    """The architectures that timm knows through this package alone."""
    return list(timm.list_models(module="small_resnet"))


def measured(knn: Number, images: Mapping[str, Any]) -> EvalResult:
    """The run's own k-NN accuracy in %, as the Hub's model-index has it."""
    return EvalResult(
        task_type="image-classification",
        **images,
        metric_type="accuracy",
        metric_name=f"k-NN accuracy, k={knn['k']}",
        metric_value=float(percent(knn["value"])),
    )


def method_name(recipe: Mapping[str, Any]) -> str:
    """The suffix of a model's name."""
    return Name.parse(str(recipe["model"])).method


def tags_for(recipe: Mapping[str, Any], given: Mapping[str, Provenance]) -> list[str]:
    """The tags that the Hub's pages sort it under; learnt without labels only where that is known of all behind it."""
    method = method_name(recipe)
    paper = PAPERS.get(method)
    alone = paper is not None and paper.labels_in(recipe.get("method", {})) is None and not with_labels(given)
    arxiv = re.search(r"arxiv\.org/abs/([\w.]+)", (paper and paper.url) or "")
    tags = ["timm", "self-supervised-learning" if alone else "", method.replace("_", "-")]
    return [tag for tag in tags if tag] + ([f"arxiv:{arxiv[1]}"] if arxiv else [])


def pretrained(recipe: Mapping[str, Any], known: Description, given: Mapping[str, Provenance]) -> str:
    """The method it was pretrained by, and whether labels were used, where that is known."""
    method = method_name(recipe)
    paper, behind = PAPERS.get(method), with_labels(given)
    if paper is None:
        return f"by {known.method or method or 'a method that is not registered'}{behind}"
    labels = paper.labels_in(recipe.get("method", {}))
    if labels:
        return f"{labels} ({paper.label}){behind}"
    return f"by {paper.label}{behind}" if behind else f"without labels by {paper.label}"


def loading(known: Description, source: str | None) -> dict[str, Any]:
    """The names that this package and timm load it by; `needs` is what timm knows through this package alone."""
    timm_source = "local-dir:." if source == "." else source or "local-dir:./backbone"
    registered = ":" not in timm_source
    needs = timm_source if registered else known.backbone if known.backbone in list_ours() else ""
    on_the_hub = timm_source.startswith("hf-hub:")
    return {"source": source or ".", "timm_source": timm_source, "needs": needs, "on_the_hub": on_the_hub}


def preparation(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The rows on how an image is prepared."""
    cfg = config.get("pretrained_cfg", {})
    return [(name, cfg.get(name)) for name in KEPT]


def images_terms(recipe: Mapping[str, Any], results: Results, known: Description, terms: Terms) -> str:
    """A sentence on the terms of the images' owners, as far as they are known."""
    data = known_by(fingerprint(results))
    if terms.images_terms:
        return f"Of the images ({terms.images or data_name(recipe)}): {terms.images_terms}."
    if data:
        return f"Of the images, which are {data.name}: {data.terms}."
    if on_own_images(recipe, results) or not known.data:
        return "Of the images: not stated."
    return (
        f"Of the images: not stated. The recipe is written for {known.data}, whose terms are: {known.data_terms}; "
        "whether the run's images are those is not known."
    )
