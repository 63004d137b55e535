"""A draft model card, written from what a run recorded and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData

from ssl_backbones.registry import LICENCE, Description, describe, list_models

NOT_MEASURED = "not measured"


def draft_card(recipe: Mapping[str, Any], results: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str:
    """The card (Markdown, with the Hub's front matter) of a run's folder, from recipe.json and results.json.

    `config` is the content of backbone/config.json, for the preprocessing. What the two do not hold is said to be not
    measured or not recorded; of the data no more than the last part of their path is told.
    """
    known = facts_of(recipe)
    parts = (
        front_matter(recipe, results, known),
        opening(recipe, known),
        loading(str(recipe["model"]).partition("_")[0], ".", "local-dir:./backbone", "`.` is the folder of this card."),
        preprocessing(recipe, config, "backbone/"),
        training(recipe, results),
        evaluation(results, known),
        limits(known),
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
    method = str(recipe["model"]).partition("_")[2]
    paper = re.search(r"arxiv\.org/abs/([\w.]+)", known.paper or "")
    tags = ["timm", "self-supervised-learning", method.replace("_", "-")]
    data = ModelCardData(
        library_name="timm" if known.backbone not in list_ours() else "ssl-backbones",
        license=known.licence or "apache-2.0",
        pipeline_tag="image-feature-extraction",
        tags=[tag for tag in tags if tag] + ([f"arxiv:{paper[1]}"] if paper else []),
        model_name=str(recipe["name"]),
        eval_results=[measured(recipe, results["knn"])] if "knn" in results else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def list_ours() -> list[str]:
    """The architectures that timm knows through this package alone."""
    return list(timm.list_models(module="small_resnet"))


def measured(recipe: Mapping[str, Any], knn: Mapping[str, Any]) -> EvalResult:
    """The k-NN accuracy in %, as the Hub's model-index has it."""
    name = data_name(recipe)
    return EvalResult(
        task_type="image-classification",
        dataset_type=name,
        dataset_name=name,
        metric_type="accuracy",
        metric_name=f"k-NN accuracy, k={knn['k']}",
        metric_value=percent(knn["after"]),
    )


def opening(recipe: Mapping[str, Any], known: Description) -> str:
    """What it is, in a paragraph."""
    method = known.method or str(recipe["model"]).partition("_")[2] or "a method that is not registered"
    sentence = f"A {known.backbone} image backbone, pretrained without labels by {method}."
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


def preprocessing(recipe: Mapping[str, Any], config: Mapping[str, Any] | None, place: str) -> str:
    """What an image has to go through, and what the file does not hold; `place` is where that lies, with a slash."""
    cfg = (config or {}).get("pretrained_cfg", {})
    side = f"It was trained on views of {recipe['size']} x {recipe['size']} pixels."
    prepared = (
        f"`{place}config.json` states mean, standard deviation, crop and interpolation; timm reads them from there."
    )
    rows = [(name, cfg.get(name)) for name in ("input_size", "mean", "std", "interpolation", "crop_pct")]
    return f"""## Input

{side}
{prepared}

{table(("", "value"), rows)}

What is not in `{place}model.safetensors`: a classifier, the projection and prediction heads, the momentum networks and
the queue. Where the method has them, they are in the run's checkpoints."""


def training(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The recipe, the command, the data and the machine."""
    optimizer, schedule, promise = (recipe.get(part, {}) for part in ("optimizer", "schedule", "promise"))
    data, compute = results.get("data", {}), results.get("compute", {})
    unreadable = results.get("unreadable")
    rows = [
        ("data", data_name(recipe)),
        ("images", data.get("images")),
        ("fingerprint of the data", data.get("fingerprint")),
        ("unreadable images left out", None if unreadable is None else len(unreadable)),
        ("epochs", results.get("epochs", recipe.get("epochs"))),
        ("optimiser's steps", results.get("steps")),
        ("batch", recipe.get("batch_size")),
        ("optimiser", optimizer.get("kind")),
        ("learning rate", joined(optimizer.get("lr"), optimizer.get("lr_rule"))),
        ("weight decay", optimizer.get("weight_decay")),
        ("schedule", joined(schedule.get("kind"), f"{schedule.get('warmup_epochs')} epochs of warm-up")),
        ("seed", results.get("seed", recipe.get("seed"))),
        ("device", joined(compute.get("device"), f"{compute.get('processes')} process(es)")),
        ("precision", compute.get("precision")),
        ("date", results.get("date")),
        *sorted(results.get("versions", {}).items()),
    ]
    return f"""## Training

{table(("", "this run"), rows)}

`recipe.json` beside this card holds every field, those altered for this run too.
The recipe's own source: {promise.get("paper", "not recorded")},
{promise.get("table", "not recorded")}; it is written for {promise.get("data", "data that are not recorded")}.

```
accelerate launch training/pretrain.py {recipe["name"]} --data DATA
```

{alterations(results)}"""


def alterations(results: Mapping[str, Any]) -> str:
    """In which fields the run differs from the recipe that it is named after."""
    if "altered" not in results:
        return "That is the recipe unaltered: give it each field that differs in `recipe.json`, as --FIELD VALUE."
    changed = [f"- `{name}`: {new} instead of {old}" for name, (old, new) in results["altered"].items()]
    return (
        "\n".join(["Altered in this run, as --FIELD VALUE:\n", *changed]) if changed else "Nothing of it was altered."
    )


def evaluation(results: Mapping[str, Any], known: Description, linear: str = NOT_MEASURED) -> str:
    """What was measured, beside random weights, beside chance and the paper; `linear` is what came of it here."""
    knn, std, rank = (results.get(name, {}) for name in ("knn", "std", "rank"))
    neighbours = f"k-NN accuracy, k={knn['k']}" if knn else "k-NN accuracy"
    rows = [
        (neighbours, share(knn.get("before")), share(knn.get("after"), knn.get("after_95"))),
        ("gain in k-NN accuracy", "", share(knn.get("gain"), knn.get("gain_95"), unit="points")),
        ("answering with the largest class", share(knn.get("chance")), share(knn.get("chance"))),
        ("effective rank of the features", number(rank.get("before")), number(rank.get("after"))),
        ("standard deviation of the features", number(std.get("before")), number(std.get("after"))),
    ]
    protocol = (
        f"\n\nNeighbours: {knn['protocol']}, {knn['queries']} queries, {knn['bank']} images in the bank." if knn else ""
    )
    where = (
        f"linear evaluation, top-1, {known.data}, {known.epochs} epochs" if known.data else "linear evaluation, top-1"
    )
    paper = NOT_MEASURED if known.paper_number is None else f"{known.paper_number} %"
    ours = NOT_MEASURED if known.our_number is None else f"{known.our_number} %"
    notes = f"\n\n{known.notes}" if known.notes else ""
    return f"""## Evaluation

{table(("", "random weights", "this run"), rows)}

In brackets: 95% confidence intervals; of the gain, over the same images before and after.{protocol}

{table(("", "the paper", "this project"), [(where, paper, ours)])}

This run's own linear evaluation: {linear}.{notes}"""


def limits(known: Description) -> str:
    """What it is not good for, and what its licence leaves open."""
    terms = (
        f"The recipe is written for {known.data}, whose terms are: {known.data_terms}."
        if known.data
        else "The terms of the images it was trained on are not recorded."
    )
    return f"""## Limits

It gives features, not classes: it has no classifier, and it knows what its training images show and what the
augmentations leave. Biases of the images are in the features. At sizes far from the training size, measure first.

## Licence

The licence named at the top is that of the code, or of the weights where the registry states one.
{terms}
Whether such terms bind weights is not settled; check them before you publish."""


def data_name(recipe: Mapping[str, Any]) -> str:
    """The last part of where the data lay; never the path, which is a machine's own affair."""
    return PurePath(str(recipe.get("data", ""))).name or "not recorded"


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table; None reads as not recorded."""
    cells = [["not recorded" if cell is None else str(cell) for cell in row] for row in rows]
    lines = ["|".join(["", *(f" {cell} " for cell in row), ""]) for row in [list(head), *cells]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def joined(*parts: Any) -> str | None:
    """Parts with commas between, or None where the first is missing."""
    return None if parts[0] is None else ", ".join(str(part) for part in parts if part is not None)


def percent(value: float) -> float:
    """A share in [0, 1] as a percentage with one decimal."""
    return round(100 * value, 1)


def share(value: float | None, interval: tuple[float, float] | None = None, unit: str = "%") -> str:
    """A share, or a difference of two in points, in words; with its interval where there is one."""
    if value is None:
        return NOT_MEASURED
    return f"{percent(value)} {unit}" + (f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else "")


def number(value: float | None) -> str:
    """A plain figure with three digits, or that it was not measured."""
    return NOT_MEASURED if value is None else f"{value:.3g}"
