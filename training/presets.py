"""A protocol's presets on the command line: MODEL [--preset NAME] [--FIELD VALUE ...], every field typed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import tyro
from command_line import refuse, sentence_of, spoken
from options import misread, options, unknown_word
from transfer import Transfer

R = TypeVar("R", bound=Transfer)


def parse_preset(presets: Mapping[str, R], words: Sequence[str], program: str, description: str) -> R:
    """The preset that the words name, or the first, with the options' values.

    Milestones in epochs follow the epochs where these alone are given, and a sentence says so. What cannot be read ends
    the process: one sentence, exit code 2.
    """
    name, words = preset_in(presets, list(words), program)
    made = altered(presets[name], words, program, f"{description}\n--preset is one of {', '.join(presets)} ({name}).")
    if not made.model:
        refuse(f"{program}: the MODEL is missing: it comes before the options; --help lists them.")
    for field in ("data", "out"):
        if not getattr(made, field):
            refuse(f"{program}: --{field} is missing; --help says what it is.")
    if any(option == "schedule.milestones" for option, _ in spoken(words)):
        return made
    return following(presets[name], made)


def preset_in(presets: Mapping[str, R], words: list[str], program: str) -> tuple[str, list[str]]:
    """The preset's name, and the other words."""
    for at, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option != "--preset":
            continue
        value = value if equals else " ".join(words[at + 1 : at + 2])
        if value not in presets:
            refuse(f"{program}: --preset is {value or 'left empty'}, but must be one of {', '.join(presets)}.")
        return value, words[:at] + words[at + (1 if equals else 2) :]
    return next(iter(presets)), words


def altered(preset: R, words: list[str], program: str, description: str) -> R:
    """The preset with the options' values."""
    types, said = options(type(preset)), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(
                type(preset),
                default=preset,
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
        refuse(f"{program}: {misread(types, words) or sentence_of(end) or said.getvalue()}")
    except ValueError as error:
        refuse(f"{program}: {error}")
    if unknown:
        refuse(f"{program}: {unknown_word(types, words, unknown[0])}")
    return made


def following(preset: R, made: R) -> R:
    """The run with its milestones where the preset's are, as shares of the run."""
    there = preset.schedule.milestones
    if made.epochs == preset.epochs or made.schedule.milestones != there or not there:
        return made
    scaled = sorted({round(milestone * made.epochs / preset.epochs) for milestone in there})
    here = tuple(epoch for epoch in scaled if 0 < epoch < made.epochs)
    if os.environ.get("RANK", "0") == "0":  # the processes have not met yet
        print(f"Of {made.epochs} epochs instead of {preset.epochs}, the milestones {there} are {here}.", flush=True)
    return replace(made, schedule=replace(made.schedule, milestones=here))
