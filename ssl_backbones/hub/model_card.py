"""The card of a backbone that is published or ships, from results files and the registry and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import ModelCardData

from ssl_backbones.hub.card import (
    evaluation,
    facts_of,
    left_out,
    list_ours,
    loading,
    measured,
    preprocessing,
    pretrained,
    tags_for,
)
from ssl_backbones.hub.evaluations import Results, beats_random, commands, index, linear, rows, stands_for
from ssl_backbones.hub.markdown import NOT_MEASURED, share, table
from ssl_backbones.hub.training_section import data_name, fingerprint, training
from ssl_backbones.registry.photos import known_by
from ssl_backbones.registry.registry import LICENCE, Description
from ssl_backbones.runs.results import upgraded


@dataclass(frozen=True)
class Terms:
    """What a person says of the weights and of the images; photos known by their fingerprint speak for themselves."""

    licence: str = LICENCE
    """Of the weights, as the Hub abbreviates it."""
    images: str | None = None
    """What the images are called."""
    images_terms: str | None = None
    """What their owners allow."""
    dataset: str | None = None
    """Their id on the Hub, if they have one."""


@dataclass(frozen=True)
class Places:
    """Where the files that a card names lie, for who reads that card there."""

    weights: str
    """Their file, as a sentence begins with it."""
    preparation: str
    """A sentence on where timm knows from how images are prepared."""
    recipe: str
    """Of recipe.json."""
    state: str
    """Where the state of training lies, if it is published."""


ON_THE_HUB = Places(
    "`model.safetensors`",
    "How images are prepared stands in `config.json`, where timm reads it.",
    "recipe.json",
    "beside it",
)
"""Beside the card."""


def in_this_repository(name: str, ships: bool, published: str | None) -> Places:
    """Of a card in model_cards/: the records lie among the results, weights that ship in the package.

    `published` is the repository on the Hub that the training state is in, if there is one.
    """
    records = f"benchmarks/results/{name}"
    knows = "; timm knows it from the package" if ships else ""
    return Places(
        f"`ssl_backbones/_weights/{name}.safetensors`" if ships else "The file of the weights",
        f"How images are prepared stands in `{records}/config.json`{knows}.",
        f"{records}/recipe.json",
        f"in {published} on the Hub",
    )


def model_card(
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    name: str,
    source: str,
    terms: Terms,
    evaluations: Sequence[Results] = (),
    state: Sequence[str] = (),
    places: Places = ON_THE_HUB,
) -> str:
    """Markdown with the Hub's front matter.

    `recipe`, `results` and `config` are a run's recipe.json, results.json and backbone/config.json; `evaluations` the
    results of others about the same weights, and about random ones. `source` is what the backbone is loaded by, and
    `state` names the files of the training state, where they lie beside it; `places` is where the others do.
    """
    results = upgraded(results)
    known = replace(facts_of(recipe), name=name, licence=terms.licence)
    remark = f"`{name}` is its name, {'on the Hub' if source.startswith('hf-hub:') else 'in this package'}."
    parts = (
        front_matter(recipe, results, known, terms, evaluations),
        opening(recipe, known),
        loading(known.backbone, source, source, remark),
        preprocessing(recipe, config, places.preparation),
        left_out(places.weights, continuing(state, places.state)),
        training(recipe, results, places.recipe),
        evaluated(recipe, results, known, evaluations, source),
        verdict(results, evaluations),
        limits(recipe, results, known, terms),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    known: Description,
    terms: Terms,
    evaluations: Sequence[Results],
) -> str:
    """The block that the Hub reads; its model-index holds what the results files hold."""
    ours = known.backbone in list_ours()
    found = [measured(recipe, number) for name, number in results["numbers"].items() if name == "knn"] + index(
        evaluations
    )
    data = ModelCardData(
        library_name="ssl-backbones" if ours else "timm",
        license=terms.licence,
        pipeline_tag="image-feature-extraction",
        tags=tags_for(recipe),
        datasets=[terms.dataset] if terms.dataset else None,
        model_name=known.name,
        eval_results=found or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def opening(recipe: Mapping[str, Any], known: Description) -> str:
    """What it is, in a paragraph."""
    paper = f"\n\nThe method: {known.paper}" if known.paper else ""
    how = pretrained(recipe, known)
    what = f"A {known.backbone} image backbone, pretrained {how}, as in the recipe {recipe['name']}."
    return f"# {known.name}\n\n{what}{paper}"


def continuing(state: Sequence[str], place: str) -> str:
    """What there is to train on with."""
    if not state:
        return "Such parts and the optimiser's state are not published."
    files = "\n".join(f"- `{name}`" for name in state)
    return f"""The whole state of training lies {place}, as a run's folder has it:

{files}

`ssl_backbones.methods.method_from_run(FOLDER)` gives the method with its heads, its queue and its momentum networks,
where FOLDER is a copy of that repository (`hf download`)."""


def evaluated(
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    known: Description,
    evaluations: Sequence[Results],
    source: str,
) -> str:
    """What was measured in the run and after it, beside random weights and beside the paper."""
    own = evaluation(recipe, results, known, linear(evaluations) or NOT_MEASURED)
    found = list(rows(evaluations))
    if not found:
        return f"{own}\n\nOther evaluations: {NOT_MEASURED}."
    compared = table(("", "random weights", "this backbone", "gain"), found)
    again = f"Measured by these commands, where {stands_for(evaluations)}:\n\n{commands(evaluations, source)}"
    return f"{own}\n\nEvaluations of these weights:\n\n{compared}\n\n{again}"


def verdict(results: Mapping[str, Any], evaluations: Sequence[Results]) -> str:
    """Whether it is worth more than random weights; said plainly where it is not, or where nobody looked."""
    equal = beats_random(evaluations)
    gain = results["numbers"].get("knn gain")
    if gain and gain["low"] <= 0:
        equal = ["the run's own k-NN", *equal]
    if equal:
        return f"**It is not surely better than the same network with random weights** in: {'; '.join(equal)}."
    if not gain and not any(row[1] != NOT_MEASURED for row in rows(evaluations)):
        return f"Whether it beats the same network with random weights: {NOT_MEASURED}."
    margin = f" by {share(gain['value'], unit='points')} of k-NN accuracy in the run's own test" if gain else ""
    return f"It beats the same network with random weights{margin}, and surely so: no difference's interval holds zero."


def limits(recipe: Mapping[str, Any], results: Mapping[str, Any], known: Description, terms: Terms) -> str:
    """What it is not good for, and what the licences leave open."""
    side = f"{recipe['size']} x {recipe['size']} pixels"
    data = known_by(fingerprint(results))
    if terms.images_terms:
        images = f"Of the images ({terms.images or data_name(recipe)}): {terms.images_terms}."
    elif data:
        images = f"Of the images, which are {data.name}: {data.terms}."
    else:
        images = "Of the images: not stated."
    return f"""## Limits

It gives features, not classes: it has no classifier, and it knows what its training images show and what the
augmentations leave. Biases of the images are in the features. It saw {side}: at sizes far from that, measure first.

## Licence

Of the weights: {known.licence}.
{images}
Whether the terms of images bind weights is not settled; check them before you use the weights in a product."""
