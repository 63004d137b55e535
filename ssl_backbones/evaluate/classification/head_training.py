"""Train a head on features that stay as they are: stopped or killed, it comes to the same end, to the last bit.

An epoch shows the features in an order that is counted from the seed. Every process does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.distributed import first_decides, say, world_size
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.optimizer_state import load_optimizer, optimizer_tensors
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.train.guards import NotFiniteError
from ssl_backbones.train.processes import Stopped, StopSignals
from ssl_backbones.views import permutation

EVERY = 60.0
"""Seconds between two saves, at least."""


@dataclass(frozen=True)
class Plan:
    """The batches of a training, epoch by epoch."""

    epochs: int
    batch_size: int
    seed: int
    whole: bool = False
    """Leave out what is left of an epoch beyond its last whole batch."""
    max_steps: int = 0
    """Steps after which the training ends within its epochs; 0 for all of them."""

    def steps_per_epoch(self, count: int) -> int:
        """Batches of an epoch of `count` features."""
        return count // self.batch_size if self.whole else -(-count // self.batch_size)

    def total_steps(self, count: int) -> int:
        """Batches of all epochs of `count` features."""
        whole = self.epochs * self.steps_per_epoch(count)
        return min(whole, self.max_steps or whole)

    def batches(self, epoch: int, count: int) -> list[Tensor]:
        """The rows (B,) of each batch of an epoch of `count` features."""
        order = torch.split(torch.from_numpy(permutation(self.seed, epoch, count)), self.batch_size)
        steps = self.steps_per_epoch(count)
        return list(order[: min(steps, self.total_steps(count) - epoch * steps)])


@dataclass(frozen=True)
class Training:
    """A head with its optimiser, and the folder that keeps both as they are after some epochs."""

    head: nn.Module
    optimizer: torch.optim.Optimizer
    folder: Path | None = None
    """Nothing is kept without one."""
    images: Images | None = None
    """The images that it is trained on; a checkpoint of others is refused."""

    def restore(self) -> int:
        """Load the newest checkpoint, if there is any; the epochs that it has seen.

        Raises ImageSourceError for one of other images, RunFolderError for one of another kind of training, and
        CheckpointError where none is whole.
        """
        saved = checkpoint.load_latest(self.folder) if self.folder else None
        if saved is None:
            return 0
        if self.images is not None and not self.images.known_as(saved.scalars.get("images", self.images.fingerprint)):
            raise ImageSourceError(
                f"the images are not those that the training in {self.folder} began with: give it the same data, or "
                "begin another with --out"
            )
        if "module" not in saved.tensors:
            raise RunFolderError(f"{self.folder} is of an older version's training: begin another with --out")
        self.head.load_state_dict(saved.tensors["module"])
        named = self.head.named_parameters()
        load_optimizer(self.optimizer, named, saved.tensors["optimizer"], saved.scalars["optimizer"])
        for reason in saved.skipped:
            say(f"A newer checkpoint was not used: {reason}")
        say(f"Going on after epoch {saved.step}.")
        if changed := saved.changed(world_size()):
            say(f"The rest may not be bit-identical to a training never stopped: {', '.join(changed)}.")
        return saved.step

    def save(self, epochs: int) -> None:
        """Write a checkpoint after so many epochs, if there is a folder for it; all processes together."""
        if self.folder is None:
            return
        tensors, entries = optimizer_tensors(self.optimizer, self.head.named_parameters())
        saving.save(
            self.folder,
            epochs,
            {"module": self.head.state_dict(), "optimizer": tensors},
            {"optimizer": entries, "images": self.images.fingerprint if self.images else ""},
        )


def train_head(
    training: Training,
    rows: Tensor,
    labels: Tensor,
    plan: Plan,
    done: int = 0,
    *,
    before_step: Callable[[int], object] = int,
) -> Generator[tuple[int, float], None, None]:
    """Train a head on features (N, D) with labels (N,) for the epochs beyond those done; yield each and its mean loss.

    `before_step` is called with the number of each step, from 0 on. Raises NotFiniteError for a loss that is no number,
    and Stopped after a signal.
    """
    head, optimizer = training.head, training.optimizer
    with closing(kept_epochs(training, done, plan.epochs)) as epochs:
        for epoch in epochs:
            total, batches = rows.new_zeros(()), plan.batches(epoch, len(rows))
            for step, chosen in enumerate(batches, start=epoch * plan.steps_per_epoch(len(rows))):
                before_step(step)
                at = chosen.to(rows.device)
                loss = cross_entropy(head(rows[at]), labels[at])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += len(chosen) * loss.detach()
            mean = float(total) / sum(map(len, batches))
            if not mean < float("inf"):
                raise NotFiniteError(f"the loss is {mean} after epoch {epoch + 1}: lower --lr, or look at the features")
            yield epoch + 1, mean


def kept_epochs(training: Training, done: int, epochs: int) -> Generator[int, None, None]:
    """The epochs beyond those done, each of which moves the head, alike in all processes.

    A checkpoint is written once a minute. A signal to stop lets the epoch end, and then the process, with everything
    saved: Stopped.
    """
    saved_at = monotonic()
    signals = StopSignals()
    try:
        for epoch in range(done, epochs):
            yield epoch
            code = signals.agreed_at_once()
            if epoch + 1 == epochs:
                return
            if code is not None or is_due(saved_at):
                training.save(epoch + 1)
                saved_at = monotonic()
            if code is not None:
                say(f"Stopped after epoch {epoch + 1} of {epochs}; the same command goes on from there.")
                raise Stopped(code)
    finally:
        signals.restore()


def is_due(saved_at: float) -> bool:
    """True if the last save is a while ago, by the first process's watch."""
    return first_decides(lambda: monotonic() - saved_at > EVERY)


@torch.no_grad()
def logits_of(head: nn.Module, rows: Tensor) -> Tensor:
    """The scores (N, C) of features (N, D)."""
    return torch.cat([head(part) for part in torch.split(rows, 1 << 16)])
