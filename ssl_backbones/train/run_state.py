"""The state of a loop as a checkpoint holds it: everything that the rest of the run depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.optimizer_state import load_optimizer, optimizer_tensors
from ssl_backbones.train.monitor import Measured

if TYPE_CHECKING:
    from ssl_backbones.train.loop import Loop

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def write(loop: Loop) -> None:
    """Save a loop after the step it has made; all processes together."""
    state = loop.method.state_dict()
    tensors, entries = optimizer_tensors(loop.optimizer, loop.method.named_parameters())
    parts: dict[str, dict[str, Tensor]] = {"method": state, "optimizer": tensors}
    if loop.before is not None and loop.before.correct is not None:
        parts["before"] = {"correct": loop.before.correct}
    own = own_buffers(loop.method) if loop.accelerator.num_processes > 1 else []
    checkpoint.save(
        loop.folder.checkpoints,
        loop.step,
        parts,
        scalars_of(loop) | {"optimizer": entries},
        own={f"buffer.{name}": state[name] for name in own} | loop.window.tensors(),
        keep=loop.recipe.checkpoints.keep,
        best=None if loop.best is None else loop.best["step"],
        rank=loop.accelerator.process_index,
        world_size=loop.accelerator.num_processes,
        barrier=loop.accelerator.wait_for_everyone,
    )


def scalars_of(loop: Loop) -> dict[str, Any]:
    """What is no tensor, as JSON has it."""
    scalars: dict[str, Any] = {
        "unreadable": {
            images: {"total": account.total, **account.state_dict()} for images, account in loop.accounts.items()
        },
        "alarms": [alarm.state_dict() for alarm in loop.alarms],
        "window": loop.window.names(),
        "watch": loop.watch.state_dict(),
        "best": loop.best,
        "compute": {"precision": loop.compute.precision, "layout": loop.compute.layout},
        "images": loop.images.fingerprint,
    }
    if loop.accelerator.scaler is not None:
        scalars["scaler"] = loop.accelerator.scaler.state_dict()
    if loop.before is not None:
        scalars |= {"before": loop.before.scalars, "question": loop.monitor.question}
    return scalars


def own_buffers(method: nn.Module) -> list[str]:
    """The buffers that differ between processes: batch statistics. Methods keep all others alike."""
    return [name for name, _ in method.named_buffers() if name.endswith(STATISTICS)]


def restore(loop: Loop, saved: checkpoint.Checkpoint) -> None:
    """Make a new loop what it was when `write` saved it. Until then the network is as it was before training."""
    loop.best = saved.scalars["best"]
    if "before" in saved.scalars:
        correct = saved.tensors.get("before", {}).get("correct")
        loop.before = Measured(saved.scalars["before"], correct)
        if saved.scalars["question"] != loop.monitor.question:  # and the best answer was one to another question
            loop.best = None
            loop.before = loop.measure()
    buffers = {name.removeprefix("buffer."): value for name, value in saved.own.items() if name.startswith("buffer.")}
    loop.method.load_state_dict(saved.tensors["method"] | buffers)
    entries = saved.scalars["optimizer"]
    load_optimizer(loop.optimizer, loop.method.named_parameters(), saved.tensors["optimizer"], entries)
    if loop.accelerator.scaler is not None:
        loop.accelerator.scaler.load_state_dict(saved.scalars["scaler"])
    for images, state in saved.scalars["unreadable"].items():
        loop.accounts.setdefault(images, Unreadable(state["total"], loop.recipe.unreadable_share))
        loop.accounts[images].load_state_dict(state)
    for alarm, state in zip(loop.alarms, saved.scalars["alarms"], strict=True):
        alarm.load_state_dict(state)
    loop.watch.load_state_dict(saved.scalars["watch"])
    loop.window.load(saved.scalars["window"], saved.own)
    loop.step = loop.saved_step = saved.step
