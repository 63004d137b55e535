"""Multinomial logistic regression on frozen features: the linear classifier that images without augmentation allow.

Features are brought to mean 0 and deviation 1 by those learnt from. The weight decay is the best on a held-out part of
the images to learn from, the same share of each class; with it, the classifier is fitted once more on all of them, by
L-BFGS. The images asked about have no say in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.checks import check
from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.subset import drawn_by_class
from ssl_backbones.distributed import say
from ssl_backbones.evaluate.evaluation import evaluation
from ssl_backbones.evaluate.labelled import open_labelled, require_asked
from ssl_backbones.evaluate.options import EvaluationOptions
from ssl_backbones.metrics.logistic_regression import STEPS, Classifier, fit_classifier
from ssl_backbones.runs.results import as_share, proportion

HALF_DECADES = tuple(float(f"{10 ** (half / 2):.2g}") for half in range(-12, 1))


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """The options of logistic regression."""

    weight_decays: tuple[float, ...] = HALF_DECADES
    """Weight decays l to choose from; minimises the mean cross-entropy plus l/2 |W|^2, without decay on the bias."""
    held_out: float = 0.2
    """Share of each class held out to choose the weight decay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = bool(self.weight_decays) and min(self.weight_decays) > 0 and max(self.weight_decays) < math.inf
        check(positive, "weight_decays", self.weight_decays, "above 0 each")
        check(0 < self.held_out < 1, "held_out", self.held_out, "above 0 and below 1")


def run(options: Options) -> dict[str, Any]:
    """The accuracy on the images asked about, and how the weight decay was chosen."""
    images, validation, source = open_labelled(options, "logistic regression")
    require_asked(validation, options.data, "logistic regression")
    with evaluation("logistic regression on cached features", options, images, validation, source) as asked:
        if isinstance(asked, dict):
            return asked
        learnt, queries = asked.learnt_from(), asked.asked_about()
        assert queries is not None
        rows, labels = learnt.on(asked.model.device)
        chosen, tried = choose(rows, labels, len(images.classes), options)
        classifier = fit_classifier(rows, labels, len(images.classes), chosen)
        right = classifier.predict(queries.rows.to(rows.device)).cpu() == queries.labels
        by = f"{options.held_out:g} of each class, held out" if tried else "given"
        search = {"chosen": chosen, "by": by, "tried": tried}
        left = asked.save_top1(learnt, queries, right, weight_decay=search, converged=classifier.converged)
    say(f"logistic regression of {left['model']}: {as_share(left['numbers']['top-1'])}, weight decay {chosen:g}")
    if not classifier.converged:
        say(f"The fit did not converge in {STEPS} steps: its accuracy is not that of the best classifier.")
    if tried and f"{chosen:g}" in (f"{min(options.weight_decays):g}", f"{max(options.weight_decays):g}"):
        say(f"The weight decay that was chosen, {chosen:g}, lies at the end of those tried: widen --weight_decays.")
    return left


def choose(rows: Tensor, labels: Tensor, classes: int, options: Options) -> tuple[float, dict[str, dict[str, Any]]]:
    """The weight decay that is best on a held-out part, the larger of equals, and the accuracy there of each."""
    if len(options.weight_decays) == 1:
        return options.weight_decays[0], {}
    held_out = torch.from_numpy(held_out_part(labels.cpu().numpy(), options.held_out, options.seed)).to(rows.device)
    if not held_out.any():
        raise ImageSourceError(
            f"no class of {options.data} has enough images to hold out {options.held_out:g} of it: add some, or raise "
            "--held_out"
        )
    tried: dict[str, dict[str, Any]] = {}
    start: Classifier | None = None
    rest, held = (torch.nonzero(part)[:, 0] for part in (~held_out, held_out))
    for weight_decay in sorted(options.weight_decays, reverse=True):
        start = fit_classifier(rows, labels, classes, weight_decay, start, rest)
        right = start.predict(rows, held) == labels[held]
        tried[f"{weight_decay:g}"] = proportion(int(right.sum()), len(right))
        say(f"weight decay {weight_decay:g}: {as_share(tried[f'{weight_decay:g}'])} held out")
    best = max(sorted(options.weight_decays, reverse=True), key=lambda decay: tried[f"{decay:g}"]["value"])
    return best, tried


def held_out_part(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Mask (N,) bool of the held-out images: the share of each class, rounded down, drawn by the seed."""
    chosen = np.zeros(len(labels), bool)
    for of_class in drawn_by_class(labels, seed).values():
        chosen[of_class[: int(share * len(of_class))]] = True
    return chosen
