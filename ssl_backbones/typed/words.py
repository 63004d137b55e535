"""A typed value from the words of a command line: one language for every command, a sentence for every mistake.

Words are those of a person: `MODEL ... --option VALUE ... --flag`. Every field of a dataclass is an option, those of
its parts by dotted names; its docstring is its help.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from itertools import groupby
from typing import Annotated, Any, Literal, TypeVar

from ssl_backbones.checks import brief
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.docstrings import docstrings
from ssl_backbones.typed.values import declared_types, from_words, in_words, nearest, word_count

T = TypeVar("T")
INDENTED: dict[str, Any] = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}
Positional = Annotated[T, "positional"]
"""The type of a field that is said without its name."""
Hidden = Annotated[T, "hidden"]
"""The type of a field that is no option: something else settles it."""


class CommandLineError(Refusal, ValueError):
    """Words that a command cannot start with."""


@dataclass(frozen=True)
class Option:
    """A field of a dataclass, or of one of its parts, as a command line sets it."""

    name: str
    """Dotted, as in optimizer.lr."""
    declared: Any
    usual: Any
    """Its value where nothing is said; MISSING where something has to be."""
    positional: bool
    about: str
    by_rules: bool = False
    """True where its value follows from the images and the machine unless it is said."""

    def read(self, words: Sequence[str]) -> Any:
        """The value that words spell; CommandLineError, in a sentence, where they spell none."""
        try:
            return from_words(self.declared, words)
        except ValueError:
            said = brief(" ".join(words)) or "left empty"
            raise CommandLineError(f"{self} is {said}, but must be {in_words(self.declared)}.") from None

    def excess(self, word: str, line: str) -> str:
        """The sentence on a word that comes after those of the option; `line` is that of usage."""
        if self.declared is bool:
            return f"{self} takes no value: write {self}, or --{negative(self.name)} for its opposite."
        return f"{brief(repr(word))} belongs to no option, as {self} is {in_words(self.declared)}: {line}"

    @property
    def missing(self) -> str:
        """The sentence on an option that has to be said and is not."""
        about = self.about if self.about[1:2].isupper() else self.about[:1].lower() + self.about[1:]
        return f"{self} is missing: {about}"

    def __str__(self) -> str:
        return f"the {self.value}" if self.positional else f"--{self.name}"

    @property
    def value(self) -> str:
        """The name of a value in a line of usage: one of several is no plural."""
        many = word_count(self.declared) == sys.maxsize
        return (self.name.removesuffix("s") if many else self.name).upper()

    @property
    def place(self) -> str:
        """The option in a line of usage."""
        many = " ..." if word_count(self.declared) == sys.maxsize else ""
        place = f"{'' if self.positional else f'--{self.name} '}{self.value}{many}"
        return place if self.usual is MISSING else f"[{place}]"

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """The lower, the earlier it is shown: words without a name, what has to be said, the rest, and parts of it."""
        return not self.positional, self.usual is not MISSING, bool(self.part)

    @property
    def part(self) -> str:
        """The field that it is a part of: optimizer of optimizer.lr, none of size."""
        return self.name.partition(".")[0] if "." in self.name else ""

    @property
    def heading(self) -> str:
        """The option with its type and what it usually is."""
        if self.declared is bool:
            return f"--{self.name}, --{negative(self.name)} ({'on' if self.usual else 'off'})"
        usual = " ".join(map(str, self.usual)) if isinstance(self.usual, tuple) else str(self.usual)
        usual = "by the rules" if self.by_rules else usual
        told = " (needed)" if self.usual is MISSING else f" ({usual})" if usual else ""
        return f"{self.value if self.positional else f'--{self.name}'}, {in_words(self.declared)}{told}"


def read(
    kind: type[T],
    words: Sequence[str],
    program: str,
    about: str | None,
    *,
    usual: T | None = None,
    presets: Mapping[str, T] | None = None,
    needed: Collection[str] = (),
    by_rules: Collection[str] = (),
) -> T:
    """The dataclass that the words spell, or the usual one with what they alter; CommandLineError says what is wrong.

    The usual one is that of `presets` which --preset names, or the first. `needed` are fields that have to be said
    although they have a value; those `by_rules` are said to get one later. --help prints `about` and the options, and
    ends the process.
    """
    known: dict[str, Option] = {}
    if presets:
        choice = Option("preset", Literal[tuple(presets)], next(iter(presets)), False, "What the rest is taken from.")
        known, named_one = {"preset": choice}, [following[:1] for name, following in grouped(words) if name == "preset"]
        usual = presets[choice.read(named_one[-1]) if named_one else choice.usual]
    known |= options(kind, usual)
    known |= {name: replace(known[name], usual=MISSING) for name in needed}
    known |= {name: replace(known[name], by_rules=True) for name in by_rules if name in known}
    known = dict(sorted(known.items(), key=lambda item: item[1].rank))
    if {"-h", "--help"} & set(words):
        print(help_text(program, about or "", known))
        raise SystemExit(0)
    said = spoken(known, words, program)
    for option in known.values():
        if option.name not in said and option.usual is MISSING:
            raise CommandLineError(option.missing)
    try:
        return altered(kind, usual, {name: value for name, value in said.items() if name != "preset"})
    except ValueError as error:
        raise CommandLineError(str(error)) from error


def options(kind: type[Any], usual: Any = None, prefix: str = "") -> dict[str, Option]:
    """Every option of a dataclass by its dotted name, with the value of the usual one."""
    hints, said = declared_types(kind), docstrings(kind)  # type: ignore[arg-type]
    marked = declared_types(kind, marked=True)  # type: ignore[arg-type]
    found: dict[str, Option] = {}
    for field in fields(kind):
        name, value = prefix + field.name, usual_value(field, usual)
        marks = getattr(marked[field.name], "__metadata__", ())
        inner = parts(name, value)
        if "hidden" in marks:
            continue
        for below, part in inner.items():
            found |= options(type(part), part, f"{below}.")
        if not inner:
            about = said.get(field.name, "")
            found[name] = Option(name, hints[field.name], value, "positional" in marks, about)
    return found


def altered(kind: type[T], usual: T | None, said: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass with the values that were said, by their dotted names, for those that it usually has."""
    if usual is not None and not any(name.startswith(prefix) for name in said):
        return usual
    changes: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name, value = prefix + field.name, usual_value(field, usual)
        inner = [altered(type(part), part, said, f"{below}.") for below, part in parts(name, value).items()]
        if inner:
            changes[field.name] = tuple(inner) if isinstance(value, tuple) else inner[0]
        elif name in said:
            changes[field.name] = said[name]
    return kind(**changes) if usual is None else replace(usual, **changes)  # type: ignore[type-var]


