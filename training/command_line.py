"""A recipe from a command line: a name, and any of its fields."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn, get_type_hints

import recipes
import tyro
from recipe import Recipe
from typed_values import in_words, nearest, readable

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
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(
                Recipe,
                default=recipe,
                args=words,
                description=DESCRIPTION.format(name=recipe.name),
                return_unknown_args=True,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as end:
        if end.code == 0:
            raise
        refuse(misread(recipe, words) or sentence_of(end) or said.getvalue())
    except ValueError as error:
        refuse(str(error))
    if unknown:
        refuse(unknown_word(recipe, words, unknown[0]))
    return made


def refuse(sentence: str) -> NoReturn:
    """Print why and end with exit code 2."""
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


def sentence_of(error: BaseException) -> str:
    """What a recipe's own check said before the command line gave up, or nothing."""
    context = error.__context__
    while context is not None and context.__context__ is not None:
        context = context.__context__
    return str(context) if isinstance(context, ValueError) else ""


def misread(recipe: Recipe, words: list[str]) -> str:
    """The sentence on the first option whose value is none of its type, or nothing."""
    types = options(recipe)
    for option, values in spoken(words):
        declared = types.get(option)
        if declared not in (None, bool) and not readable(declared, values):
            return f"--{option} is {' '.join(values) or 'left empty'}, but must be {in_words(declared)}."
    return ""


def unknown_word(recipe: Recipe, words: list[str], word: str) -> str:
    """The sentence on a word that is neither an option nor the value of one."""
    types = options(recipe)
    if word.startswith("--"):
        option = canonical(word)
        short = [name for name in types if name.rpartition(".")[2] == option.rpartition(".")[2]]
        near = f"; the nearest: {', '.join('--' + name for name in short)}" if short else ""
        near = near or nearest("--" + option, ["--" + name for name in types])
        return f"--{option} is not a field of the recipe {recipe.name}{near or '; --help lists them'}."
    for option, values in spoken(words):
        if types.get(option) is bool and word in values:
            return f"--{option} takes no value: write --{option}, or --{negative(option)} for its opposite."
    if word in recipes.names():
        return f"The recipe's name comes first: put {word} before the options."
    return f"{word!r} belongs to no option; the recipe's name comes first, then --FIELD VALUE."


def spoken(words: list[str]) -> list[tuple[str, list[str]]]:
    """Each option as its field's dotted name, with the words up to the next option."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            found.append((canonical(option), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
    return found


def canonical(option: str) -> str:
    """An option's dotted field name: hyphens and underscores are alike."""
    return option.partition("=")[0].removeprefix("--").replace("-", "_")


def negative(option: str) -> str:
    """The option that switches a field off."""
    part, dot, name = option.rpartition(".")
    return f"{part}{dot}no_{name}"


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
