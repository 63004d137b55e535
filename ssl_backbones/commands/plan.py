"""Plan a training on one's own images: what to run, how long it takes, what it needs. Nothing is trained.

Examples:
    ssl-backbones plan --data ~/images
    ssl-backbones plan --data ~/images --gpu_memory 12
    ssl-backbones plan --data ~/images --hours 2
    ssl-backbones plan --data ~/photos --cache cache --reencode 256

Looks at the images, times a few steps of each candidate on this machine, and gives commands to choose from. With
--gpu_memory the settings are those for a GPU of so many GB, wherever it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ssl_backbones.checks import check
from ssl_backbones.data import open_images, unlabelled
from ssl_backbones.data.cached import check_reencode
from ssl_backbones.data.survey import survey
from ssl_backbones.distributed import doing, say
from ssl_backbones.train.plan import ON_IMAGES, TAUGHT_BELOW, from_teacher, plan
from ssl_backbones.train.processes import meet

LONG = 8.0
"""Hours from which a way to shorten a run is told."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The images, and what may be spent."""

    data: str
    """A folder of images, parquet files, tar shards, or a Hub dataset id."""
    labels: Literal["auto", "none"] = "auto"
    """Take labels from class folders or a label column where there are any, or ignore them."""
    cache: str = ""
    """Folder of the cache that the runs will keep decoded images in; none is made for a plan."""
    reencode: int = 0
    """Shorter side, in pixels, that the cache scales images down to; 0 keeps them as they are."""
    gpu_memory: float = 0.0
    """Memory of the GPU that will train, in GB; 0 plans for this machine."""
    hours: float = 0.0
    """Hours that a run may take on this machine; 0 for as many as the rules give."""

    def __post_init__(self) -> None:
        for name in ("gpu_memory", "hours"):
            value = getattr(self, name)
            check(0 <= value < math.inf, name, value, "above 0, or 0 for no bound")
        check_reencode(self.reencode, self.cache)


def run(options: Options) -> None:
    """Look, time, and print the choices."""
    device = meet()
    with doing(f"Looking at the images of {options.data}"):
        opened = open_images(options.data)
        images = unlabelled(opened) if options.labels == "none" else opened
        found = survey(images)
    for sentence in found.sentences():
        say(sentence)
    if options.hours and options.gpu_memory and device.type != "cuda":
        say("--hours is not used: the GPU is not here to be timed.")
    said = {name: getattr(options, name) for name in ON_IMAGES}
    choices = plan(images, said, device, options.gpu_memory, options.hours)
    few, taught = len(images) < TAUGHT_BELOW, from_teacher(choices[0].recipe, images)
    if few:
        say(f"\n{len(images):,} images teach random weights little. Begin with {taught}\n\nOr without a teacher:")
    for number, choice in enumerate(choices, start=1):
        say("\n".join([f"\n{number}. {choice.command}", *(f"   {sentence}" for sentence in choice.sentences())]))
    if not few:
        say(f"\nOr begin with {taught}")
    if not options.hours and any(choice.cost.hours > LONG and not choice.elsewhere for choice in choices):
        say("\nWith --hours H each is shortened to what fits into so many hours on this machine.")