def usual_value(field: Any, usual: Any) -> Any:
    """The value of a dataclass's field where nothing is said; MISSING where it has none."""
    if usual is not None:
        return getattr(usual, field.name)
    return field.default if field.default_factory is MISSING else field.default_factory()


def parts(name: str, value: Any) -> dict[str, Any]:
    """The dataclasses that a field's value is made of, by their dotted names: itself, or those in a tuple."""
    named = {f"{name}.{at}": item for at, item in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return {below: part for below, part in named.items() if is_dataclass(part)}


def spoken(known: Mapping[str, Option], words: Sequence[str], program: str) -> dict[str, Any]:
    """The value of each option that the words name, and of those that stand without a name, in their order."""
    said: dict[str, Any] = {}
    line = usage(program, known)
    loose: list[tuple[str, str]] = []
    """Words that no named option takes, each with the sentence on it where nothing else takes it either."""
    for name, following in grouped(words):
        if not name:
            loose += [(word, f"{brief(repr(word))} belongs to no option: {line}") for word in following]
            continue
        option, on = named(known, name, program)
        count = 0 if option.declared is bool else word_count(option.declared)
        if count == sys.maxsize and option.name in said:
            raise CommandLineError(
                f"--{option.name} stands twice, and the values of the first would be lost: name all after one"
            )
        said[option.name] = option.read(following[:count]) if count else on
        loose += [(word, option.excess(word, line)) for word in following[count:]]
    for option in known.values():
        if option.positional and loose:
            count = word_count(option.declared)
            said[option.name] = option.read([word for word, _ in loose[:count]])
            del loose[:count]
    if loose:
        raise CommandLineError(loose[0][1])
    return said


def grouped(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option's name, hyphens and underscores being alike, with the words up to the next; before the first, ""."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            found.append((option.removeprefix("--").replace("-", "_"), [value] if equals else []))
        else:
            found[-1][1].append(word)
    return found


def as_words(values: Mapping[str, Any]) -> list[str]:
    """The words that say values by their options' dotted names, for `read`; True and False switch on and off."""
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(f"--{name if value else negative(name)}")
        elif isinstance(value, tuple | list):
            words += [f"--{name}", *map(str, value)]
        else:
            words.append(f"--{name}={value}")
    return words


def options_among(words: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """The words of some options, by their names."""
    return tuple(word for name, more in grouped(words) if name in names for word in (f"--{name}", *more))


def named(known: Mapping[str, Option], name: str, program: str) -> tuple[Option, bool]:
    """The option of a name, and whether it is switched on rather than off; CommandLineError offers the nearest."""
    on = {option.name: option for option in known.values() if not option.positional}
    off = {negative(option.name): option for option in on.values() if option.declared is bool}
    if option := on.get(name) or off.get(name):
        return option, name in on
    last = name.rpartition(".")[2]
    alike = ", ".join(f"--{other}" for other in on if other.rpartition(".")[2] == last)
    near = f"; the nearest: {alike}" if alike else nearest(f"--{name}", [f"--{other}" for other in on])
    raise CommandLineError(f"--{brief(name)} is no option of {program}{near or '; --help lists them'}.")


def negative(name: str) -> str:
    """The option that switches another off."""
    part, dot, last = name.rpartition(".")
    return f"{part}{dot}no_{last}"


def usage(program: str, known: Mapping[str, Option]) -> str:
    """The line that shows what has to be said, and in which order."""
    places = [option.place for option in known.values() if option.positional or option.usual is MISSING]
    more = ["[--OPTION VALUE ...]"] if len(places) < len(known) else []
    return " ".join([f"usage: {program}", *places, *more])


def help_text(program: str, about: str, known: Mapping[str, Option]) -> str:
    """A usage line, what a command is about, and every option with its type, its usual value and its docstring."""
    width = min(100, shutil.get_terminal_size().columns)
    lines = [usage(program, known), "", about.strip(), ""]
    for part, those in groupby(known.values(), lambda option: option.part):
        lines += [""] if part else []
        for option in those:
            lines += [f"  {option.heading}", *textwrap.wrap(option.about, width, **INDENTED)]
    return "\n".join(lines)
