"""Two fully-connected layers on frozen features: D - 256 - ReLU - C, by Adam on images without augmentation.

Pham et al., 2021 (https://arxiv.org/abs/2108.00475), who call it a linear evaluation; what two layers find need not lie
in the features linearly, so it has a name of its own. With --layers 1 it is a linear probe. The classifier is the one
after the last epoch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.evaluate.classification.head_training import Plan, Training, logits_of, train_head
from ssl_backbones.evaluate.evaluation import evaluation
from ssl_backbones.evaluate.labelled import open_labelled, require_asked
from ssl_backbones.evaluate.options import EvaluationOptions
from ssl_backbones.runs.results import as_share

LINES = 10
"""Told of the progress, at most."""


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """The options of the classifier and its training."""

    layers: Literal[1, 2] = 2
    """Fully-connected layers."""
    hidden: int = 256
    """Width of the first of two."""
    epochs: int = 100
    """Passes over all images."""
    train_batch_size: int = 32
    """Images per step."""
    lr: float = 1e-3
    """Learning rate of Adam, constant."""
    weight_decay: float = 0.0
    """Added to the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, hidden=1, epochs=1, train_batch_size=1)
        check(0 < self.lr < float("inf"), "lr", self.lr, "above 0")
        check(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "at least 0")

    @property
    def protocol(self) -> str:
        """Its name in results.json: one layer is linear, two are not."""
        return "mlp" if self.layers == 2 else "linear probe on cached features"


def run(options: Options) -> dict[str, Any]:
    """The accuracy on the images asked about after the last epoch."""
    images, validation, source = open_labelled(options, options.protocol)
    require_asked(validation, options.data, options.protocol)
    with evaluation(options.protocol, options, images, validation, source) as asked:
        if isinstance(asked, dict):
            return asked
        learnt, queries = asked.learnt_from(), asked.asked_about()
        assert queries is not None
        head = train(*learnt.on(asked.model.device), len(images.classes), options, asked.folder.checkpoints)
        rows, labels = queries.on(asked.model.device)
        right = (logits_of(head, rows).argmax(dim=1) == labels).cpu()
        left = asked.save_top1(learnt, queries, right)
        first_decides(lambda: shutil.rmtree(asked.folder.checkpoints, ignore_errors=True))  # half-trained heads
    say(f"{options.protocol} of {left['model']}: {as_share(left['numbers']['top-1'])}")
    return left


def head_of(width: int, classes: int, options: Options) -> nn.Sequential:
    """The head from features (B, D) to logits (B, C); weights are drawn by the seed as torch draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        widths = [width, *[options.hidden] * (options.layers - 1), classes]
        layers = [module for inner, outer in pairwise(widths) for module in (nn.Linear(inner, outer), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def train(rows: Tensor, labels: Tensor, classes: int, options: Options, folder: Path | None = None) -> nn.Sequential:
    """The head after the last epoch on features (N, D) with labels (N,), told of a few times on the way."""
    head = head_of(rows.shape[1], classes, options).to(rows.device)
    optimizer = torch.optim.Adam(head.parameters(), options.lr, weight_decay=options.weight_decay)
    training = Training(head, optimizer, folder)
    plan = Plan(options.epochs, options.train_batch_size, options.seed)
    for epoch, loss in train_head(training, rows, labels, plan, training.restore()):
        if epoch % max(1, -(-options.epochs // LINES)) == 0 or epoch == options.epochs:
            say(f"epoch {epoch} of {options.epochs}: loss {loss:.4f}")
    return head
