"""The end of a pretraining run: its backbone beside random weights and weights that are at hand, on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from ssl_backbones.catalogue.at_hand import Candidate
from ssl_backbones.data.images import Images
from ssl_backbones.distributed import made_everywhere, rank, say, world_size
from ssl_backbones.ends import is_lost_rank
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.recipes.facts import arch_of
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.baselines import (
    RANDOM,
    Question,
    at_hand,
    compared,
    drawn_once,
    images_asked,
    made,
    seen_by,
)
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.loader import is_lost_reader
from ssl_backbones.train.monitor import Monitor
from ssl_backbones.views import SingleView


class VerdictError(Refusal, RuntimeError):
    """A failure of the comparison in one of several processes, for which the others would wait."""


def conclude(beginning: Beginning, monitor: Monitor, bench: Bench) -> None:
    """Compare the backbone with its baselines, in all processes; a failure is printed and skips the comparison.

    Losing a process is another matter: it ends the run, and the same command resumes with the comparison. So it is
    where one of several fails at what they do together: VerdictError.
    """
    with skipped_after_failure(alone=world_size() == 1):
        monitor.baselines = beside_baselines(beginning, monitor.asked_images, bench)


@contextmanager
def skipped_after_failure(alone: bool) -> Iterator[None]:
    """Context manager: print what fails in a process that nobody waits for, and go on; elsewhere VerdictError."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:  # a comparison is not worth a run, whatever is wrong with it
        if is_lost_reader(error) or is_lost_rank(error):
            raise
        said = f"the comparison with other networks failed ({type(error).__name__}: {error})"
        if not alone:
            raise VerdictError(
                f"{said} in process {rank()} of {world_size()}, all else is saved: start the same command again, or "
                "in one process, which leaves out a comparison that fails"
            ) from error
        say(f"warning: {said}")


def beside_baselines(beginning: Beginning, images: Images, bench: Bench) -> dict[str, Any] | None:
    """The comparison as results.json has it, on images drawn by the run's seed; None where counting failed."""
    recipe = beginning.recipe
    steps = recipe.total_steps(bench.loader.steps_per_epoch)
    count = images_asked(len(images), steps * recipe.batch_size)
    drawn = drawn_once(images, recipe.seed, 3, count)
    networks = made(candidates(beginning, bench), weights_sha256)
    seen, labels = seen_by(networks, lambda backbone: looked_at(backbone, bench, images, drawn), images, drawn)
    view = bench.view_of(bench.method.backbone)
    about: dict[str, Any] = {"of": len(images), "size": bench.size, "view": repr(view)}
    with skipped_after_failure(alone=True):
        return compared(seen[0], seen[1:], Question(labels, recipe.seed), about)
    return None


def candidates(beginning: Beginning, bench: Bench) -> Iterator[Candidate[nn.Module]]:
    """The networks to compare, the run's own first."""
    yield Candidate("this backbone", lambda: bench.method.published)
    yield Candidate(RANDOM, beginning.drawn)
    if (start := beginning.recipe.start) is not None:
        yield Candidate(f"its start, {start.shown}", lambda: made_everywhere(beginning.started))
    if beginning.recipe.in_chans:
        return  # weights at hand are of RGB
    images = bench.loader.dataset.images
    if (found := at_hand(arch_of(beginning.recipe), images.fingerprint)) is not None:
        yield found


def looked_at(
    backbone: nn.Module, bench: Bench, images: Images, indices: np.ndarray
) -> tuple[Tensor, Tensor, np.ndarray]:
    """A network's features (n, D) of some images and of a view of each, prepared as its description says.

    They are shown at the run's size, and all (n,) can be read.
    """
    backbone = backbone.to(bench.device)
    showing = replace(bench, shown=backbone)
    rows = showing.embed_by(bench.crop_of(backbone), images, indices)
    views = showing.embed_by(SingleView(bench.view_of(backbone)), images, indices)
    return rows, views, np.ones(len(indices), bool)
