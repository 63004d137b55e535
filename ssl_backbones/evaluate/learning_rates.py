"""A transfer's learning rate searched: each of several is trained, and the best on images kept for the choice is taken.

Each rate has a run of its own below the search's folder, so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.data.subset import HOLD_OUT_SEED
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.evaluate.transfer import Transfer
from ssl_backbones.files import make_folder, replacing, write_json
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.names import LEFT
from ssl_backbones.runs.results import NOT_FINITE, Number, read_results, searched_in_words
from ssl_backbones.runs.run_folder import RunFolder, RunFolderError
from ssl_backbones.train.claiming import check_data, claimed
from ssl_backbones.train.guards import NotFiniteError
from ssl_backbones.views import permutation

R = TypeVar("R", bound=Transfer)
OWN = ("recipe.json", "results.json", "speed.jsonl", ".lock")
"""Files of a run's folder that the search's folder has of its own, or has no use for."""
ANEW = "delete it and start the same command again"


class NoRateError(Refusal, RuntimeError):
    """A search in which no learning rate could be trained with."""


@dataclass(frozen=True)
class Division:
    """The rows of the training images that are learnt from, and those that are kept for the choice."""

    learnt: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, images: int, share: float) -> Division:
        """A share of so many images drawn for the choice, at least one, the same ones whatever the run's seed."""
        order = permutation(HOLD_OUT_SEED, 0, images)
        count = max(1, round(share * images))
        return cls(np.sort(order[count:]), np.sort(order[:count]))


Train = Callable[[R, Division | None], object]
"""Train a run and save its results: on all training images, tested on the validation images; or on a part of the
training images, tested on the other."""


def train_at_rates(run: R, images: Images, metric: str, train: Train[R]) -> None:
    """Train the run; where it names several learning rates, with each of them, and leave the results of the best.

    `metric` is the number that decides. Raises NoRateError where every rate ended in numbers that are not finite.
    """
    if not run.learning_rates:
        train(run, None)
        return
    division = division_of(run, images)
    with claimed(run) as folder:
        if first_decides(folder.results.exists):
            check_data(images, first_decides(lambda: searched_on(folder)), len(images), folder)
            say(f"{folder.path} holds the finished search; choose another folder with --out to do it again.")
            return
        tried = [attempt(at_rate(run, rate), division, metric, train) for rate in run.learning_rates]
        told = account(run, tried, metric, images, division)
        say(searched_in_words(told))
        best = at_rate(run, told["chosen"])
        if division is not None:
            best = replace(best, out=str(folder.path / "chosen"))
            first_decides(lambda: make_folder(folder.path / "chosen"))
            say(f"Training with {told['chosen']:g} on all {len(images)} images.")
            train(best, None)
        first_decides(lambda: take_over(folder, Path(best.out), told))
        say(f"The results of the learning rate {told['chosen']:g} are in {folder.results}")


def division_of(run: Transfer, images: Images) -> Division | None:
    """The images that the choice is made on, where those are a part of the training images.

    ImageSourceError where the others are fewer than a batch.
    """
    if run.choose_on == "validation":
        return None
    division = Division.of(len(images), run.choice_share)
    if len(division.learnt) < run.batch_size:
        raise ImageSourceError(
            f"beside the {len(division.kept)} images kept for the choice of the learning rate, {len(division.learnt)} "
            f"are fewer than the batch of {run.batch_size}: lower --batch_size or --choice_share, or choose on the "
            "validation images with --choose_on validation"
        )
    return division


def at_rate(run: R, rate: float) -> R:
    """The run with one of its learning rates, in a folder of its own."""
    out = str(run.folder / f"lr_{rate!r}")
    return replace(run, learning_rates=(), choose_on="train", optimizer=run.optimizer.at_lr(rate), out=out)


def attempt(run: R, division: Division | None, metric: str, train: Train[R]) -> dict[str, Any]:
    """One learning rate and what it came to: the number that decides, its value None where training diverged."""
    told = {"lr": run.optimizer.lr, "folder": run.folder.name}
    first_decides(lambda: make_folder(run.folder))
    try:
        train(run, division)
    except NotFiniteError as error:
        say(f"The learning rate {run.optimizer.lr:g} ended in numbers that are not finite: {error}")
        return {**told, "value": None}
    return {**told, **first_decides(lambda: number_of(run.folder, metric))}


def number_of(folder: Path, metric: str) -> Number:
    """The number that decides, from a finished run's results."""
    numbers: dict[str, Number] = results_in(folder)["numbers"]
    if metric not in numbers:
        raise RunFolderError(f"{RunFolder(folder).results} holds no number {metric!r}: {ANEW}")
    return numbers[metric]


def searched_on(folder: RunFolder) -> str:
    """The fingerprint of the training images of a finished search."""
    try:
        return str(results_in(folder.path)["learning_rates"]["fingerprint"])
    except (KeyError, TypeError) as error:
        way_out = "delete it and start the same command again, which writes it anew"
        raise RunFolderError(f"{folder.results} does not tell of a search of the learning rate: {way_out}") from error


def results_in(folder: Path) -> dict[str, Any]:
    """The results of a finished run."""
    return read_results(RunFolder(folder).results, ANEW, RunFolderError)


def account(
    run: Transfer, tried: Sequence[dict[str, Any]], metric: str, images: Images, division: Division | None
) -> dict[str, Any]:
    """The search as results.json tells it: all rates, the first of the best, and the images that it was chosen on."""
    finite = [one for one in tried if one["value"] is not None]
    if not finite:
        rates = ", ".join(f"{rate:g}" for rate in run.learning_rates)
        raise NoRateError(
            f"all of the learning rates {rates} ended in numbers that are {NOT_FINITE}: name lower ones with "
            "--learning_rates, and another folder with --out"
        )
    best = max(finite, key=lambda one: one["value"])
    on = "the validation images, which the results are of too"
    if division is not None:
        on = f"{len(division.kept)} of the {len(images)} training images, kept from training for the choice"
    chosen = {"chosen": best["lr"], "by": metric, "chosen_on": on, "seed": HOLD_OUT_SEED}
    return {**chosen, "fingerprint": images.fingerprint, "tried": list(tried)}


def take_over(folder: RunFolder, best: Path, told: dict[str, Any]) -> None:
    """Copy what the best run left into the search's folder, its results last, with the account of the search."""
    for name in LEFT:
        if (best / name).is_dir():
            make_folder(folder.path / name)
    for path in files_of(best):
        with open(path, "rb") as source, replacing(folder.path / path.relative_to(best)) as copy:
            shutil.copyfileobj(source, copy)
    results = results_in(best)
    settings = {**results["settings"], "out": str(folder.path)}
    write_json(folder.results, {**results, "settings": settings, "learning_rates": told})


def files_of(best: Path) -> Iterator[Path]:
    """The files that a run leaves beside its checkpoints, and those of its networks."""
    yield from (path for path in sorted(best.iterdir()) if path.is_file() and path.name not in OWN)
    yield from (path for name in LEFT for path in sorted((best / name).glob("*")))
