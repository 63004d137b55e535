"""Measures of features without labels: spread, effective rank, alignment and uniformity.

std         deviation of unit features times sqrt(D): 1 when they point everywhere, 0 when all are alike
rank        RankMe (Garrido et al., 2023. https://arxiv.org/abs/2210.02885), from 1 to the number of features
alignment   E |x - y|^2 over two views of each image (Wang and Isola, 2020. https://arxiv.org/abs/2005.10242): 0 is best
uniformity  log E exp(-2 |x - y|^2) over pairs of images (the same): the lower, the more evenly spread

Alignment is of the two augmented views of MoCo v2, the others of each image's middle crop.

The same images tell what the network is worth beside random weights, the start of its run and weights of the same
network that are at hand: with labels by k-NN and a linear probe, without them by the images that a view finds among all
and by the rank; the verdict says what that shows.

Where there are validation images, those of them that are nearly a training image are counted: cosine above .99 of the
features less their mean. near_copies.txt names them, nearest first; look at some, as distinct images of much the same
thing may come that near, above all to a network that has not learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.data import Images, ImageSourceError, classes_sentence, open_images, opened_once, unlabelled
from ssl_backbones.data.source import kept_out
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.evaluate.beside_baselines import beside_baselines
from ssl_backbones.evaluate.evaluation import Evaluation, evaluation
from ssl_backbones.evaluate.features import Features, features_of
from ssl_backbones.evaluate.options import EvaluationOptions
from ssl_backbones.files import write_file
from ssl_backbones.metrics import alignment, effective_rank, feature_std, jackknife_interval, uniformity
from ssl_backbones.metrics.jackknife import GROUPS
from ssl_backbones.metrics.near_copies import nearest_of_bank
from ssl_backbones.runs.results import Number, as_share, proportion
from ssl_backbones.runs.verdict import sentences
from ssl_backbones.train.bench import view_of
from ssl_backbones.views import permutation

NEAR = 0.99
"""The cosine above which two images are nearly the same."""
SHOWN = 3
"""Examples that are told, at most."""


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """The options of the measures."""

    labels: Literal["auto", "none"] = "auto"
    """Compare by labels from class folders or a label column where there are any, or ignore them."""
    max_images: int = 10_000
    """Images that are looked at, drawn by the seed; RankMe wants four times as many as there are features."""
    compared: int = 1_000
    """Images, drawn by the seed, that the network is held against others on; 0 for no such comparison."""
    copies: int = 1_000
    """Validation images, drawn by the seed, that are held against all training images to find near-copies; 0 for none.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = self.labels == "auto" or not (self.classes or self.hold_out)
        check(chosen, "labels", self.labels, "auto where classes are listed or images held out")
        check_at_least(self, max_images=2 * GROUPS, compared=0, copies=0)


def run(options: Options) -> dict[str, Any]:
    """The four numbers, with the intervals of a jackknife over the images."""
    images, validation, source = opened(options)
    if len(images) < 2 * GROUPS:
        raise ImageSourceError(
            f"{options.data} has {len(images)} images, and to say how sure the numbers are takes {2 * GROUPS}: add some"
        )
    with evaluation("diagnose", options, images, validation, source) as asked:
        if isinstance(asked, dict):
            return asked
        drawn = np.sort(permutation(options.seed, 0, len(images))[: options.max_images])
        sample = drawn if len(drawn) < len(images) else None
        views = view_of(asked.model.crop, options.in_chans, 2)
        middle = features_of(asked.model, images, asked.extraction, only=sample)
        pairs = features_of(asked.model, images, asked.extraction, only=sample, views=views, seed=options.seed)
        numbers = measured(middle, pairs, options, asked.model.device)
        copies = near_copies(asked, options) if validation and options.copies else {}
        told = beside_baselines(asked, options.compared) if options.compared else {}
        left = asked.save_results(
            numbers,
            {
                "looked_at": {
                    "images": int((middle.readable & pairs.readable).sum()),
                    "features": middle.rows.shape[1],
                    "unreadable": sorted({*middle.unreadable, *pairs.unreadable}),
                },
                **copies,
                **told,
                **({"verdict": sentences(told)} if told else {}),
                "views": repr(views),
                "interval": f"delete-a-group jackknife over the images, {GROUPS} groups",
            },
        )
    say(summary(left))
    return left


