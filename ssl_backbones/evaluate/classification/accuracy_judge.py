"""The accuracy of a classifier: every validation image once, shared out among the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_backbones.data import Batches, Images, by_content
from ssl_backbones.evaluate.classification.classifier import Classifier
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.embed import embed
from ssl_backbones.train.judge import Measured

FIVE = 5
"""Guesses of which one has to be right for top-5."""


@dataclass(frozen=True)
class Answers:
    """The predictions of a classifier for the validation images that can be read."""

    validation: Images
    readable: np.ndarray
    """(N,) bool, the M images that can be read."""
    predicted: Tensor
    """The likeliest class (M,) of each."""
    correct: dict[str, Tensor]
    """Correct predictions (M,) bool: "top-1", and "top-5" if there are more than five classes."""

    @classmethod
    def of(cls, guesses: Tensor, classes: int, validation: Images, readable: np.ndarray) -> Answers:
        """The answers by the likeliest classes (N, G), the first first, of so many classes."""
        kept = torch.from_numpy(readable)
        guessed, labels = guesses.long()[kept], torch.tensor(validation.labels)[kept]
        right = guessed == labels[:, None]
        five = {f"top-{FIVE}": right.any(dim=1)} if classes > FIVE else {}
        return cls(validation, readable, guessed[:, 0], {"top-1": right[:, 0], **five})

    @property
    def measured(self) -> Measured:
        """The accuracies, as a judge has them."""
        shares = {name: float(right.double().mean()) for name, right in self.correct.items()}
        return Measured(shares, self.correct["top-1"])

    @property
    def labels(self) -> Tensor:
        """The labels (M,) of the images that can be read."""
        return torch.from_numpy(np.asarray(self.validation.labels)[self.readable])

    @property
    def keys(self) -> list[str]:
        """The keys of the M images that can be read."""
        return [key for key, kept in zip(self.validation.keys, self.readable, strict=True) if kept]


class AccuracyJudge:
    """Tests a classifier on all images of a source, while it trains and at its end."""

    at_start = False
    answers: Answers
    """Answers of the last test."""

    def __init__(self, method: Classifier, validation: Images, size: int, every: int) -> None:
        self.method, self.validation, self.every = method, validation, every
        self.crop = method.to_test(size)

    def question(self, name: Callable[[Images], str] = by_content) -> dict[str, Any]:
        """All that two tests must share to be comparable, as JSON has it."""
        return {"validation": name(self.validation), "crop": repr(self.crop)}

    def judge(self, bench: Bench) -> Measured:
        """The accuracy, top-1 and top-5; images are left out that cannot be read."""
        guesses, unreadable = embed(
            Guesses(self.method),
            Batches(self.validation, self.crop, seed=0),
            np.arange(len(self.validation)),
            bench.device,
            workers=bench.workers,
            autocast=bench.autocast(),
        )
        lost = bench.count_unreadable(self.validation, unreadable).reasons
        readable = np.array([key not in lost for key in self.validation.keys])
        self.answers = Answers.of(guesses, self.method.config.classes, self.validation, readable)
        return self.answers.measured


class Guesses(nn.Module):
    """A classifier's likeliest classes (B, 5) of images (B, 3, S, S), the likeliest first."""

    def __init__(self, method: Classifier) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Tensor:
        return likeliest(self.method.logits(images))


def likeliest(logits: Tensor) -> Tensor:
    """The five classes (B, 5) of the highest scores (B, C), the highest first; fewer where there are fewer."""
    return logits.topk(min(FIVE, logits.shape[1]), dim=1).indices
