"""A small training by epochs, kept on the disk: stopped or killed, it comes to the same end, to the last bit."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from time import monotonic

import torch
from accelerate import PartialState
from torch import nn

from ssl_backbones.distributed import rank, say, world_size
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.optimizer_state import load_optimizer, optimizer_tensors
from ssl_backbones.train.processes import Stopped, StopSignals, first_decides
from ssl_backbones.train.start import broadcast

EVERY = 60.0
"""Seconds between two saves, at least."""


def kept_epochs(
    epochs: int, module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path | None
) -> Generator[int, None, None]:
    """The epochs that are left, each of which moves the module, alike in all processes.

    The module and the optimiser are first made what the folder holds of an earlier training, if anything. A signal to
    stop lets the epoch end, and then the process, with everything saved. Without a folder nothing is kept.
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
    """Whether it is time to save again, by the first process's watch."""
    return first_decides(lambda: monotonic() - saved_at > EVERY)


def save(module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, epochs: int) -> None:
    """Write what was learnt in so many epochs; all processes together."""
    tensors, entries = optimizer_tensors(optimizer, module.named_parameters())
    checkpoint.save(
        folder,
        epochs,
        {"module": module.state_dict(), "optimizer": tensors},
        {"optimizer": entries},
        rank=rank(),
        world_size=world_size(),
        barrier=PartialState().wait_for_everyone,
    )


def restored(module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """How many epochs were saved last, with the module and the optimiser as they were then; 0 where none were."""
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
