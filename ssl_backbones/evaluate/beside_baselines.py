"""A model that is evaluated beside its baselines: random weights, the start of a run, and weights that are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ssl_backbones.catalogue.at_hand import Candidate
from ssl_backbones.catalogue.lookup import architecture_of
from ssl_backbones.catalogue.start import check_same
from ssl_backbones.distributed import made_everywhere
from ssl_backbones.evaluate.evaluation import Evaluation
from ssl_backbones.evaluate.features import features_of
from ssl_backbones.evaluate.model import EvaluatedModel, evaluated, open_model
from ssl_backbones.hub.given import givens
from ssl_backbones.runs.results import LEARNED
from ssl_backbones.train.baselines import RANDOM, Question, at_hand, compared, drawn_once, made, seen_by
from ssl_backbones.train.bench import view_of


def beside_baselines(asked: Evaluation, count: int) -> dict[str, Any]:
    """The comparison and, of a run, the trend of its training, as results.json has them, on `count` images at most."""
    options, images = asked.options, asked.images
    drawn = drawn_once(images, options.seed, 4, count)
    only = drawn if len(drawn) < len(images) else None

    def look(model: EvaluatedModel) -> tuple[Tensor, Tensor, np.ndarray]:
        rows = features_of(model, images, asked.extraction, only=only)
        view = view_of(model.crop, options.in_chans)
        views = features_of(model, images, asked.extraction, only=only, views=view, seed=options.seed)
        return rows.rows, views.rows, rows.readable & views.readable

    seen, labels = seen_by(made(candidates(asked), lambda model: model.weights_sha256), look, images, drawn)
    about: dict[str, Any] = {
        "of": len(images),
        "size": asked.model.crop.size,
        "view": repr(view_of(asked.model.crop, options.in_chans)),
    }
    told = {"baselines": compared(seen[0], seen[1:], Question(labels, options.seed), about)}
    trend = asked.records[1].get("trend")
    return told | ({} if trend is None else {"trend": trend}) | ({LEARNED: True} if asked.learned_from(images) else {})


def candidates(asked: Evaluation) -> Iterator[Candidate[EvaluatedModel]]:
    """The networks to compare, the one that is evaluated first."""
    options, own, (recipe, results) = asked.options, asked.model, asked.records
    how: dict[str, Any] = {"size": own.crop.size, "layer": own.layer, "channels": options.decoding.seen}

    def opened(**weights: Any) -> EvaluatedModel:
        return open_model(options.model, own.device, **weights, **how)

    yield Candidate(own.name, lambda: own)
    if not options.random:
        yield Candidate(RANDOM, lambda: made_everywhere(lambda: opened(random=True, seed=options.seed)))
    if init := recipe.get("init"):
        begun_with = givens(results).get("start")

        def started() -> EvaluatedModel:
            found = opened(init=init)
            if begun_with is not None and found.start is not None:
                check_same(found.start.provenance, begun_with)
            return replace(found, crop=own.crop)  # as in training, which may have measured the levels of its images

        yield Candidate(f"its start, {init}", lambda: made_everywhere(started))
    if options.in_chans:
        return  # weights at hand are of RGB
    if (found := at_hand(architecture_of(options.model), asked.images.fingerprint)) is not None:
        name, make = found.name, found.make
        yield Candidate(name, lambda: evaluated(name, make(), own.device, **how), found.images, once=True)
