"""An evaluation on frozen features, from its options to results.json: all that such protocols have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_backbones.catalogue.lookup import architecture_of
from ssl_backbones.data import Images, by_content, by_sizes
from ssl_backbones.data.decode import MAX_PIXELS
from ssl_backbones.distributed import first_decides, rank, say
from ssl_backbones.evaluate.features import Extraction, Features, features_of
from ssl_backbones.evaluate.labelled import Labelled, labelled
from ssl_backbones.evaluate.learned import learned_from
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.options import FREE, EvaluationOptions
from ssl_backbones.models.provenance import records
from ssl_backbones.runs.results import (
    LEARNED,
    LEARNED_SAYS,
    Number,
    proportion,
    read_results,
    results_of,
    write_results,
)
from ssl_backbones.runs.run_folder import RunFolder, RunFolderError, claim
from ssl_backbones.train.precision import check_precision
from ssl_backbones.train.processes import meet
from ssl_backbones.typed.values import to_plain


@dataclass(frozen=True)
class Evaluation:
    """One protocol on one backbone, with the folder for its results."""

    protocol: str
    options: EvaluationOptions
    model: EvaluatedModel
    images: Images
    validation: Images | None
    validation_source: str
    folder: RunFolder

    @property
    def extraction(self) -> Extraction:
        """The settings of feature extraction."""
        return self.options.extraction(self.options.cache_folder)

    def learnt_from(self, once: bool = False) -> Labelled:
        """The features and labels to train on; with `once`, of each image of which there are copies once."""
        return labelled(partial(self.features, self.images), self.images, self.options.data, once)

    def asked_about(self) -> Labelled | None:
        """The features and labels to test on, if there are any."""
        if self.validation is None:
            return None
        return labelled(partial(self.features, self.validation), self.validation, self.validation_source)

    def features(self, images: Images, wanted: np.ndarray) -> Features:
        """The features of the images that are wanted (N,) bool and can be read."""
        return features_of(self.model, images, self.extraction, wanted=wanted)

    @cached_property
    def records(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The recipe and the results of the run that the weights are from; each empty where there is none."""
        return ({}, {}) if self.options.random else first_decides(lambda: records(self.options.model))

    def learned_from(self, images: Images) -> bool:
        """True where the model's own weights were trained with the labels of these images."""
        return not self.options.random and learned_from(self.options.model, images)

    def save_results(self, numbers: Mapping[str, Number], more: Mapping[str, Any]) -> dict[str, Any]:
        """Let the first process write results.json; its content, in every process."""
        selection = self.options.selection
        if LEARNED not in more and self.learned_from(self.validation or self.images):
            say(LEARNED_SAYS)
            more = {LEARNED: True, **more}
        first_decides(lambda: selection.save(self.folder.path, self.validation))
        return first_decides(
            lambda: write_results(
                self.folder.path,
                results_of(
                    protocol=self.protocol,
                    model=self.options.model,
                    weights_sha256=self.model.weights_sha256,
                    data=self.images,
                    validation=self.validation,
                    sources=(self.options.data, self.validation_source),
                    numbers=numbers,
                    settings=settings(self.options, self.model),
                    seed=self.options.seed,
                    device=self.model.device,
                    precision=self.options.precision,
                    more={
                        "architecture": architecture_of(self.options.model),
                        **selection.account(self.images, self.validation),
                        **more,
                    },
                ),
            )
        )

    def save_top1(self, learnt: Labelled, queries: Labelled, right: Tensor, **more: Any) -> dict[str, Any]:
        """Save the accuracy of correct predictions (M,) bool of the queries, and of each class; content likewise."""
        return self.save_results(
            {"top-1": proportion(int(right.sum()), len(right))},
            {
                "chance": chance(queries.labels),
                **more,
                "learnt_from": learnt.account,
                "asked_about": queries.account,
                "per_class": {"of": "top-1", "classes": one_by_one(right, queries.labels, list(self.images.classes))},
            },
        )


@contextmanager
def evaluation(
    protocol: str, options: EvaluationOptions, images: Images, validation: Images | None = None, source: str = ""
) -> Iterator[Evaluation | dict[str, Any]]:
    """The evaluation, its folder locked while it lasts; or the results that the folder holds already.

    The folder of another question is refused.
    """
    device = meet()
    check_precision(options.precision, device)
    model = options.open_model(device)
    kept = first_decides(lambda: claimed(protocol, options, model, images, validation))
    folder = kept if rank() == 0 else RunFolder(kept.path, kept.resumed)
    with folder:
        if first_decides(folder.results.exists):
            say(f"{folder.path} holds the finished evaluation; choose another folder with --out to do it again.")
            yield first_decides(lambda: read(folder.results))
        else:
            yield Evaluation(protocol, options, model, images, validation, source, folder)


def claimed(
    protocol: str, options: EvaluationOptions, model: EvaluatedModel, images: Images, validation: Images | None
) -> RunFolder:
    """The evaluation's folder, that of the same one by 0.1.0.dev0 included."""
    now, before = (identity(protocol, options, model, images, validation, name) for name in (by_content, by_sizes))
    return claim(options.out, now, complete=lambda there: now if there == before else there)


def identity(
    protocol: str,
    options: EvaluationOptions,
    model: EvaluatedModel,
    images: Images,
    validation: Images | None,
    name: Callable[[Images], str],
) -> dict[str, Any]:
    """All that two evaluations must share to be the same one, as JSON has it; `name` gives the images' fingerprints."""
    return {
        "protocol": protocol,
        "weights_sha256": model.weights_sha256,
        "images": name(images),
        "validation": name(validation) if validation else None,
        "options": {
            name: value
            for name, value in to_plain(options).items()
            if name not in FREE and (name, value) != ("labels", "auto")  # which older folders do not name
        },
        **({} if options.max_pixels == MAX_PIXELS else {"max_pixels": options.max_pixels}),
        **({"in_chans": options.in_chans} if options.in_chans else {}),
    }


def settings(options: EvaluationOptions, model: EvaluatedModel) -> dict[str, Any]:
    """The options and the crop that they come to, as results.json has them."""
    told, crop = {*FREE, "seed"}, model.crop
    plain = {name: value for name, value in to_plain(options).items() if name not in told}
    plain |= {"in_chans": options.in_chans} if options.in_chans else {}
    return plain | {"size": crop.size, "crop_pct": crop.crop_pct, "interpolation": crop.interpolation}


def read(path: Path) -> dict[str, Any]:
    """The results in a file."""
    return read_results(path, "delete it, or choose another folder with --out", RunFolderError)


def one_by_one(right: Tensor, labels: Tensor, classes: list[str]) -> dict[str, Number]:
    """The accuracy of each class that was tested, by its name, from correct predictions (M,) bool and labels (M,)."""
    return {
        name: proportion(int(right[labels == label].sum()), int((labels == label).sum()))
        for label, name in enumerate(classes)
        if (labels == label).any()
    }


def chance(labels: Tensor) -> float:
    """The accuracy of always predicting the most frequent of labels (M,)."""
    return int(labels.bincount().max()) / len(labels)