def opened(options: Options) -> tuple[Images, Images | None, str]:
    """The images, those to hold against them, if any, labelled or not, and their source."""
    images = opened_once(lambda: open_images(options.data, options.decoding), options.verify)
    source = options.validation or f"what is kept beside {options.data}"
    validation: Images | None = None
    if options.validation:
        validation = opened_once(
            lambda: open_images(options.validation, options.decoding, images.classes), options.verify
        )
    elif not options.hold_out:
        validation = opened_once(lambda: kept_out(options.data, images, options.decoding), options.verify)
    if options.labels == "none":
        images, validation = unlabelled(images), validation and unlabelled(validation)
    elif sentence := classes_sentence(images):
        say(sentence)
    images, validation = options.selection.of(images, validation)
    return images, validation, source if validation else ""


def near_copies(asked: Evaluation, options: Options) -> dict[str, Any]:
    """Count the validation images that are nearly training images, and name them in a file of the folder."""
    images, validation = asked.images, asked.validation
    assert validation is not None
    drawn = np.sort(permutation(options.seed, 2, len(validation))[: options.copies])
    bank = features_of(asked.model, images, asked.extraction, wanted=np.ones(len(images), bool))
    queries = features_of(asked.model, validation, asked.extraction, only=drawn, wanted=np.ones(len(drawn), bool))
    known, looked_at = np.flatnonzero(bank.readable), np.flatnonzero(queries.readable)
    cosines, at = nearest_of_bank(bank.rows.to(asked.model.device), queries.rows)
    near = [int(row) for row in cosines.argsort(descending=True) if cosines[row] > NEAR]
    lines = [
        f"{cosines[row]:.4f}\t{validation.keys[drawn[looked_at[row]]]}\t{images.keys[known[at[row]]]}\n" for row in near
    ]
    path = asked.folder.path / "near_copies.txt"
    first_decides(lambda: write_file(path, "".join(lines).encode("utf-8", "surrogateescape")))
    for line in lines[:SHOWN]:
        say("nearly the same: {1} and {2} (cosine {0})".format(*line.rstrip("\n").split("\t")))
    return {"near_copies": proportion(len(near), len(looked_at)) | {"cosine": NEAR, "named_in": path.name}}


def measured(middle: Features, pairs: Features, options: Options, device: torch.device) -> dict[str, Number]:
    """Each number with its interval, from the features (N, D) of middle crops and (N, 2 D) of two views."""
    device = device if device.type == "cuda" else torch.device("cpu")  # others lack float64
    kept = torch.from_numpy(np.flatnonzero(middle.readable & pairs.readable))
    rows, (first, second) = middle.rows[kept].to(device), pairs.rows[kept].to(device).chunk(2, dim=1)
    order = permutation(options.seed, 1, len(kept))
    metrics: dict[str, Callable[[Tensor], float]] = {
        "std": lambda chosen: feature_std(rows[chosen]),
        "rank": lambda chosen: effective_rank(rows[chosen]),
        "alignment": lambda chosen: alignment(first[chosen], second[chosen]),
        "uniformity": lambda chosen: uniformity(rows[chosen]),
    }
    return {name: asdict(jackknife_interval(metric, order)) for name, metric in metrics.items()}


def summary(left: dict[str, Any]) -> str:
    """The numbers in words."""
    looked_at = left["looked_at"]
    lines = [f"{left['model']} on {looked_at['images']} images, {looked_at['features']} features (95% interval):"]
    lines += [
        f"  {name:<10} {number['value']:8.3f}   {number['low']:.3f} to {number['high']:.3f}"
        for name, number in left["numbers"].items()
    ]
    if copies := left.get("near_copies"):
        lines += [f"  near-copies of training images among the validation images: {as_share(copies)}"]
        lines += ["  Accuracies on them are flattered; near_copies.txt names them."] if copies["value"] else []
    if looked_at["images"] < 4 * looked_at["features"]:
        lines += ["  Fewer images than four times the features: their number limits the rank."]
    return "\n".join([*lines, *(f"Verdict: {sentence}" for sentence in left.get("verdict", []))])
