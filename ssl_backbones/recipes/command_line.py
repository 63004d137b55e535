"""A recipe from a command line: a name, and any of its fields."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, get_type_hints

from ssl_backbones import recipes
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.values import nearest
from ssl_backbones.typed.words import canonical, read, refuse, valued_flag

DESCRIPTION = """Pretrain a backbone: [RECIPE] [--FIELD VALUE ...]

Without a recipe, the sample recipe runs on the photos that ship with the repository; --list shows all of them. Below
are the fields of the recipe {name!r} and what they hold there."""


def parse(argv: Sequence[str] | None = None) -> Recipe:
    """The recipe that the arguments name and alter. What cannot be read ends the process: one sentence, exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--list" in words:
        print(listing())
        raise SystemExit(0)
    name = words.pop(0) if words and not words[0].startswith("-") else "sample"
    try:
        recipe = recipes.get(name)
    except ValueError as error:
        refuse(str(error))
    return altered(recipe, words)


def altered(recipe: Recipe, words: list[str]) -> Recipe:
    """The recipe with the options' values."""
    return read(
        Recipe,
        recipe,
        words,
        program="",
        description=DESCRIPTION.format(name=recipe.name),
        types=options(recipe),
        unknown_word=partial(unknown_word, recipe),
    )


def unknown_word(recipe: Recipe, types: Mapping[str, Any], words: list[str], word: str) -> str:
    """The sentence on a word that is neither an option nor the value of one."""
    if word.startswith("--"):
        option = canonical(word)
        short = [name for name in types if name.rpartition(".")[2] == option.rpartition(".")[2]]
        near = f"; the nearest: {', '.join('--' + name for name in short)}" if short else ""
        near = near or nearest("--" + option, ["--" + name for name in types])
        return f"--{option} is not a field of the recipe {recipe.name}{near or '; --help lists them'}."
    if said := valued_flag(types, words, word):
        return said
    if word in recipes.names():
        return f"The recipe's name comes first: put {word} before the options."
    return f"{word!r} belongs to no option; the recipe's name comes first, then --FIELD VALUE."


def options(value: Any, prefix: str = "") -> dict[str, Any]:
    """The type of every field that can be set, by its dotted name."""
    hints = get_type_hints(type(value), include_extras=False)
    found: dict[str, Any] = {}
    for field in fields(value):
        held, name = getattr(value, field.name), prefix + field.name
        if is_dataclass(held):
            found |= options(held, f"{name}.") if field.name != "promise" else {}
        elif isinstance(held, tuple) and any(map(is_dataclass, held)):
            for at, item in enumerate(held):
                found |= options(item, f"{name}.{at}.")
        else:
            found[name] = hints[field.name]
    return found


def listing() -> str:
    """Every recipe, by the paper and the table it is from."""
    papers: dict[str, list[str]] = {}
    for name in recipes.names():
        promise = recipes.get(name).promise
        papers.setdefault(promise.paper, []).append(f"  {name:<38} {promise.table}: {promise.result}")
    return "\n\n".join("\n".join([paper, *lines]) for paper, lines in papers.items())
