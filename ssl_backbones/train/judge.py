"""The protocol between the loop and those who measure its network: a bench goes in, numbers come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ssl_backbones.data.images import Images, by_content
from ssl_backbones.methods.method import Method
from ssl_backbones.metrics import shared_neighbours
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.precision import Compute


@dataclass(frozen=True)
class Measured:
    """Result of one measurement."""

    scalars: dict[str, float]
    """Numbers for the log. Of a backbone: std, the standard deviation of the unit features times sqrt(D), 1 when they
    point everywhere and 0 when all are alike; rank, their effective rank; retrieval, the share of images that a view of
    them finds; kept, the share of neighbours that the measurement before had too; knn, the k-NN accuracy."""
    correct: Tensor | None = None
    """Correct predictions (M,) bool; None without labels."""
    neighbours: Tensor | None = None
    """The rows (n, k) of some images' nearest others; None where nobody asks for them."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names here, those that there are."""
        found = {"correct": self.correct, "neighbours": self.neighbours}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def beside(self, earlier: Measured | None) -> Measured:
        """The same result, with the share of neighbours that an earlier one had too."""
        if earlier is None or self.neighbours is None or earlier.neighbours is None:
            return self
        if earlier.neighbours.shape != self.neighbours.shape:
            return self  # of other images
        kept = shared_neighbours(earlier.neighbours, self.neighbours).mean().item()
        return replace(self, scalars=self.scalars | {"kept": kept})

    @property
    def score(self) -> float:
        """Accuracy, by which the best checkpoint is chosen; 0 without labels."""
        return 0.0 if self.correct is None else self.correct.double().mean().item()


class Judge(Protocol):
    """A measurement of the network during and after training; it changes nothing in the weights."""

    every: int
    """Epochs between two measurements; 0 for none but the first and the last."""
    at_start: bool
    """True if there is something to measure before the first step."""

    def question(self, name: Callable[[Images], str] = by_content) -> dict[str, Any]:
        """All that two measurements must share to be comparable, as JSON; `name` gives the images' fingerprints."""
        ...

    def judge(self, bench: Bench) -> Measured:
        """Measure the network as it is now; all processes call it together."""
        ...


@dataclass(frozen=True)
class Trained:
    """A run after its last step: all that its results are made of."""

    method: Method
    images: Images
    folder: RunFolder
    steps: int
    compute: Compute
    device: torch.device
    before: Measured | None
    """Measured before the first step, where the judge measures then."""
    random: Measured | None
    """Likewise of random weights, where the run began with given ones."""
    after: Measured
    asked_since: int
    """The step after which all measurements answer the question of the last one; -1 for all of them."""
    best: dict[str, Any] | None
    """Step and score of the best measurement."""
    unreadable: list[str]
    """Keys of the training images that could not be read."""
    unreadable_elsewhere: list[str]
    """Keys of images of other sources, such as validation, that could not be read."""
    log: RunLog
    """Prints a sentence beside the progress bar, and knows how long the run has taken, resumed or not."""


SaveResults = Callable[[Trained], str]
"""Write what a run leaves, results.json last, and return a summary for a person."""

Conclude = Callable[[Bench], None]
"""Measure what only the end of a run is worth, in all processes together."""
