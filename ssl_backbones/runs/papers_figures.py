"""The papers' figures beside the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_backbones.files import UnreadableError, read_object
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.paper_table import Figure
from ssl_backbones.registry.tables import RANDOM, figures_of
from ssl_backbones.typed.records import check_recipe, check_results


def recipe_of(results: Mapping[str, Any]) -> str:
    """The recipe of the network that results are of: its own name, or the one that its run's folder was made by.

    Empty for the folder of a run whose recipe was altered; random weights are those of their architecture.
    """
    model = str(results["model"])
    if results.get("random_weights") or results.get("settings", {}).get("random"):
        return f"{Name.parse(model).arch} ({RANDOM})"
    if not (Path(model) / "recipe.json").is_file():
        return model
    try:
        recipe = read_object(Path(model) / "recipe.json", "", check=check_recipe)["name"]
        altered = read_object(Path(model) / "results.json", "", check=check_results).get("altered")
    except (UnreadableError, KeyError):
        return ""
    return "" if altered else str(recipe)


def papers_figures(results: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Each number of results that a paper has a figure for, with that figure; none where settings were altered."""
    if results.get("altered") or results.get("settings", {}).get("init"):
        return
    recipe, protocol = recipe_of(results), str(results["protocol"])
    for number in results["numbers"] if recipe else ():
        yield from ((number, figure) for figure in figures_of(recipe, protocol, number))
