"""A typed value from the words of a command line, and one sentence for every mistake in them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NoReturn, TypeVar, get_type_hints

import tyro

from ssl_backbones.typed.values import in_words, nearest, readable

T = TypeVar("T")


def read(
    kind: type[T],
    default: T | None,
    words: Sequence[str],
    program: str,
    description: str,
    *,
    types: Mapping[str, Any] | None = None,
    unknown_word: Callable[[Mapping[str, Any], list[str], str], str] | None = None,
) -> T:
    """The value of the words, or the default with theirs. What cannot be read ends the process with exit code 2.

    Its one sentence begins with the program's name, where there is one, and knows the options by their `types`;
    `unknown_word` is the sentence on a word that is neither an option nor the value of one.
    """
    words, types, said = list(words), options(kind) if types is None else types, io.StringIO()
    begun = f"{program}: " if program else ""
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(
                kind,
                **given,
                args=words,
                prog=program or None,
                description=description,
                return_unknown_args=True,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as end:
        if end.code == 0:
            raise
        lacking = missing(kind, words) if default is None else ""
        refuse(begun + (misread(types, words) or lacking or sentence_of(end) or said.getvalue()))
    except ValueError as error:
        refuse(f"{begun}{error}")
    if unknown:
        refuse(begun + (unknown_word or no_option)(types, words, unknown[0]))
    return made  # type: ignore[no-any-return]


def taken(
    words: Sequence[str],
    option: str,
    choices: Collection[str],
    usual: str,
    program: str,
    *,
    shown: Callable[[str], str] = str,
) -> tuple[str, list[str]]:
    """What the words choose by an option, and the other words. Another choice ends the process with exit code 2."""
    words = list(words)
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != f"--{option}":
            continue
        value = value if equals else "".join(words[at + 1 : at + 2])
        if value not in choices:
            said = shown(value or "left empty")
            refuse(f"{program}: --{option} is {said}, but must be one of {', '.join(choices)}.")
        return value, words[:at] + words[at + (1 if equals else 2) :]
    return usual, words


def refuse(sentence: str) -> NoReturn:
    """Print why and end with exit code 2."""
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


def options(kind: type[Any], prefix: str = "") -> dict[str, Any]:
    """The type of every option by its dotted name; what stands without a name is none."""
    plain, marked = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for field in fields(kind):
        if is_dataclass(plain[field.name]):
            found |= options(plain[field.name], f"{prefix}{field.name}.")
        elif not positional(marked[field.name]):
            found[prefix + field.name] = plain[field.name]
    return found


def positional(hint: Any) -> bool:
    """Whether a field stands without its name on the command line."""
    return bool(hint == tyro.conf.Positional[str])


def misread(types: Mapping[str, Any], words: list[str]) -> str:
    """The sentence on the first option whose value is none of its type, or nothing."""
    for option, values in spoken(words):
        declared = types.get(option)
        if declared not in (None, bool) and not readable(declared, values):
            return f"--{option} is {' '.join(values) or 'left empty'}, but must be {in_words(declared)}."
    return ""


def missing(kind: type[Any], words: list[str]) -> str:
    """The sentence on the first thing that has to be said and is not, or nothing."""
    given = {option for option, _ in spoken(words)}
    marked = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        if field.default is not MISSING or field.default_factory is not MISSING:
            continue
        if positional(marked[field.name]):
            if not words or words[0].startswith("-"):
                return f"the {field.name.upper()} is missing: it comes before the options; --help lists them."
        elif field.name not in given:
            return f"--{field.name} is missing; --help says what it is."
    return ""


def sentence_of(error: BaseException) -> str:
    """What a value's own check said before the command line gave up, or nothing."""
    context = error.__context__
    while context is not None and context.__context__ is not None:
        context = context.__context__
    return str(context) if isinstance(context, ValueError) else ""


def no_option(types: Mapping[str, Any], words: list[str], word: str) -> str:
    """The sentence on a word that is neither an option nor the value of one."""
    if word.startswith("--"):
        option = canonical(word)
        near = nearest("--" + option, ["--" + name for name in types])
        return f"--{option} is no option here{near or '; --help lists them'}."
    return valued_flag(types, words, word) or f"{word!r} belongs to no option; --help lists them."


def valued_flag(types: Mapping[str, Any], words: list[str], word: str) -> str:
    """The sentence on a word that follows an option which takes no value, or nothing."""
    for option, values in spoken(words):
        if types.get(option) is bool and word in values:
            return f"--{option} takes no value: write --{option}, or --{negative(option)} for its opposite."
    return ""


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
