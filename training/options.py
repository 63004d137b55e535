"""What every evaluation is asked with, and the reading of a command line into a typed value of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import tyro
from command_line import canonical, negative, refuse, sentence_of, spoken
from recipe import check
from typed_values import in_words, nearest, readable

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about, of which images, and where the answer goes."""

    model: tyro.conf.Positional[str]
    """A registered name, hf-hub:org/name, or the folder of a run."""
    data: str
    """Images to learn from: a folder, parquet files, or a Hub dataset id."""
    validation: str = ""
    """Images to answer about; without them, those that the data name as such."""
    out: str
    """The folder for results.json."""
    cache: str = ""
    """The folder that keeps features; one called features beside --out where it is not given."""
    layer: str = ""
    """A layer as timm names it, whose mean over positions is taken; the network's own output where it is not given."""
    size: int = 0
    """Side of the middle crop, in pixels; 0 for what the model's description says."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What numbers the network is computed in."""
    random: bool = False
    """Random weights instead of the model's: what training is held against."""
    seed: int = 0
    """Of all that is drawn."""
    batch_size: int = 256
    """Images embedded at once, per process."""
    workers: int | None = None
    """Processes that read images, per process; None for what the machine has cores for."""
    unreadable_share: float = 0.01
    """More unreadable images than this share are refused."""

    def __post_init__(self) -> None:
        check(self.size >= 0, "size", self.size, "at least 0")
        check(0 <= self.seed < 2**63, "seed", self.seed, "at least 0 and below 2^63")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        check(self.workers is None or self.workers >= 0, "workers", self.workers, "at least 0, or None")
        check(0 <= self.unreadable_share <= 1, "unreadable_share", self.unreadable_share, "at least 0 and at most 1")

    @property
    def cache_folder(self) -> Path:
        """Where features are kept: evaluations that lie side by side share them."""
        return Path(self.cache) if self.cache else Path(self.out).absolute().parent / "features"


FREE = frozenset({"model", "cache", "batch_size", "workers", "unreadable_share", "data", "validation", "out"})
"""Options that may differ when a folder is come back to: weights and data are held to what they are, not to names."""


def parse(kind: type[T], words: Sequence[str], program: str, description: str) -> T:
    """The options of a command line. What cannot be read ends the process: one sentence, exit code 2."""
    words = list(words)
    types = options(kind)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(
                kind,
                args=words,
                prog=program,
                description=description,
                return_unknown_args=True,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as end:
        if end.code == 0:
            raise
        refuse(f"{program}: {misread(types, words) or missing(kind, words) or sentence_of(end) or said.getvalue()}")
    except ValueError as error:
        refuse(f"{program}: {error}")
    if unknown:
        refuse(f"{program}: {unknown_word(types, words, unknown[0])}")
    return made


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


def misread(types: dict[str, Any], words: list[str]) -> str:
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


def unknown_word(types: dict[str, Any], words: list[str], word: str) -> str:
    """The sentence on a word that is neither an option nor the value of one."""
    if word.startswith("--"):
        option = canonical(word)
        near = nearest("--" + option, ["--" + name for name in types])
        return f"--{option} is no option here{near or '; --help lists them'}."
    for option, values in spoken(words):
        if types.get(option) is bool and word in values:
            return f"--{option} takes no value: write --{option}, or --{negative(option)} for its opposite."
    return f"{word!r} belongs to no option; --help lists them."
