"""Dataclasses as plain JSON values and back, every value checked against the type it is declared with."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import math
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from ssl_backbones.checks import brief, check

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    types.NoneType: "None",
    dict: "an object",
    list: "a list",
    Any: "anything",
}


@cache
def declared_types(kind: type[Any], marked: bool = False) -> Mapping[str, Any]:
    """The type that each field of a class is declared with, with the marks of `Annotated` or without."""
    return types.MappingProxyType(get_type_hints(kind, include_extras=marked))


def to_plain(value: Any) -> Any:
    """The value as dicts, lists, numbers, texts and None; a dataclass of an abstract family names itself as "type"."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"type": type(value).__name__} if any(map(inspect.isabstract, type(value).__mro__)) else {}
        return kind | {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(declared: Any, plain: Any, name: str = "") -> Any:
    """The value of a declared type that `to_plain` made plain; ValueError names what does not fit."""
    if is_dataclass(declared):
        return dataclass_from_plain(declared, plain, name)
    if is_typeddict(declared) or get_origin(declared) in (dict, list):
        check_form(declared, plain, name)
        return plain
    if get_origin(declared) in (Union, types.UnionType):
        return choice_from_plain(declared, plain, name)
    if get_origin(declared) is tuple and isinstance(plain, list):
        kinds = item_types(declared, len(plain))
        if len(kinds) == len(plain):
            return tuple(
                from_plain(kind, item, f"{name}.{at}") for at, (kind, item) in enumerate(zip(kinds, plain, strict=True))
            )
    elif fits(declared, plain):
        return float(plain) if declared is float else plain
    raise misfit(declared, plain, name)


def misfit(declared: Any, plain: Any, name: str) -> ValueError:
    """The error of a value that is none of its declared type."""
    return ValueError(f"{name or 'it'} is {brief(repr(plain))}, but must be {in_words(declared)}.")


def check_form(form: Any, plain: Any, name: str = "") -> None:
    """Refuse a JSON value that has not the form of a TypedDict, or of dict[str, ...] or list[...]: ValueError.

    An object may hold more than its form declares, as newer versions and other programs write it.
    """
    whole = list if get_origin(form) is list else dict
    if not isinstance(plain, whole):
        raise misfit(whole, plain, name)
    if not is_typeddict(form):
        for key, item in plain.items() if isinstance(plain, dict) else enumerate(plain):
            from_plain(get_args(form)[-1], item, join(name, str(key)))
    elif isinstance(plain, dict):
        check_fields(form, plain, name)


def check_fields(form: Any, plain: dict[str, Any], name: str) -> None:
    """Refuse an object that lacks a field of a TypedDict, or has one of another type: ValueError."""
    if missing := sorted(form.__required_keys__ - plain.keys()):
        raise ValueError(f"{join(name, missing[0])} is missing.")
    for key, kind in declared_types(form).items():
        if key in plain:
            from_plain(kind, plain[key], join(name, key))


def dataclass_from_plain(declared: Any, plain: Any, name: str) -> Any:
    """A dataclass of a declared class, or of the concrete one that an abstract family's value names."""
    if not isinstance(plain, dict):
        raise ValueError(
            f"{name or declared.__name__} is {brief(repr(plain))}, but must hold the fields of {declared.__name__}."
        )
    if inspect.isabstract(declared):
        family = {kind.__name__: kind for kind in concrete(declared)}
        if not isinstance(plain.get("type"), str) or plain["type"] not in family:
            said = brief(repr(plain.get("type")))
            raise ValueError(f"{name}.type is {said}, but must be one of {', '.join(sorted(family))}.")
        declared = family[plain["type"]]
    if plain.get("type") == declared.__name__:
        plain = {key: item for key, item in plain.items() if key != "type"}
    hints = declared_types(declared)
    known = {field.name: hints[field.name] for field in fields(declared)}
    for key in plain:
        if key not in known:
            raise ValueError(f"{join(name, key)} is not a field of {declared.__name__}{nearest(key, known)}.")
    try:
        return declared(**{key: from_plain(known[key], item, join(name, key)) for key, item in plain.items()})
    except TypeError as error:
        raise ValueError(f"{name or declared.__name__} is not complete: {error}.") from error


def choice_from_plain(declared: Any, plain: Any, name: str) -> Any:
    """A value of the first member of a union that takes it."""
    for kind in get_args(declared):
        with contextlib.suppress(ValueError):
            return from_plain(kind, plain, name)
    raise misfit(declared, plain, name)


def fits(declared: Any, plain: Any) -> bool:
    """True if a plain value is one of a scalar type; True is no number, 1 is a float."""
    if declared is Any:
        return True
    if get_origin(declared) is Literal:
        return any(plain == choice and type(plain) is type(choice) for choice in get_args(declared))
    if declared is float:
        return isinstance(plain, int | float) and not isinstance(plain, bool)
    return type(plain) is declared


def from_words(declared: Any, words: Sequence[str]) -> Any:
    """The value of a declared type that words of a command line spell; ValueError where they spell none."""
    if get_origin(declared) in (Union, types.UnionType):
        for kind in sorted(get_args(declared), key=lambda kind: kind is not types.NoneType):
            with contextlib.suppress(ValueError):
                return from_words(kind, words)
        raise ValueError(words)
    if get_origin(declared) is tuple:
        kinds = item_types(declared, len(words))
        return tuple(from_words(kind, [word]) for kind, word in zip(kinds, words, strict=True))
    (word,) = words
    if get_origin(declared) is Literal or declared is types.NoneType:
        choices = {str(choice): choice for choice in get_args(declared) or (None,)}
        if word not in choices:
            raise ValueError(word)
        return choices[word]
    return number_of(declared, word) if declared in (int, float) else declared(word)


def number_of(declared: Any, word: str) -> int | float:
    """The number that a word spells in ASCII, finite and, if whole, of 64 bits; ValueError where it spells none."""
    value: int | float = declared(word)
    if not word.isascii() or not math.isfinite(value) or (declared is int and not -(2**63) <= value < 2**63):
        raise ValueError(word)
    return value


def word_count(declared: Any) -> int:
    """The most words that a value of a declared type is spelt with."""
    if get_origin(declared) in (Union, types.UnionType):
        return max(map(word_count, get_args(declared)))
    kinds = get_args(declared) if get_origin(declared) is tuple else (declared,)
    return sys.maxsize if ... in kinds else len(kinds)


def in_words(declared: Any) -> str:
    """A declared type as a reader would say it."""
    if get_origin(declared) is Literal:
        return "one of " + ", ".join(map(str, get_args(declared)))
    if get_origin(declared) in (Union, types.UnionType):
        return " or ".join(map(in_words, get_args(declared)))
    if get_origin(declared) is tuple:
        kinds: tuple[Any, ...] = get_args(declared)
        return f"{'any number of' if ... in kinds else len(kinds)} values, each {in_words(kinds[0])}"
    return WORDS.get(get_origin(declared) or declared) or str(declared.__name__)


def item_types(declared: Any, count: int) -> tuple[Any, ...]:
    """The types of a tuple's items, as many as are declared, or `count` where any number is."""
    kinds: tuple[Any, ...] = get_args(declared)
    return (kinds[0],) * count if ... in kinds else kinds


def concrete(family: type[Any]) -> Iterator[type[Any]]:
    """Every class of a family that can be made."""
    kind: type[Any]
    for kind in family.__subclasses__():
        if not inspect.isabstract(kind):
            yield kind
        yield from concrete(kind)


def join(name: str, key: str) -> str:
    """A field's name below another's."""
    return f"{name}.{key}" if name else key


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """ "; did you mean this or that?" without the last mark, or nothing where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=count, cutoff=0.7)
    return f"; the nearest: {', '.join(near)}" if near else ""


def check_types(part: Any, prefix: str = "") -> None:
    """Refuse a part's first value that is none of its declared type."""
    for name, declared in declared_types(type(part)).items():  # type: ignore[arg-type]
        value = getattr(part, name)
        if isinstance(declared, type) and is_dataclass(declared):
            check(isinstance(value, declared), prefix + name, value, f"a {declared.__name__}")
        else:
            from_plain(declared, to_plain(value), prefix + name)


def check_choices(part: Any) -> None:
    """Refuse a part's first value that is none of the Literal that its field is declared with."""
    for name, declared in declared_types(type(part)).items():  # type: ignore[arg-type]
        choices = get_args(declared) if get_origin(declared) is Literal else ()
        if choices and (value := getattr(part, name)) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
