"""A model that is evaluated beside its baselines: random weights, the start of a run, and weights that are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_backbones.catalogue.at_hand import weights_at_hand
from ssl_backbones.distributed import made_everywhere, say
from ssl_backbones.evaluate.evaluation import Evaluation
from ssl_backbones.evaluate.features import features_of
from ssl_backbones.evaluate.model import EvaluatedModel, evaluated, open_model
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.names import Name
from ssl_backbones.train.baselines import Question, Seen, compared
from ssl_backbones.train.bench import view_of
from ssl_backbones.train.processes import first_decides
from ssl_backbones.views import permutation
from ssl_backbones.visualizers.run_section import recorded_recipe, recorded_results

RANDOM = "random weights"


def beside_baselines(asked: Evaluation, count: int) -> dict[str, Any]:
    """The comparison and, of a run, the trend of its training, as results.json has them, on `count` images at most."""
    options, images = asked.options, asked.images
    drawn = np.sort(permutation(options.seed, 4, len(images))[:count])
    only = drawn if len(drawn) < len(images) else None
    found, readable = [], np.ones(len(drawn), bool)
    for model, of in models(asked):
        say(f"Verdict: {len(drawn)} of {len(images)} images, seen by {model.name}.")
        rows = features_of(model, images, asked.extraction, only=only)
        views = features_of(model, images, asked.extraction, only=only, views=view_of(model.crop, options.in_chans))
        readable &= rows.readable & views.readable
        found.append((model, rows.rows, views.rows, of))
    kept = torch.from_numpy(np.flatnonzero(readable))
    seen = [Seen(model.name, model.weights_sha256, rows[kept], views[kept], of) for model, rows, views, of in found]
    labels = None if images.labels is None else torch.from_numpy(np.asarray(images.labels)[drawn]).long()[kept]
    about = {
        "of": len(images),
        "size": asked.model.crop.size,
        "view": repr(view_of(asked.model.crop, options.in_chans)),
    }
    told = {"baselines": compared(seen[0], seen[1:], Question(labels, options.seed), about)}
    trend = None if options.random else recorded_results(Path(options.model)).get("trend")
    return told | ({} if trend is None else {"trend": trend})


def models(asked: Evaluation) -> Iterator[tuple[EvaluatedModel, str]]:
    """Each model, the one that is evaluated first, with the images that it was trained on where they are others."""
    options, own = asked.options, asked.model
    how: dict[str, Any] = {"size": own.crop.size, "layer": own.layer, "channels": options.decoding.seen}
    yield own, ""
    if not options.random:
        random = open_model(options.model, own.device, random=True, seed=options.seed, **how)
        yield renamed(random, RANDOM), ""
    if not options.random and (init := recorded_recipe(Path(options.model)).get("init")):
        try:
            start = open_model(options.model, own.device, init=init, **how)
            yield renamed(start, f"its start, {init}"), ""
        except Refusal as error:
            say(f"Skipped the comparison with the start: {error}")
    if options.in_chans:
        return  # weights at hand are of RGB
    architecture = architecture_of(own)
    found = first_decides(lambda: weights_at_hand(architecture, asked.images.fingerprint))
    if found is not None:
        try:
            stranger = evaluated(found.name, made_everywhere(found.make), own.device, **how)
        except Refusal as error:
            say(f"Skipped the comparison with {found.name}: {error}")
            return
        if stranger.weights_sha256 != own.weights_sha256:
            yield stranger, found.images


def renamed(model: EvaluatedModel, name: str) -> EvaluatedModel:
    """The same model under another name."""
    return EvaluatedModel(name, model.network, model.layer, model.device, model.crop, model.weights_sha256)


def architecture_of(model: EvaluatedModel) -> str:
    """The network's own name: resnet50 of resnet50_lewel_b."""
    network: Any = model.network
    cfg: Any = (network.backbone if model.layer else network).pretrained_cfg
    return Name.parse(str(cfg["architecture"])).arch
