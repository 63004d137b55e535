"""The plain values that a checkpoint of a run holds, and the refusal of one that this run cannot take up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

from ssl_backbones.data.placement import Layout
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.runs.checkpoint import Checkpoint
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.precision import Precision
from ssl_backbones.typed.values import check_form


class Account(TypedDict):
    """The images of a source that could not be read: key to reason."""

    total: int
    photos: dict[str, str]


class AlarmState(TypedDict, total=False):
    """The state of any alarm."""

    since: int | None
    raised: bool
    running: float | None
    step: int | None
    first: dict[str, float]


class Window(TypedDict):
    """Running means between two lines of the log."""

    names: list[str]
    weight: float
    latest: dict[str, float]


class Best(TypedDict):
    """The best measurement so far."""

    step: int
    score: float


class Threads(TypedDict, total=False):
    """The number that the first versions did not keep."""

    threads: int


class Noticed(TypedDict, total=False):
    """Fields that may change when a run goes on, and then may change its bits."""

    compile: bool
    max_pixels: int


class Computed(Threads, Noticed):
    """The way in which the run is computed."""

    precision: Precision
    layout: Layout


class OptimizerEntry(TypedDict):
    """The optimiser's state of one parameter."""

    tensors: list[str]
    values: dict[str, Any]


class Measured(TypedDict, total=False):
    """The values that only some runs have."""

    before: dict[str, float]
    question: Any
    since: int
    coarse: bool
    scaler: dict[str, Any]


class Scalars(Measured):
    """All plain values of a run's state."""

    unreadable: dict[str, Account]
    alarms: list[AlarmState]
    window: Window
    watch: tuple[int, int, int, int]
    best: Best | None
    compute: Computed
    images: str
    optimizer: dict[str, OptimizerEntry]


def noticed(run: Run) -> dict[str, Any]:
    """Fields that may differ when resuming and then change the last bits, as a checkpoint keeps them."""
    return {name: getattr(run, name) for name in Noticed.__annotations__}


def changed_fields(saved: Checkpoint, run: Run) -> list[str]:
    """The noticed fields that are others than when the state was saved: "compile False -> True"."""
    kept = saved.scalars["compute"]
    return [f"{name} {kept[name]} -> {new}" for name, new in noticed(run).items() if kept.get(name, new) != new]


@contextmanager
def taking_up(saved: Checkpoint, folder: RunFolder) -> Iterator[None]:
    """Turn what a state of another form raises where it is read into CheckpointError; its form is looked at first."""
    try:
        check_form(Scalars, saved.scalars)
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, Refusal):
            raise
        kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__} "
        raise CheckpointError(
            f"the checkpoint of step {saved.step} in {folder.checkpoints} does not hold the state of this run "
            f"({kind}{reason(error)[:300]}): resume with the version that wrote it, or delete it to go back to the "
            "one before"
        ) from error
