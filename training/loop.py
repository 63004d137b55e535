"""The loop: it knows the protocol of `Method`, and no method."""

from __future__ import annotations

import math
import os
import time
from contextlib import nullcontext
from typing import Any

import checkpoint
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from alarm import ChanceAlarm, CollapseAlarm
from compute import Compute, laid_out
from embed import embed, to_device
from loader import Loader
from log import RunLog
from monitor import Judge, Measured
from optimization import build_optimizer, set_hyperparameters
from optimizer_state import load_optimizer, optimizer_tensors
from processes import StopSignals, first_decides
from recipe import Run
from run_folder import RunFolder
from torch import Tensor
from window import Window

from ssl_backbones.data.batches import Batch, Batches
from ssl_backbones.data.images import Images
from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.methods.method import Method
from ssl_backbones.views import CenterCrop, seed_of


class NotFiniteError(RuntimeError):
    """A loss that is no number any more."""


class Stopped(SystemExit):
    """An orderly end before the last step, with everything saved."""


class Loop:
    """A run between its first step and its last: everything that a checkpoint holds, and what moves it."""

    def __init__(
        self,
        recipe: Run,
        images: Images,
        monitor: Judge,
        method: Method,
        compute: Compute,
        accelerator: Accelerator,
        folder: RunFolder,
    ) -> None:
        self.recipe, self.images, self.monitor, self.compute = recipe, images, monitor, compute
        self.accelerator, self.folder = accelerator, folder
        self.dataset = method.dataset(images, recipe.size, recipe.seed)
        self.loader = Loader(
            self.dataset,
            recipe.batch_size,
            recipe.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            accumulation=recipe.accumulation,
            workers=reading_workers(recipe),
        )
        self.total_steps = recipe.total_steps(self.loader.steps_per_epoch)
        self.step = 0
        self.before: Measured | None = None
        self.left_out: dict[str, str] = {}
        self.unreadable = Unreadable(len(images), recipe.unreadable_share)
        self.alarms = [ChanceAlarm(self.total_steps), CollapseAlarm(self.total_steps)]
        self.window = Window(accelerator.device)
        self.saved_at = time.monotonic()
        self.place(method)

    def place(self, method: Method) -> None:
        """Bring the method to its device and layout, and wrap it for the processes and the precision."""
        self.method = method.train()
        laid_out_weights = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        method.to(self.accelerator.device)
        method.to(memory_format=laid_out_weights[self.compute.layout])  # type: ignore[call-overload]
        self.optimizer = build_optimizer(method, self.recipe)
        if self.recipe.compile:
            method.compile()
        self.wrapped, self.stepper = self.accelerator.prepare(method, self.optimizer)

    def run(self, log: RunLog) -> tuple[Measured | None, Measured]:
        """Train to the last step; what the features were worth before and after."""
        self.log = log
        self.stop = StopSignals()
        try:
            return self.train()
        finally:
            self.stop.restore()

    def train(self) -> tuple[Measured | None, Measured]:
        """All that is left of the run, with what was measured at both of its ends."""
        was_over = self.step == self.total_steps
        if self.step == 0 and self.before is None:
            if self.monitor.at_start:
                self.before = self.measure()
                self.tell(0, self.before.scalars)
            self.save()
        for batches in self.loader.steps(self.step, self.total_steps):
            epoch, position = divmod(self.step, self.loader.steps_per_epoch)
            if position == 0:
                torch.manual_seed(seed_of(self.recipe.seed, self.step))  # alike in all processes
                self.method.on_epoch_start(self.embed_all)
            self.descend(batches)
            self.after_step(epoch)
        after = self.measure()
        if not was_over:
            self.tell(self.recipe.epochs, after.scalars)
            self.save()
        return self.before, after

    def descend(self, batches: list[Batch]) -> None:
        """One optimiser step over the micro-batches of a global batch."""
        lr = set_hyperparameters(self.optimizer, self.recipe, self.step, self.loader.steps_per_epoch)
        torch.manual_seed(seed_of(self.recipe.seed, self.step, self.accelerator.process_index))
        for batch in batches:
            self.left_out |= batch.unreadable
            content = self.dataset.on_device(to_device(batch.content, self.accelerator.device))
            last = batch is batches[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                scalars = self.wrapped(laid_out(content, self.compute.layout))
                self.accelerator.backward(scalars["loss"] / len(batches))
            self.window.add(scalars, share=1 / len(batches))
        self.stepper.step()
        self.stepper.zero_grad()
        followed = self.method.on_step_end(self.step / self.total_steps)
        self.window.note({"lr": lr, **followed})
        self.step += 1

    def after_step(self, epoch: int) -> None:
        """Log, measure, save and stop where it is time to."""
        self.log.advance()
        if self.step % self.recipe.log_every == 0 or self.step == self.total_steps:
            self.account()
            values = self.window.close()
            if not math.isfinite(values["loss"]):
                raise NotFiniteError(self.not_finite(f"the loss is {values['loss']}"))
            self.tell(epoch, values)
        if self.step % self.loader.steps_per_epoch == 0:
            self.after_epoch(epoch + 1)
        if self.step == self.total_steps:
            return  # what is left to do is logged before it is saved
        code = self.stop.agreed()
        if self.save_is_due() or code is not None:
            self.save()
        if code is not None:
            self.log.say(f"Stopped after step {self.step} of {self.total_steps}; the same command goes on from there.")
            raise Stopped(code)

    def after_epoch(self, epochs: int) -> None:
        """Measure the features where the recipe says so."""
        every = self.monitor.every
        if every and epochs % every == 0 and epochs < self.recipe.epochs:
            self.tell(epochs, self.measure().scalars)

    def account(self) -> None:
        """Count the photos that any process had to leave out; too many end the run in all of them."""
        everyone = gather_object([self.left_out]) if self.accelerator.num_processes > 1 else [self.left_out]
        for left_out in everyone:
            self.unreadable.add(left_out)
        self.left_out = {}

    def tell(self, epoch: int, values: dict[str, float]) -> None:
        """Log the numbers, and let the alarms say what they make of them."""
        self.log.write(epoch, values)
        for alarm in self.alarms:
            if sentence := alarm.observe(self.step, values):
                self.log.say(sentence)

    def require_finite(self) -> None:
        """NotFiniteError where weights are no numbers any more: such a network is neither measured nor saved."""
        if not torch.stack([weights.isfinite().all() for weights in self.method.parameters()]).all():
            raise NotFiniteError(self.not_finite("weights have become infinite or NaN"))

    def not_finite(self, trouble: str) -> str:
        """What to say of a network that computes no numbers."""
        return (
            f"{trouble} at step {self.step}: lower the learning rate ({self.recipe.lr_sentence()}), lengthen "
            f"the warm-up, or train in fp32; the last checkpoint is in {self.folder.checkpoints}"
        )

    def measure(self) -> Measured:
        """What the features are worth now."""
        self.require_finite()
        return self.monitor.judge(self)

    def embed_images(self, images: Images, indices: np.ndarray) -> Tensor:
        """The features (N, D) of some images, cropped at the centre."""
        features, unreadable = embed(
            self.method.backbone,
            Batches(images, self.evaluation_crop(self.recipe.size), self.recipe.seed),
            indices,
            self.accelerator.device,
            workers=self.loader.workers,
            autocast=self.accelerator.autocast(),
        )
        if images is self.images:
            self.left_out |= unreadable
            self.account()
        return features

    def evaluation_crop(self, size: int) -> CenterCrop:
        """How images are prepared for the published backbone."""
        cfg = self.method.backbone.pretrained_cfg
        return CenterCrop(size, cfg["crop_pct"], cfg["interpolation"])

    def embed_all(self) -> Tensor:
        """The features (N, D) of all images, in order."""
        return self.embed_images(self.images, np.arange(len(self.images)))

    def save_is_due(self) -> bool:
        """Whether the recipe wants a checkpoint now; by the clock, the first process's watch decides."""
        rule = self.recipe.checkpoints
        if rule.every_steps and self.step % rule.every_steps == 0:
            return True
        if not rule.every_minutes or self.step % self.recipe.log_every:
            return False
        return first_decides(lambda: time.monotonic() - self.saved_at > 60 * rule.every_minutes)

    def save(self) -> None:
        """Write everything that the rest of the run depends on."""
        self.require_finite()
        self.account()
        self.log.sync()
        state = self.method.state_dict()
        tensors, entries = optimizer_tensors(self.optimizer, self.method.named_parameters())
        parts: dict[str, dict[str, Tensor]] = {"method": state, "optimizer": tensors}
        scalars: dict[str, Any] = {
            "optimizer": entries,
            "unreadable": self.unreadable.state_dict(),
            "alarms": [alarm.state_dict() for alarm in self.alarms],
            "window": self.window.names(),
            "compute": {"precision": self.compute.precision, "layout": self.compute.layout},
            "images": self.images.fingerprint,
        }
        if self.accelerator.scaler is not None:
            scalars["scaler"] = self.accelerator.scaler.state_dict()
        if self.before is not None:
            scalars["before"] = self.before.scalars
            scalars["question"] = self.monitor.question
            if self.before.correct is not None:
                parts["before"] = {"correct": self.before.correct}
        checkpoint.save(
            self.folder.checkpoints,
            self.step,
            parts,
            scalars,
            own={f"buffer.{name}": state[name] for name in self.own_buffers()} | self.window.tensors(),
            keep=self.recipe.checkpoints.keep,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            barrier=self.accelerator.wait_for_everyone,
        )
        self.saved_at = time.monotonic()

    def own_buffers(self) -> list[str]:
        """The buffers that differ between processes: batch statistics. Methods keep all others alike."""
        if self.accelerator.num_processes == 1:
            return []
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        return [name for name, _ in self.method.named_buffers() if name.endswith(statistics)]

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Become what `save` wrote. Until then the network is as it was before training."""
        if "before" in saved.scalars:
            correct = saved.tensors.get("before", {}).get("correct")
            self.before = Measured(saved.scalars["before"], correct)
            if saved.scalars["question"] != self.monitor.question:
                self.before = self.measure()
        buffers = {
            name.removeprefix("buffer."): value for name, value in saved.own.items() if name.startswith("buffer.")
        }
        self.method.load_state_dict(saved.tensors["method"] | buffers)
        load_optimizer(
            self.optimizer, self.method.named_parameters(), saved.tensors["optimizer"], saved.scalars["optimizer"]
        )
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.scalars["scaler"])
        self.unreadable.load_state_dict(saved.scalars["unreadable"])
        for alarm, state in zip(self.alarms, saved.scalars["alarms"], strict=True):
            alarm.load_state_dict(state)
        self.window.load(saved.scalars["window"], saved.own)
        self.step = saved.step


def reading_workers(recipe: Run) -> int:
    """How many processes read images beside this one: the recipe's number, or a core each but for the one it keeps."""
    if recipe.workers is not None:
        return recipe.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(0, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))
