"""A card's section on evaluation: what was measured in the run and after it, and what it is to be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_backbones.catalogue.description import Description
from ssl_backbones.hub.evaluations import (
    Results,
    apart,
    commands,
    given_rows,
    linear,
    not_above_random,
    over_random,
    remarks,
    rows,
    stands_for,
)
from ssl_backbones.hub.run_name import on_own_images
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.runs.results import LEARNED, NOT_MEASURED, Number, as_points, in_words, percent

BESIDE_RANDOM = ("", "random weights", "this backbone", "gain")
BESIDE_A_START = ("", "random weights", "the start", "this backbone", "gain over random weights", "gain over the start")
"""The heads of the table of results."""


def evaluation(
    recipe: Mapping[str, Any],
    results: Results,
    known: Description,
    everything: Sequence[Results],
    source: str,
    given: Mapping[str, Provenance],
) -> dict[str, Any]:
    """The numbers measured in the run and after it, beside random weights, what was given, and the paper's."""
    evaluations, others = apart(everything, given)
    return {
        "given_rows": given_rows(others, given),
        "head": BESIDE_A_START if "start" in results else BESIDE_RANDOM,
        "rows": all_rows(results, evaluations),
        "remarks": remarks(results, evaluations),
        "neighbours": neighbours(results),
        "paper_row": beside_the_paper(recipe, known, on_own_images(recipe, results)),
        "linear": linear(evaluations) or NOT_MEASURED,
        "commands": commands(everything, source, given),
        "data_words": stands_for(everything),
        "not_measured": NOT_MEASURED,
        "verdict": verdict(results, evaluations),
        "beside_the_start": beside_the_start(results),
    }


def neighbours(results: Results) -> str:
    """The protocol of the run's own k-NN in words; empty where there was none."""
    if "knn" not in results["numbers"]:
        return ""
    asked = f"{results['kind']}, {results['queries']['images']} queries, {results['bank']['images']} images in the bank"
    return f"{asked}; the most frequent class is {percent(results['chance'])} % of the queries"


def all_rows(results: Results, evaluations: Sequence[Results]) -> list[tuple[str, ...]]:
    """The rows of the run and of its evaluations; of a start, none of these are known."""
    if "start" not in results:
        return [*own_rows(results["numbers"]), *rows(evaluations)]
    found = [(title, random, NOT_MEASURED, this, gain, NOT_MEASURED) for title, random, this, gain in rows(evaluations)]
    return [*own_rows(results["numbers"], " random", " before"), *found]


def own_rows(numbers: Mapping[str, Number], *stages: str) -> list[tuple[str, ...]]:
    """Rows of what the run measured of itself: before training, after it, and the gain over the same images.

    `stages` are the ends of the names of what was measured before, where there is more than one.
    """
    knn = numbers.get("knn")
    titles = {
        "knn": f"k-NN in training, k={knn['k']}" if knn else "k-NN in training",
        "rank": "effective rank of the features",
        "std": "standard deviation of the features",
    }
    over = {" random": "knn gain over random", " before": "knn gain"}
    stages = stages or (" before",)
    return [
        (
            title,
            *(in_words(numbers.get(f"{name}{stage}")) for stage in (*stages, "")),
            *(points(numbers.get(over[stage])) if name == "knn" else "" for stage in stages),
        )
        for name, title in titles.items()
    ]


def points(gain: Number | None) -> str:
    """A gain in words."""
    return NOT_MEASURED if gain is None else as_points(gain)


def beside_the_paper(recipe: Mapping[str, Any], known: Description, own: bool) -> tuple[str, str, str] | None:
    """A row of linear accuracies, the authors' and this project's; None where no paper has these images or recipe."""
    if "no paper" in recipe.get("promise", {}).get("paper", "") or own:
        return None
    of = f", {known.data}, {known.epochs} epochs" if known.data else ""
    paper, ours = (NOT_MEASURED if found is None else f"{found} %" for found in (known.paper_number, known.our_number))
    return f"linear evaluation, top-1{of}", paper, ours


def verdict(results: Results, evaluations: Sequence[Results]) -> str:
    """A sentence on whether it is better than random weights, or that nobody measured it on labels new to it."""
    gain = on_new_labels(results, "knn gain over random" if "start" in results else "knn gain")
    equal = not_above_random(evaluations)
    if gain and gain["low"] <= 0:
        equal = ["k-NN in training", *equal]
    if equal:
        return f"**It is not surely better than the same network with random weights** in: {'; '.join(equal)}."
    if not gain and not over_random(evaluations):
        return f"Whether it beats the same network with random weights: {NOT_MEASURED}."
    margin = f" by {percent(gain['value'])} points of k-NN accuracy in training" if gain else ""
    return f"It beats the same network with random weights{margin}, and surely so: no difference's interval holds zero."


def on_new_labels(results: Results, name: str) -> Number | None:
    """A number that the run measured; None where it did not, or by the labels that it was trained with."""
    return None if results.get(LEARNED) else results["numbers"].get(name)


def beside_the_start(results: Results) -> str:
    """A sentence on whether it is better than the weights that it began with; empty where those were random."""
    if "start" not in results:
        return ""
    gain = on_new_labels(results, "knn gain")
    if gain is None:
        return f"Whether it beats the start: {NOT_MEASURED}."
    told = f"{as_points(gain)} of k-NN accuracy in training"
    if gain["low"] > 0:
        return f"It beats the start, by {told}."
    return f"**It is not surely better than the start**: {told}."
