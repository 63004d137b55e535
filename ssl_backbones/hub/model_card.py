"""The card of a backbone that is published or ships, from results files and the registry and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import ModelCardData

from ssl_backbones.hub.card import (
    NOT_MEASURED,
    data_name,
    evaluation,
    facts_of,
    list_ours,
    loading,
    measured,
    preprocessing,
    share,
    table,
    training,
)
from ssl_backbones.hub.evaluations import Results, beats_random, commands, index, linear, rows
from ssl_backbones.registry import LICENCE, PAPERS, Description


@dataclass(frozen=True)
class Terms:
    """What a person says of the weights and of the images; where nothing is said, the registry's word counts."""

    licence: str = LICENCE
    """Of the weights, as the Hub abbreviates it."""
    images: str | None = None
    """What the images are called."""
    images_terms: str | None = None
    """What their owners allow."""
    dataset: str | None = None
    """Their id on the Hub, if they have one."""


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
) -> str:
    """Markdown with the Hub's front matter.

    `recipe`, `results` and `config` are a run's recipe.json, results.json and backbone/config.json; `evaluations` the
    results of others about the same weights, and about random ones. `source` is what the backbone is loaded by, and
    `state` names the files of the training state, where they lie beside it.
    """
    known = replace(facts_of(recipe), name=name, licence=terms.licence)
    remark = f"`{name}` is its name, {'on the Hub' if source.startswith('hf-hub:') else 'in this package'}."
    parts = (
        front_matter(recipe, results, known, terms, evaluations),
        opening(recipe, known),
        loading(known.backbone, source, source, remark),
        preprocessing(recipe, config, ""),
        continuing(state),
        training(recipe, results),
        evaluated(results, known, evaluations),
        verdict(results, evaluations),
        limits(known, recipe, terms),
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
    method = method_of(recipe)
    paper = PAPERS.get(method)
    url = (paper.url if paper else None) or ""
    arxiv = url.rpartition("/")[2] if "arxiv.org/abs/" in url else None
    found = ([measured(recipe, results["knn"])] if "knn" in results else []) + index(evaluations)
    data = ModelCardData(
        library_name="ssl-backbones" if ours else "timm",
        license=terms.licence,
        pipeline_tag="image-feature-extraction",
        tags=["timm", "self-supervised-learning", method.replace("_", "-")] + ([f"arxiv:{arxiv}"] if arxiv else []),
        datasets=[terms.dataset] if terms.dataset else None,
        model_name=known.name,
        eval_results=found or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def method_of(recipe: Mapping[str, Any]) -> str:
    """The suffix of a model's name."""
    return str(recipe["model"]).partition("_")[2]


def opening(recipe: Mapping[str, Any], known: Description) -> str:
    """What it is, in a paragraph."""
    method = method_of(recipe)
    how = "with labels" if method == "supervised" else f"by {known.method or method}"
    paper = f"\n\nThe method: {known.paper}" if known.paper else ""
    what = f"A {known.backbone} image backbone, pretrained {how} with the recipe {recipe['name']}."
    return f"# {known.name}\n\n{what}{paper}"


def continuing(state: Sequence[str]) -> str:
    """What there is to train on with."""
    if not state:
        return "The heads, the queue and the optimiser's state are not published with it."
    files = "\n".join(f"- `{name}`" for name in state)
    return f"""The whole state of training lies beside it, as a run's folder has it:

{files}

`ssl_backbones.methods.method_from_run(FOLDER)` gives the method with its heads, its queue and its momentum networks,
where FOLDER is a copy of this repository (`hf download`)."""


def evaluated(results: Mapping[str, Any], known: Description, evaluations: Sequence[Results]) -> str:
    """What was measured in the run and after it, beside random weights and beside the paper."""
    own = evaluation(results, known, linear(evaluations) or NOT_MEASURED)
    found = list(rows(evaluations))
    if not found:
        return f"{own}\n\nOther evaluations: {NOT_MEASURED}."
    compared = table(("", "random weights", "this backbone", "gain"), found)
    how = f"Evaluations of these weights, each to be found again with its command:\n\n{compared}"
    return f"{own}\n\n{how}\n\n{commands(evaluations)}"


def verdict(results: Mapping[str, Any], evaluations: Sequence[Results]) -> str:
    """Whether it is worth more than random weights; said plainly where it is not, or where nobody looked."""
    equal = beats_random(evaluations)
    knn = results.get("knn", {})
    if "gain_95" in knn and knn["gain_95"][0] <= 0:
        equal = ["the run's own k-NN", *equal]
    if equal:
        return f"**It is not surely better than the same network with random weights** in: {'; '.join(equal)}."
    if "gain" not in knn and not any(row[1] != NOT_MEASURED for row in rows(evaluations)):
        return f"Whether it beats the same network with random weights: {NOT_MEASURED}."
    margin = f" by {share(knn['gain'], unit='points')} of k-NN accuracy in the run's own test" if "gain" in knn else ""
    return f"It beats the same network with random weights{margin}, and surely so: no difference's interval holds zero."


def limits(known: Description, recipe: Mapping[str, Any], terms: Terms) -> str:
    """What it is not good for, and what the licences leave open."""
    side = f"{recipe['size']} x {recipe['size']} pixels"
    if terms.images_terms:
        images = f"Of the images ({terms.images or data_name(recipe)}): {terms.images_terms}."
    elif known.data:
        images = f"Of the images, which are those that the recipe is written for ({known.data}): {known.data_terms}."
    else:
        images = "Of the images: not stated."
    return f"""## Limits

It gives features, not classes: it has no classifier, and it knows what its training images show and what the
augmentations leave. Biases of the images are in the features. It saw {side}: at sizes far from that, measure first.

## Licence

Of the weights: {known.licence}.
{images}
Whether the terms of images bind weights is not settled; check them before you use the weights in a product."""
