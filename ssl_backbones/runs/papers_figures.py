"""The papers' figures beside the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_backbones.checks import few
from ssl_backbones.files import UnreadableError, read_object
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.paper_table import Figure
from ssl_backbones.registry.tables import RANDOM, figures_of
from ssl_backbones.typed.records import check_recipe, check_results


def recipe_of(results: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The recipe of the network that results are of, and the fields in which its run differs from that.

    It is the network's own name, or the one that its run's folder was made by; empty where that folder cannot be read.
    Random weights are those of their architecture.
    """
    model = str(results["model"])
    if results.get("random_weights") or results.get("settings", {}).get("random"):
        return f"{Name.parse(model).arch} ({RANDOM})", {}
    if not (Path(model) / "recipe.json").is_file():
        return model, {}
    try:
        recipe = read_object(Path(model) / "recipe.json", "", check=check_recipe)["name"]
        altered = read_object(Path(model) / "results.json", "", check=check_results).get("altered", {})
    except (UnreadableError, KeyError):
        return "", {}
    return str(recipe), altered


def papers_figures(results: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Each number of results that a paper has a figure for, with that figure; none where settings were altered."""
    if not instead(results):
        yield from figures_meant(results)


def figures_meant(results: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Those that an unaltered run and evaluation of these names would have."""
    recipe, protocol = recipe_of(results)[0], str(results["protocol"])
    for number in results["numbers"] if recipe else ():
        yield from ((number, figure) for figure in figures_of(recipe, protocol, number))


def instead(results: Mapping[str, Any]) -> str:
    """The cause that keeps results from standing beside a paper's figures, in words; empty for none."""
    if init := results.get("settings", {}).get("init"):
        return f"the weights are those of --init {init}"
    if altered := results.get("altered"):
        return f"the evaluation differs from {results['protocol']} in {few(list(altered.items()), spelled=spelled)}"
    recipe, altered = recipe_of(results)
    return (
        f"{results['model']} differs from {recipe} in {few(list(altered.items()), spelled=spelled)}" if altered else ""
    )


def spelled(field: tuple[str, Any]) -> str:
    """An altered field with its values."""
    name, (old, new) = field
    return f"{name} ({new} instead of {old})"
