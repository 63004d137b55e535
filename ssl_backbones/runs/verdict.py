"""The verdict on a backbone, in words: what its numbers show beside those of its baselines, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_backbones.runs.results import LEARNED, LEARNED_SAYS, Number, as_points, as_share, spelled

FEW_STEPS = 200
"""Steps that are told to be next to nothing: the shortest run that was shown to gain took 782 (the sample recipe)."""
FULL = 0.98
"""A share of views that find their image above which it can hardly rise."""
NAMES = {"knn": "k-NN", "probe": "linear probe", "retrieval": "an image found by a view of it"}
HEADLINES = ("knn", "probe")
"""The measures that decide, where there are labels; without, retrieval does."""


def sentences(results: Mapping[str, Any]) -> list[str]:
    """The verdict on a run or on a network, a sentence each, from its results; empty where nothing was compared."""
    baselines = results.get("baselines")
    if not baselines:
        return []
    own, *others = baselines["networks"]
    told = [opening(results, baselines), measured_on(baselines, own)]
    told += [beside(own, other) for other in others]
    if "trend" in results:
        told += outlook(results["trend"])
    return told


def opening(results: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
    """The first sentence: the outcome against the start or, without one, random weights; or why there is none."""
    steps = results.get("steps")
    if steps is not None and steps < FEW_STEPS:
        return (
            f"This run had only {steps:,} steps on {results['data']['images']:,} images, too few to judge: train "
            f"for at least {FEW_STEPS:,} steps (--epochs)."
        )
    if results.get(LEARNED):
        return LEARNED_SAYS
    named = {other["name"].partition(", ")[0]: other["gain"] for other in baselines["networks"][1:]}
    against = next((name for name in ("its start", "random weights") if name in named), None)
    if against is None:
        return "There are no random weights to compare this network with."
    learned = (
        f"This backbone has learned: it is better than {against}."
        if baselines["labelled"]
        else f"This backbone has learned: it finds its own images better than {against} "
        f"{'does' if against == 'its start' else 'do'}. What that is worth for telling classes apart was not measured, "
        "as there are no labels."
    )
    said = {
        "better": learned,
        "worse": f"This backbone is worse than {against}: look at its loss and at its learning rate.",
        "alike": f"This backbone is not shown to be better than {against}.",
        "mixed": f"This backbone is better than {against} by one measure and worse by another.",
    }
    return said[outcome(named[against])]


def outcome(gains: Mapping[str, Number]) -> str:
    """better, worse, alike or mixed, by the gains over another network whose interval leaves zero out."""
    names = [name for name in HEADLINES if name in gains] or ["retrieval"]
    better, worse = any(gains[name]["low"] > 0 for name in names), any(gains[name]["high"] < 0 for name in names)
    return "mixed" if better and worse else "better" if better else "worse" if worse else "alike"


def measured_on(baselines: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """The backbone's own numbers, and the images that they are of."""
    count, labelled = baselines["images"], baselines["labelled"]
    known = f", {labelled:,} of them labelled" if 0 < labelled < count else "" if labelled else ", without labels"
    few = " Fewer images than four times the features limit the rank." if count < 4 * own["features"] else ""
    return f"On {count:,} images{known} (95 % intervals): {figures(own['numbers'])}.{few}"


def figures(numbers: Mapping[str, Number]) -> str:
    """The numbers of a network in one line."""
    told = [f"{NAMES[name]} {as_share(numbers[name])}" for name in NAMES if name in numbers]
    return "; ".join([*told, f"effective rank {spelled(numbers['rank'], '.1f')}"])


def beside(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The comparison with another network."""
    names = [name for name in HEADLINES if name in other["gain"]] or ["retrieval"]
    gains = ", ".join(f"{NAMES[name]} {as_points(other['gain'][name])}" for name in names)
    shown = {"better": "better", "worse": "worse", "alike": "no difference is shown", "mixed": "better and worse"}
    end = shown[outcome(other["gain"])]
    draw = ", of which this is one draw" if other["name"] == "random weights" else ""
    ranks = " against ".join(spelled(network["numbers"]["rank"], ".1f") for network in (own, other))
    trained = f" (trained on {other['images']})" if other.get("images") else ""
    return f"Against {other['name']}{draw}{trained}, on the same images: {gains}: {end}. Rank {ranks}."


def outlook(trend: Mapping[str, Any]) -> list[str]:
    """Sentences on the second half of a run by its own measurements, and on what a longer one may bring."""
    if not trend:
        return []
    name = {"knn": "k-NN accuracy", "retrieval": "the share of images found by a view of them"}[trend["of"]]
    if "change" not in trend:
        return [
            f"Measured {times(len(trend['steps']))} in the second half of the run: too seldom to tell "
            "if it still changed; lower --monitoring.knn_every."
        ]
    change, first, last = trend["change"], trend["steps"][0], trend["steps"][-1]
    moved = f"From step {first:,} to {last:,} {name} changed by {as_points(change)}"
    if trend["of"] == "retrieval" and min(trend["shares"]) > FULL:
        end = "nearly every image is found already, and this figure can tell no more."
    elif change["low"] > 0:
        end = (
            "it rose, while the learning rate fell. A longer run may end higher (--epochs with a new --out, or on from "
            "here: --init FOLDER --with_state --out NEW); only that run can tell."
        )
    elif change["high"] < 0:
        end = "it fell. A shorter run may end higher (--epochs); only that run can tell."
    else:
        end = "no significant change."
    return [f"{moved}: {end}", *settled(trend.get("kept", []))]


def settled(kept: Sequence[float]) -> list[str]:
    """The share of nearest neighbours that stayed between the last measurements."""
    if not kept:
        return []
    first = f" ({100 * kept[0]:.0f} % in the middle of the run)" if len(kept) > 1 else ""
    return [f"{100 * kept[-1]:.0f} % of the nearest neighbours are those of the previous measurement{first}."]


def times(count: int) -> str:
    """A number of times in words."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
