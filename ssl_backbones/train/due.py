"""The moments at which a checkpoint of a run is due."""

from __future__ import annotations

from time import monotonic

from ssl_backbones.distributed import first_decides, world_size
from ssl_backbones.recipes.recipe import Run

APART = 10
"""Steps, at most, after which several processes ask for the time of the first."""


class Due:
    """The rules of a run for its checkpoints, and the time since the last one."""

    def __init__(self, run: Run) -> None:
        self.rule = run.checkpoints
        self.apart = min(run.log_every, APART) if world_size() > 1 else 1
        self.saved()

    def saved(self) -> None:
        """Note that a checkpoint is made now."""
        self.saved_at = monotonic()

    def after(self, step: int) -> bool:
        """True if the rules ask for a checkpoint after this step; by the clock, the first process's watch decides."""
        rule = self.rule
        if rule.every_steps and step % rule.every_steps == 0:
            return True
        if not rule.every_minutes or step % self.apart:
            return False
        return first_decides(lambda: monotonic() - self.saved_at > 60 * rule.every_minutes)
