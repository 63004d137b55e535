"""How often a classifier names the right class: every validation image once, shared out among the processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_backbones.data import Batches, Images
from ssl_backbones.evaluate.classification.finetune import Finetune
from ssl_backbones.evaluate.classification.linear import LinearProbe
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.embed import embed
from ssl_backbones.train.judge import Measured

FIVE = 5
"""Guesses of which one has to be right for top-5."""
Classifier = LinearProbe | Finetune


class AccuracyJudge:
    """Asks a classifier about all images of a source, while it trains and at its end."""

    at_start = False

    def __init__(self, method: Classifier, validation: Images, size: int, every: int) -> None:
        self.guesses, self.validation, self.every = Guesses(method), validation, every
        self.crop = method.to_test(size)
        self.readable = np.ones(len(validation), bool)
        self.right = torch.empty(0, 0, dtype=torch.bool)

    @property
    def question(self) -> dict[str, Any]:
        """What two answers must have in common to be compared."""
        return {"validation": self.validation.fingerprint, "crop": repr(self.crop)}

    def judge(self, bench: Bench) -> Measured:
        """The shares of images whose class is the first guess, and among the first five; images are left out that
        cannot be read.
        """
        dataset = Batches(self.validation, self.crop, seed=0)
        guesses, unreadable = embed(
            self.guesses,
            dataset,
            np.arange(len(self.validation)),
            bench.device,
            workers=bench.workers,
            autocast=bench.autocast(),
        )
        lost = bench.count_unreadable(self.validation, unreadable).photos
        self.readable = np.array([key not in lost for key in self.validation.keys])
        labels = torch.from_numpy(np.asarray(self.validation.labels))[:, None]
        self.right = (guesses.long() == labels)[torch.from_numpy(self.readable)]
        shares = {name: float(right.double().mean()) for name, right in self.answers().items()}
        return Measured(shares, self.right[:, 0])

    def answers(self) -> dict[str, Tensor]:
        """Which images (M,) were named rightly at last, in one guess and, where there are more classes, in five."""
        five = {f"top-{FIVE}": self.right.any(dim=1)} if self.guesses.more_than_five else {}
        return {"top-1": self.right[:, 0], **five}


class Guesses(nn.Module):
    """The classes (B, 5) that a classifier takes images (B, 3, S, S) for, the likeliest first."""

    def __init__(self, method: Classifier) -> None:
        super().__init__()
        self.method = method
        self.more_than_five = method.config.classes > FIVE

    def forward(self, images: Tensor) -> Tensor:
        logits = self.method.logits(images)
        return logits.topk(min(FIVE, logits.shape[1]), dim=1).indices
