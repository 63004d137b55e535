"""The part of a page that tells of a run: its recipe in a few words, and its curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_backbones.files import UnreadableError, read_object
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.narrator import as_time
from ssl_backbones.registry.names import without_place
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.results import as_share, in_words, percent, read_results, searched_in_words, upgraded
from ssl_backbones.runs.verdict import figures, sentences
from ssl_backbones.runs.waiting import in_words as in_words_of
from ssl_backbones.runs.waiting import share_of
from ssl_backbones.typed.records import ANEW, RESTORE, TunedForm, check_recipe
from ssl_backbones.typed.values import check_form, from_plain
from ssl_backbones.visualizers.curves import run_curves
from ssl_backbones.visualizers.gallery import Section


def run_section(folder: Path, results: Mapping[str, Any] | None = None) -> Section:
    """A run's recipe and its curves, from what its folder records; `results` where they are not there yet."""
    results = upgraded(results or recorded_results(folder))
    lines = read_log(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []
    return Section(
        "The run",
        "What was trained, and its numbers over the steps, as the run recorded them.",
        facts=facts(recorded_recipe(folder), results) | waiting(folder),
        curves=run_curves(lines, knn_chance=results.get("chance")),
    )


def waiting(folder: Path) -> dict[str, str]:
    """The share of the time that went by waiting for images, with what would be faster where it was much."""
    path = folder / "speed.jsonl"
    share = share_of(read_log(path)) if path.exists() else None
    return {} if share is None else {"Waiting for images": in_words_of(share, recorded_recipe(folder))}


def verdict_sections(results: Mapping[str, Any]) -> list[Section]:
    """The verdict on a backbone in words, and the numbers of each network; empty where nothing was compared."""
    told = sentences(results)
    if not told:
        return []
    networks = results["baselines"]["networks"]
    facts = {network["name"]: figures(network["numbers"]) for network in networks}
    about = "What this backbone is worth beside others on the same images, and whether its numbers still rose."
    return [Section("Verdict", about, told, facts)]


def tuned_sections(results: Mapping[str, Any], folder: Path) -> list[Section]:
    """The training with labels that a folder's backbone comes from, and its results; empty where there are none."""
    if "protocol" not in results or "backbone" not in results:
        return []
    optimizer = results["settings"]["optimizer"]
    told = {
        "Evaluation": results["protocol"],
        "Start": f"{without_place(results['model'])}{' from random weights' if results['random_weights'] else ''}",
        "Images": f"{results['data']['images']:,} to learn from, {results['validation']['images']:,} asked about",
        "Optimiser": f"{optimizer['kind']}, learning rate {optimizer['lr']:g} {optimizer['lr_rule']}",
        "Steps": str(results["steps"]),
    }
    told |= {name: in_words(number) for name, number in results["numbers"].items() if "/" not in name}
    about = [searched_in_words(results["learning_rates"])] if "learning_rates" in results else []
    lines = read_log(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []
    title = "What was trained with labels, and what came of it, as the folder records it."
    return [Section("The training with labels", title, about, told, curves=run_curves(lines))]


def recorded_recipe(folder: Path) -> dict[str, Any]:
    """The recipe of a run; empty where there is none."""
    path = folder / "recipe.json"
    return read_object(path, RESTORE, check=check_recipe) if path.exists() else {}


def recorded_results(folder: Path) -> dict[str, Any]:
    """The results of a run; empty where there are none yet."""
    path = folder / "results.json"
    found = read_results(path, ANEW) if path.exists() else {}
    try:
        start_of(found)
        if "backbone" in found:
            check_form(TunedForm, found)
    except ValueError as error:
        raise UnreadableError(f"{path} does not tell what was trained ({str(error)[:-1]}): {RESTORE}") from error
    return found


def start_of(results: Mapping[str, Any]) -> Provenance | None:
    """The network that a run began with, as its results tell; ValueError where they do not tell it whole."""
    start: Provenance | None = from_plain(Provenance, results["start"], "start") if "start" in results else None
    return start


def facts(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """The run in a few words each; what is not recorded is left out."""
    optimizer, numbers = recipe.get("optimizer", {}), results["numbers"]
    told = {
        "Recipe": recipe.get("name"),
        "Network": recipe.get("model"),
        "Start": start_of(results),
        "Images": f"{results['data']['images']:,} at {recipe.get('size')} px" if "data" in results else None,
        "Epochs": f"{recipe.get('epochs')}, in batches of {recipe.get('batch_size')}",
        "Optimiser": f"{optimizer.get('kind')}, learning rate {optimizer.get('lr')} {optimizer.get('lr_rule')}",
        "Seed": recipe.get("seed"),
        "Finished": results.get("date"),
        "Duration": as_time(results["seconds"]) if "seconds" in results else None,
    }
    if "knn" in numbers:
        stages = {
            "knn random": "random weights",
            "knn before": "the start" if "start" in results else "before training",
        }
        before = [f"{stage} {percent(numbers[name]['value'])} %" for name, stage in stages.items() if name in numbers]
        told["k-NN accuracy"] = ", ".join([as_share(numbers["knn"]), *before])
    if {"rank", "rank before"} <= numbers.keys():
        began, ended = (numbers[name]["value"] for name in ("rank before", "rank"))
        told["Effective rank"] = f"{ended:.1f}, before training {began:.1f}"
    return {name: str(value) for name, value in told.items() if value is not None}
