"""A protocol's presets on the command line: MODEL [--preset NAME] [--FIELD VALUE ...], every field typed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ssl_backbones.train.transfer import Transfer
from ssl_backbones.typed.words import read, refuse, spoken, taken

R = TypeVar("R", bound=Transfer)


def parse_preset(presets: Mapping[str, R], words: Sequence[str], program: str, description: str) -> R:
    """The preset that the words name, or the first, with the options' values.

    Milestones in epochs follow the epochs where these alone are given, and a sentence says so. What cannot be read ends
    the process: one sentence, exit code 2.
    """
    name, words = taken(words, "preset", presets, next(iter(presets)), program)
    described = f"{description}\n--preset is one of {', '.join(presets)} ({name})."
    made = read(type(presets[name]), presets[name], words, program, described)
    if not made.model:
        refuse(f"{program}: the MODEL is missing: it comes before the options; --help lists them.")
    for field in ("data", "out"):
        if not getattr(made, field):
            refuse(f"{program}: --{field} is missing; --help says what it is.")
    if any(option == "schedule.milestones" for option, _ in spoken(words)):
        return made
    return following(presets[name], made)


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
