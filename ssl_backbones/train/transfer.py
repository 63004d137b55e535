"""A run that trains a task with labels on top of a backbone, by the loop that pretrains."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.recipes.recipe import Run


@dataclass(frozen=True, kw_only=True)
class Transfer(Run):
    """A run that trains a task on top of a backbone."""

    protocol: str
    """Name of the evaluation."""
    model: str
    """A registered name, hf-hub:org/name, or the folder of a run."""
    weights_sha256: str
    """Of the backbone before training, so that a run does not go on with another."""
    task: MethodConfig

    @property
    def title(self) -> str:
        return f"{self.protocol} of {self.model}"
