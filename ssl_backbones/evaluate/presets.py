"""A protocol's presets on the command line: MODEL [--preset NAME] [--OPTION VALUE ...], every field typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ssl_backbones.distributed import say
from ssl_backbones.evaluate.transfer import Transfer
from ssl_backbones.typed.words import grouped, read

R = TypeVar("R", bound=Transfer)
NEEDED = ("model", "data", "out")
"""Fields that no preset settles."""


def read_preset(presets: Mapping[str, R], words: Sequence[str], program: str, about: str | None) -> R:
    """The preset that the words name, or the first, with the options' values; CommandLineError for what is wrong.

    Milestones in epochs follow the epochs where these alone are given, and a sentence says so.
    """
    first = next(iter(presets.values()))
    made = read(type(first), words, program, about, presets=presets, needed=NEEDED)
    if any(option == "schedule.milestones" for option, _ in grouped(words)):
        return made
    return following(next(preset for preset in presets.values() if preset.protocol == made.protocol), made)


def following(preset: R, made: R) -> R:
    """The run with its milestones at the preset's shares of the run, if its epochs are others and they are not."""
    there = preset.schedule.milestones
    if made.epochs == preset.epochs or made.schedule.milestones != there or not there:
        return made
    scaled = sorted({round(milestone * made.epochs / preset.epochs) for milestone in there})
    here = tuple(epoch for epoch in scaled if 0 < epoch < made.epochs)
    say(f"Of {made.epochs} epochs instead of {preset.epochs}, the milestones {there} are {here}.")
    return replace(made, schedule=replace(made.schedule, milestones=here))
