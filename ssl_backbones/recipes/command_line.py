"""A recipe from a command line: a name, and any of its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssl_backbones import recipes
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.words import CommandLineError, grouped, read


def read_recipe(words: Sequence[str], program: str, about: str | None) -> Recipe:
    """The recipe that the first word names, or the sample, altered by the options; CommandLineError for what is wrong.

    --list prints all recipes and ends the process.
    """
    if "--list" in words:
        print(listing())
        raise SystemExit(0)
    named = bool(words) and not words[0].startswith("-")
    name = words[0] if named else "sample"
    try:
        usual = left_to_rules(recipes.get(name), words[named:])
    except ValueError as error:
        raise CommandLineError(str(error)) from error
    recipe = read(Recipe, words[named:], f"{program} {name}", about, usual=usual, by_rules=usual.derived)
    if name == "sample" and not recipe.data:
        raise CommandLineError(
            f"the sample images, {recipe.promise.data}, are part of the repository, and this is no copy of it: name "
            "images of your own with --data FOLDER"
        )
    return recipe


def left_to_rules(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """The recipe, of whose fields those that words set are no longer left to the rules."""
    said = [name for name, _ in grouped(words) if name]
    derived = (name for name in recipe.derived if not any(f"{other}.".startswith(f"{name}.") for other in said))
    return replace(recipe, derived=tuple(derived))


def listing() -> str:
    """Every recipe, by the paper and the table it is from."""
    papers: dict[str, list[str]] = {}
    for name in recipes.names():
        promise = recipes.get(name).promise
        papers.setdefault(promise.paper, []).append(f"  {name:<38} {promise.table}: {promise.result}")
    return "\n\n".join("\n".join([paper, *lines]) for paper, lines in papers.items())
