"""Settings that a run is too short for."""

from __future__ import annotations

from ssl_backbones.recipes.recipe import Run

COUNTED = {
    "frozen_steps": ("steps", "what they hold still never moves: lower --method.frozen_steps"),
    "instance_epochs": ("epochs", "prototypes are never made: lower --method.instance_epochs"),
}
"""Fields of methods that count steps or epochs from the start, and what a run misses that ends before."""


def never_reached(run: Run, steps_per_epoch: int) -> list[str]:
    """A sentence for each setting that a run of its epochs ends before."""
    length = {"steps": run.epochs * steps_per_epoch, "epochs": run.epochs}
    told = []
    for name, (unit, missed) in COUNTED.items():
        value = getattr(getattr(run, "method", None), name, 0)
        if value >= length[unit]:
            told.append(f"The run has {length[unit]:,} {unit}, and {name} is {value:,}: {missed}.")
    if late := [str(epoch) for epoch in run.schedule.milestones if epoch >= run.epochs]:
        told.append(
            f"The run has {run.epochs:,} epochs, and the learning rate is to fall after {', '.join(late)}: it never "
            "does, unless you lower --schedule.milestones together with --epochs."
        )
    return told
