"""A task that is learnt from labels, from what was asked to results.json: what linear, finetune and semi share."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ssl_backbones.checks import check_at_least
from ssl_backbones.data import Images, require_batch
from ssl_backbones.data.subset import Selection, as_list, at, check_hold_out
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.evaluate.classification.accuracy_judge import AccuracyJudge, Answers
from ssl_backbones.evaluate.classification.classifier import Classifier
from ssl_backbones.evaluate.classification.finetune import FinetuneConfig
from ssl_backbones.evaluate.classification.linear import LinearConfig
from ssl_backbones.evaluate.classification.saved_classifier import in_words, save_trained_classifier
from ssl_backbones.evaluate.classification.subset import labelled_rows
from ssl_backbones.evaluate.evaluation import chance, one_by_one, read
from ssl_backbones.evaluate.labelled import open_labelled, require_asked
from ssl_backbones.evaluate.learning_rates import Division, train_at_rates
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.transfer import Learnt, Transfer, altered, building
from ssl_backbones.files import write_file
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.results import Number, as_share, proportion
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.judge import Trained
from ssl_backbones.train.processes import meet
from ssl_backbones.train.run import train_run
from ssl_backbones.typed.words import Hidden


@dataclass(frozen=True, kw_only=True)
class LabelledRun(Transfer, ABC):
    """A network trained to classify images and tested on others. No run is made of this class itself."""

    or_zero = MappingProxyType({"size": ", or 0 for what the model's description says"})
    asked_about: Hidden[str] = ""
    """The fingerprint of the validation images, so that a run does not go on with others."""
    asked_about_by_sizes: Hidden[str] = ""
    """The same as 0.1.0.dev0 told it, so that a run goes on which that began."""
    classes: str = ""
    """File that lists the classes to use, one on a line; empty for all."""
    hold_out: int = 0
    """Images of each class held out for validation: those that pretrain --hold_out held out. 0 holds none out."""
    verify: bool = False
    """Check the index kept from earlier starts against every image instead of a few; reads all images."""
    task: LinearConfig | FinetuneConfig
    size: int = 0
    """Side of a view, in pixels; 0 for the model's own."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network; auto is the fastest here, as measured on a few steps."""
    layout: Literal["auto", "contiguous", "channels_last"] = "contiguous"
    """Memory layout of images and weights; likewise."""
    judge_every: int = 0
    """Epochs between two tests, the best of which is reported beside the last; 0 tests only at the end."""
    source_reports: Hidden[Literal["last", "best"]] = "last"
    """The one of the two that the protocol's source reports."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, judge_every=0)
        check_hold_out(self.hold_out, self.validation)

    @property
    def selection(self) -> Selection:
        """The part of the images that is taken."""
        return Selection(self.classes, self.hold_out)

    def completed(self, plain: dict[str, Any]) -> dict[str, Any]:
        there = super().completed(plain) | {"source_reports": self.source_reports}  # no choice of the run
        if there.get("asked_about") != self.asked_about_by_sizes:
            return there
        return there | {name: getattr(self, name) for name in ("asked_about", "asked_about_by_sizes")}


@dataclass(frozen=True)
class Asked:
    """The images of a run, all of them labelled: to learn from, and to be asked about."""

    whole: Images
    """The source to learn from, before any of it is left out."""
    rows: np.ndarray
    """Its rows that are learnt from."""
    validation: Images
    source: str
    """Source of the validation images."""
    opened: Images
    """The validation images of the whole run, of which those held out are an account."""

    @property
    def images(self) -> Images:
        """The images to learn from."""
        return at(self.whole, self.rows)

    def divided(self, division: Division, data: str) -> Asked:
        """The training images divided: some to train on, the others to validate on."""
        kept = at(self.whole, self.rows[division.kept])
        source = f"what is kept of {data} for the choice"
        return replace(self, rows=self.rows[division.learnt], validation=kept, source=source)


def open_asked(run: LabelledRun) -> Asked:
    """The labelled images that a run names."""
    meet()
    images, validation, source = open_labelled(run, run.protocol)
    require_asked(validation, run.data, run.protocol)
    assert validation is not None
    validation = at(validation, labelled_rows(validation))
    return Asked(images, labelled_rows(images), validation, source, validation)


About = Callable[[Asked], Mapping[str, Any]]
"""All that a protocol tells beside its numbers."""
TrainLabelled = Callable[[LabelledRun, Asked, Mapping[str, Any]], object]
"""Train and test a run on images that are asked about, and save its results with what is told beside the numbers."""


def carry(
    run: LabelledRun,
    presets: Mapping[str, LabelledRun],
    asked: Asked,
    about: About | None = None,
    train: TrainLabelled | None = None,
) -> dict[str, Any]:
    """Train and test as the run says, from where it was left, at each of its learning rates; its results, in every
    process.
    """
    train = train or train_labelled

    def train_one(one: LabelledRun, division: Division | None) -> None:
        images = asked if division is None else asked.divided(division, run.data)
        changed = altered(one, presets, part=division is not None)
        train(one, images, {"altered": changed, **(about(images) if about else {})})

    train_at_rates(run, asked.images, "top-1", train_one)
    return first_decides(lambda: read(RunFolder(run.folder).results))


def train_labelled(run: LabelledRun, asked: Asked, more: Mapping[str, Any]) -> None:
    """Train and test by the loop, from where the run was left.

    `more` is told beside the numbers. A text in it that is called "subset" is written out as subset.txt.
    """
    require_batch(asked.images, run.batch_size)
    model = opened(run)
    run, method = built(run, model, asked)
    for sentence in rates(run):
        say(sentence)
    judge = AccuracyJudge(method, asked.validation, run.size, run.judge_every)

    def save(trained: Trained) -> str:
        return save_results(Learnt.by(trained), run, method, asked, judge.answers, more)

    train_run(run, method, asked.images, judge, save)


def opened(run: LabelledRun) -> EvaluatedModel:
    """The model that the run names, the same in every process."""
    return run.opened(meet(), run.size)


def built(run: LabelledRun, model: EvaluatedModel, asked: Asked) -> tuple[LabelledRun, Classifier]:
    """The run with all that it leaves open settled, and its method around the model."""
    run = settled(run, model, asked)
    with building(run):
        return run, run.task.build(model.network)


def settled(run: LabelledRun, model: EvaluatedModel, asked: Asked) -> LabelledRun:
    """The run with what the model and the data say where it leaves that open."""
    return replace(
        run.begun_with(model),
        size=model.crop.size,
        asked_about=asked.validation.fingerprint,
        asked_about_by_sizes=asked.validation.fingerprint_by_sizes,
        task=replace(run.task, classes=run.task.classes or len(asked.whole.classes)),
    )


def rates(run: LabelledRun) -> list[str]:
    """Sentences on learning rates that the loop does not say."""
    rate, rule = run.optimizer.backbone_lr, run.optimizer.lr_rule
    if rate is None or isinstance(run.task, LinearConfig):
        return []
    scaled = rate if rule == "absolute" else rate * run.batch_size / 256
    how = "as given" if rule == "absolute" else f"{rate:g} per 256 images x {run.batch_size} images"
    return [f"Learning rate of the backbone {scaled:g} ({how}); the head's follows."]


def save_results(
    learnt: Learnt, run: LabelledRun, method: Classifier, asked: Asked, answers: Answers, more: Mapping[str, Any]
) -> str:
    """Write results.json, the classifier, and the predictions of each image, and return the summary."""
    images, labels, folder = learnt.images, answers.labels, learnt.folder.path
    curve, names = tested(learnt.folder), list(asked.whole.classes)
    left = save_trained_classifier(method, names, learnt, run)
    numbers = numbers_of(answers.correct, curve, run.judge_every)
    told: dict[str, Any] = {"predicted": answers.predicted.numpy()}
    told |= {name: right.numpy() for name, right in answers.correct.items()}
    np.savez_compressed(folder / "per_image.npz", keys=np.array(answers.keys), **told)
    if "subset" in more:
        write_file(folder / "subset.txt", as_list(asked.images))
    run.selection.save(folder, asked.opened)
    learnt.save(
        run,
        validation=answers.validation,
        source=asked.source,
        numbers=numbers,
        more={
            "source_reports": run.source_reports,
            "chance": chance(labels),
            "per_class": {"of": "top-1", "classes": one_by_one(answers.correct["top-1"], labels, names)},
            "classifier": left,
            "tests": curve,
            **run.selection.account(asked.whole, asked.opened),
            "not_learnt_from": len(asked.whole) - len(images),
            **more,
        },
    )
    said = summary(run, numbers, len(images), len(labels), chance(labels), str(folder))
    return f"{said}\n{in_words(left, learnt.folder)}"


def tested(folder: RunFolder) -> list[dict[str, Any]]:
    """Every test of the run, in order, as its log has them: a run that was stopped in between has them all."""
    lines = read_log(folder.log)
    told = ("step", "epoch", "top-1", "top-5")
    return [{name: line[name] for name in told if name in line} for line in lines if 0 <= line.get("top-1", -1) <= 1]


def numbers_of(right: Mapping[str, Tensor], curve: list[dict[str, Any]], every: int) -> dict[str, Number]:
    """The accuracies after the last epoch, and, where there were more tests, those of the best by top-1.

    The best is picked by the very images that it is reported on, so it flatters, the more the more tests there are.
    """
    numbers: dict[str, Number] = {name: proportion(int(hits.sum()), len(hits)) for name, hits in right.items()}
    if every:
        best = max(curve, key=lambda line: line["top-1"])  # the first of equals
        for name, hits in right.items():
            found = proportion(round(best[name] * len(hits)), len(hits))
            numbers[f"{name}, best of every {every} epochs"] = found | {"epoch": best["epoch"]}
    return numbers


def summary(
    run: LabelledRun, numbers: Mapping[str, Number], images: int, asked: int, chance: float, folder: str
) -> str:
    """The results in words."""
    width = max(map(len, [*numbers, "chance (the most frequent class)"]))
    lines = [f"{run.title}, trained on {images} images, tested on {asked}:"]
    lines += [f"  {'chance (the most frequent class)':<{width}}  {chance:.1%}"]
    lines += [
        f"  {name:<{width}}  {as_share(number)}" + (f", epoch {number['epoch']}" if "epoch" in number else "")
        for name, number in numbers.items()
    ]
    lines += [f"The paper of this protocol reports the {run.source_reports}. All numbers: {folder}/results.json"]
    return "\n".join(lines)
