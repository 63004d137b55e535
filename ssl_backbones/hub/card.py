"""A draft model card, written from what a run recorded and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData

from ssl_backbones.hub.markdown import NOT_MEASURED, number, percent, share, table
from ssl_backbones.hub.training_section import data_name, fingerprint, training
from ssl_backbones.registry.photos import known_by
from ssl_backbones.registry.registry import LICENCE, PAPERS, Description, describe, list_models
from ssl_backbones.runs.results import Number, upgraded


def draft_card(recipe: Mapping[str, Any], results: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str:
    """The card (Markdown, with the Hub's front matter) of a run's folder, from recipe.json and results.json.

    `config` is the content of backbone/config.json, for the preprocessing. What the two do not hold is said to be not
    measured or not recorded; of the data no more than the last part of their path is told.
    """
    known, results = facts_of(recipe), upgraded(results)
    parts = (
        front_matter(recipe, results, known),
        opening(recipe, known),
        loading(str(recipe["model"]).partition("_")[0], ".", "local-dir:./backbone", "`.` is the folder of this card."),
        preprocessing(recipe, config, "How images are prepared stands in `backbone/config.json`, where timm reads it."),
        left_out("`backbone/model.safetensors`", "Such parts, if any, are in the run's `checkpoints/`."),
        training(recipe, results, "recipe.json"),
        evaluation(recipe, results, known),
        limits(results, known),
    )
    return "\n\n".join(parts) + "\n"


def facts_of(recipe: Mapping[str, Any]) -> Description:
    """What the registry knows of the recipe; of one that is not registered, no more than its method and paper."""
    name, model = str(recipe["name"]), str(recipe["model"])
    if name in list_models(include_tags=True):
        return replace(describe(name), licence=LICENCE, origin=None)  # of the run's own weights, not of others'
    backbone = model.partition("_")[0]
    if model not in list_models():
        return Description(name, backbone)
    found = describe(model)
    return Description(name, backbone, found.method, found.paper)


def front_matter(recipe: Mapping[str, Any], results: Mapping[str, Any], known: Description) -> str:
    """The block that the Hub reads; its model-index holds what results.json holds."""
    data = ModelCardData(
        library_name="timm" if known.backbone not in list_ours() else "ssl-backbones",
        license=known.licence or "apache-2.0",
        pipeline_tag="image-feature-extraction",
        tags=tags_for(recipe),
        model_name=str(recipe["name"]),
        eval_results=[measured(recipe, results["numbers"]["knn"])] if "knn" in results["numbers"] else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def list_ours() -> list[str]:
    """The architectures that timm knows through this package alone."""
    return list(timm.list_models(module="small_resnet"))


def measured(recipe: Mapping[str, Any], knn: Number) -> EvalResult:
    """The k-NN accuracy in %, as the Hub's model-index has it."""
    name = data_name(recipe)
    return EvalResult(
        task_type="image-classification",
        dataset_type=name,
        dataset_name=name,
        metric_type="accuracy",
        metric_name=f"k-NN accuracy, k={knn['k']}",
        metric_value=percent(knn["value"]),
    )


def method_of(recipe: Mapping[str, Any]) -> str:
    """The suffix of a model's name."""
    return str(recipe["model"]).partition("_")[2]


def tags_for(recipe: Mapping[str, Any]) -> list[str]:
    """What the Hub's pages sort it under; learnt without labels only where that is known."""
    method = method_of(recipe)
    paper = PAPERS.get(method)
    alone = paper is not None and paper.labels_in(recipe.get("method", {})) is None
    arxiv = re.search(r"arxiv\.org/abs/([\w.]+)", (paper and paper.url) or "")
    tags = ["timm", "self-supervised-learning" if alone else "", method.replace("_", "-")]
    return [tag for tag in tags if tag] + ([f"arxiv:{arxiv[1]}"] if arxiv else [])


def pretrained(recipe: Mapping[str, Any], known: Description) -> str:
    """How it was pretrained: by which method, and whether labels were used, where that is known."""
    method = method_of(recipe)
    paper = PAPERS.get(method)
    if paper is None:
        return f"by {known.method or method or 'a method that is not registered'}"
    labels = paper.labels_in(recipe.get("method", {}))
    return f"{labels} ({paper.label})" if labels else f"without labels by {paper.label}"


def opening(recipe: Mapping[str, Any], known: Description) -> str:
    """What it is, in a paragraph."""
    sentence = f"A {known.backbone} image backbone, pretrained {pretrained(recipe, known)}."
    paper = f"\n\nThe method: {known.paper}" if known.paper else ""
    return (
        f"# {recipe['name']}\n\n{sentence} This card is a draft that a run wrote; check it before you publish.{paper}"
    )


def loading(backbone: str, ours: str, theirs: str, remark: str) -> str:
    """Three ways to use it, as code that runs: by what this package, and by what timm, knows it by."""
    registered = ":" not in theirs
    needs = f"import ssl_backbones  # makes {theirs if registered else backbone} known to timm\n"
    needs = needs if registered or backbone in list_ours() else ""
    return f"""## How to load

{remark}

```python
import ssl_backbones

model = ssl_backbones.create_model("{ours}", pretrained=True)  # a timm model without head
```

The embedding of a photo, with timm:

```python
{needs}import timm
import torch
from PIL import Image

model = timm.create_model("{theirs}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
photo = transform(Image.open("photo.jpg").convert("RGB"))
with torch.no_grad():
    embedding = model(photo[None])  # (1, model.num_features)
```

Feature maps:

```python
{needs}import timm

model = timm.create_model("{theirs}", pretrained=True, features_only=True)
```"""


def preprocessing(recipe: Mapping[str, Any], config: Mapping[str, Any] | None, stands: str) -> str:
    """What an image has to go through; `stands` says where timm knows that from."""
    cfg = (config or {}).get("pretrained_cfg", {})
    rows = [(name, cfg.get(name)) for name in ("input_size", "mean", "std", "interpolation", "crop_pct")]
    return f"""## Input

It was trained on views of {recipe["size"]} x {recipe["size"]} pixels.
{stands}

{table(("", "value"), rows)}"""


def left_out(weights: str, rest: str) -> str:
    """What the file of the weights does not hold, and in the words of `rest` what became of that."""
    return f"""{weights} holds the backbone alone:
no classifier, no projection or prediction head, no momentum network and no queue. {rest}"""


def evaluation(
    recipe: Mapping[str, Any], results: Mapping[str, Any], known: Description, linear: str = NOT_MEASURED
) -> str:
    """What was measured, beside random weights, beside chance and the paper; `linear` is what came of it here."""
    numbers: Mapping[str, Number] = results["numbers"]
    knn, gain = numbers.get("knn", {}), numbers.get("knn gain", {})
    neighbours = f"k-NN accuracy, k={knn['k']}" if knn else "k-NN accuracy"
    told = {name: number(numbers.get(name, {}).get("value")) for name in ("rank before", "rank", "std before", "std")}
    rows = [
        (neighbours, share(numbers.get("knn before", {}).get("value")), share(knn.get("value"), interval(knn))),
        ("gain in k-NN accuracy", "", share(gain.get("value"), interval(gain), unit="points")),
        ("answering with the largest class", share(results.get("chance")), share(results.get("chance"))),
        ("effective rank of the features", told["rank before"], told["rank"]),
        ("standard deviation of the features", told["std before"], told["std"]),
    ]
    protocol = (
        f"\n\nNeighbours: {results['kind']}, {knn['of']} queries, {results['bank']['images']} images in the bank."
        if knn
        else ""
    )
    notes = f"\n\n{known.notes}" if known.notes else ""
    return f"""## Evaluation

{table(("", "random weights", "this run"), rows)}

In brackets: 95% confidence intervals; of the gain, over the same images before and after.{protocol}

{beside_the_paper(recipe, known)}This run's own linear evaluation: {linear}.{notes}"""


def interval(number: Number) -> tuple[float, float] | None:
    """The ends of a number's interval, if it has one."""
    return (number["low"], number["high"]) if "low" in number else None


def beside_the_paper(recipe: Mapping[str, Any], known: Description) -> str:
    """What the recipe gave its authors and this project; nothing for a recipe that is no paper's."""
    if "no paper" in recipe.get("promise", {}).get("paper", ""):
        return ""
    where = (
        f"linear evaluation, top-1, {known.data}, {known.epochs} epochs" if known.data else "linear evaluation, top-1"
    )
    paper = NOT_MEASURED if known.paper_number is None else f"{known.paper_number} %"
    ours = NOT_MEASURED if known.our_number is None else f"{known.our_number} %"
    return f"{table(('', 'the paper', 'this project'), [(where, paper, ours)])}\n\n"


def limits(results: Mapping[str, Any], known: Description) -> str:
    """What it is not good for, and what its licence leaves open."""
    data = known_by(fingerprint(results))
    if data:
        terms = f"The images it was trained on are {data.name}, whose terms are: {data.terms}."
    elif known.data:
        terms = (
            f"The recipe is written for {known.data}, whose terms are: {known.data_terms}. Whether the run's photos "
            "are those is not known."
        )
    else:
        terms = "The terms of the images it was trained on are not recorded."
    return f"""## Limits

It gives features, not classes: it has no classifier, and it knows what its training images show and what the
augmentations leave. Biases of the images are in the features. At sizes far from the training size, measure first.

## Licence

The licence named at the top is that of the code, or of the weights where the registry states one.
{terms}
Whether such terms bind weights is not settled; check them before you publish."""
