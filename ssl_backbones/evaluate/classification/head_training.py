"""Train a head on features that stay as they are: stopped or killed, it comes to the same end, to the last bit.

An epoch shows the features in an order that is counted from the seed. Every process does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_backbones.distributed import rank, say, world_size
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.optimizer_state import load_optimizer, optimizer_tensors
from ssl_backbones.train.finite import NotFiniteError
from ssl_backbones.train.processes import Stopped, StopSignals, first_decides
from ssl_backbones.train.start import broadcast
from ssl_backbones.views import permutation

EVERY = 60.0
"""Seconds between two saves, at least."""


@dataclass(frozen=True)
class Plan:
    """The batches of a training on N features, a list for each epoch."""

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

    def batches(self, epoch: int, count: int) -> list[Tensor]:
        """The rows (B,) of each batch of an epoch of `count` features."""
        order = torch.split(torch.from_numpy(permutation(self.seed, epoch, count)), self.batch_size)
        steps = self.steps_per_epoch(count)
        left = self.max_steps - epoch * steps if self.max_steps else steps
        return list(order[: min(steps, left)])


def train_head(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: Tensor,
    labels: Tensor,
    plan: Plan,
    folder: Path | None = None,
    *,
    before_step: Callable[[int], object] = int,
) -> Iterator[tuple[int, float]]:
    """Train a head on features (N, D) with labels (N,); after each epoch, its number from 1 on and its mean loss.

    A training that was stopped goes on from what the folder holds of it. `before_step` is called with the number of
    each step, from 0 on. Raises NotFiniteError for a loss that is no number, and Stopped after a signal.
    """
    with closing(kept_epochs(plan.epochs, head, optimizer, folder)) as epochs:
        for epoch in epochs:
            total, seen, first = rows.new_zeros(()), 0, epoch * plan.steps_per_epoch(len(rows))
            for step, chosen in enumerate(plan.batches(epoch, len(rows)), start=first):
                before_step(step)
                chosen = chosen.to(rows.device)
                loss = cross_entropy(head(rows[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += len(chosen) * loss.detach()
                seen += len(chosen)
            mean = float(total) / seen
            if not mean < float("inf"):
                raise NotFiniteError(f"the loss is {mean} after epoch {epoch + 1}: lower --lr, or look at the features")
            yield epoch + 1, mean


@torch.no_grad()
def logits_of(head: nn.Module, rows: Tensor) -> Tensor:
    """The scores (N, C) of features (N, D)."""
    return torch.cat([head(part) for part in torch.split(rows, 1 << 16)])


def kept_epochs(
    epochs: int, module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path | None
) -> Generator[int, None, None]:
    """The epochs that are left after the newest checkpoint of the folder, which is loaded first; all processes alike.

    A signal to stop lets the epoch end, and then the process, with everything saved: Stopped. Without a folder nothing
    is kept.
    """
    done = restored(module, optimizer, folder) if folder else 0
    saved_at = monotonic()
    signals = StopSignals()
    try:
        for epoch in range(done, epochs):
            yield epoch
            code = signals.agreed()
            if epoch + 1 == epochs:
                return
            if folder and (code is not None or is_due(saved_at)):
                save(module, optimizer, folder, epoch + 1)
                saved_at = monotonic()
            if code is not None:
                say(f"Stopped after epoch {epoch + 1} of {epochs}; the same command goes on from there.")
                raise Stopped(code)
    finally:
        signals.restore()


def is_due(saved_at: float) -> bool:
    """True if the last save is a while ago, by the first process's watch."""
    return first_decides(lambda: monotonic() - saved_at > EVERY)


def save(module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, epochs: int) -> None:
    """Write a checkpoint of the module and the optimiser after so many epochs; all processes together."""
    tensors, entries = optimizer_tensors(optimizer, module.named_parameters())
    saving.save(
        folder,
        epochs,
        {"module": module.state_dict(), "optimizer": tensors},
        {"optimizer": entries},
        rank=rank(),
        world_size=world_size(),
        barrier=PartialState().wait_for_everyone,
    )


def restored(module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Load the newest checkpoint into the module and the optimiser; the epochs that it has seen, 0 without any."""
    saved = checkpoint.load_latest(folder, rank=rank(), broadcast=broadcast)
    if saved is None:
        return 0
    module.load_state_dict(saved.tensors["module"])
    load_optimizer(optimizer, module.named_parameters(), saved.tensors["optimizer"], saved.scalars["optimizer"])
    for reason in saved.skipped:
        say(f"A newer checkpoint was not used: {reason}")
    say(f"Going on after epoch {saved.step}.")
    if changed := saved.changed(world_size()):
        say(f"The rest may not be bit-identical to a training never stopped: {', '.join(changed)}.")
    return saved.step
