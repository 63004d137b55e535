"""The loop: it knows the protocol of `Method`, and no method."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ssl_backbones.data.batches import Batch, Batches
from ssl_backbones.data.images import Images
from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.methods.method import Method
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train import run_state
from ssl_backbones.train.alarm import ChanceAlarm, CollapseAlarm
from ssl_backbones.train.embed import embed, to_device
from ssl_backbones.train.finite import FiniteWatch, NotFiniteError, all_finite
from ssl_backbones.train.loader import Loader, reading_workers
from ssl_backbones.train.memory import within_memory
from ssl_backbones.train.monitor import Judge, Measured
from ssl_backbones.train.optimization import build_optimizer, set_hyperparameters
from ssl_backbones.train.precision import MEMORY_FORMATS, Compute, laid_out
from ssl_backbones.train.processes import Stopped, StopSignals, first_decides
from ssl_backbones.train.running_means import Window
from ssl_backbones.views import CenterCrop, seed_of
from ssl_backbones.views.randomness import permutation


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
            workers=0 if images.in_process else reading_workers(recipe.workers),
        )
        self.total_steps = recipe.total_steps(self.loader.steps_per_epoch)
        self.step = 0
        self.saved_step: int | None = None
        self.before: Measured | None = None
        self.best: dict[str, Any] | None = None
        self.left_out: dict[str, str] = {}
        self.accounts: dict[str, Unreadable] = {}
        self.unreadable = self.account_of(images)
        self.alarms = [ChanceAlarm(self.total_steps), CollapseAlarm(self.total_steps)]
        self.window = Window(accelerator.device)
        self.watch = FiniteWatch(accelerator.device, scaled=accelerator.scaler is not None)
        self.saved_at = time.monotonic()
        self.place(method)

    def place(self, method: Method) -> None:
        """Bring the method to its device and layout, and wrap it for the processes and the precision."""
        self.method = method.train()
        method.to(self.accelerator.device)
        method.to(memory_format=MEMORY_FORMATS[self.compute.layout])  # type: ignore[call-overload]
        self.optimizer = build_optimizer(method, self.recipe)
        if self.recipe.compile:
            method.compile()
        self.wrapped, self.stepper = self.accelerator.prepare(method, self.optimizer)

    def run(self, log: RunLog) -> tuple[Measured | None, Measured]:
        """Train to the last step; what the features were worth before and after."""
        self.log = log
        self.stop = StopSignals()
        try:
            with within_memory(self.recipe, self.compute.precision):
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
            self.tell(-(-self.step // self.loader.steps_per_epoch), after.scalars)
            self.save()
        return self.before, after

    def descend(self, batches: list[Batch]) -> None:
        """One optimiser step over the micro-batches of a global batch."""
        lr = set_hyperparameters(self.optimizer, self.recipe, self.step, self.loader.steps_per_epoch)
        torch.manual_seed(seed_of(self.recipe.seed, self.step, self.accelerator.process_index))
        losses = []
        for batch in batches:
            self.left_out |= batch.unreadable
            content = self.dataset.on_device(to_device(batch.content, self.accelerator.device))
            last = batch is batches[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                scalars = self.wrapped(laid_out(content, self.compute.layout))
                self.accelerator.backward(scalars["loss"] / len(batches))
            losses.append(scalars["loss"].detach())
            self.window.add(scalars, share=1 / len(batches))
        self.watch.observe(self.step, losses, (weights.grad for weights in self.method.parameters()))
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
            self.require_finite_steps()
            self.tell(epoch, self.window.close() | self.watch.skipped())
        improved = self.step % self.loader.steps_per_epoch == 0 and self.after_epoch(epoch + 1)
        if self.step == self.total_steps:
            return  # what is left to do is logged before it is saved
        code = self.stop.agreed()
        if improved or self.save_is_due() or code is not None:
            self.save()
        if code is not None:
            self.log.say(f"Stopped after step {self.step} of {self.total_steps}; the same command goes on from there.")
            raise Stopped(code)

    def after_epoch(self, epochs: int) -> bool:
        """Measure the features where the recipe says so; whether they have never been better."""
        every = self.monitor.every
        if not every or epochs % every or epochs == self.recipe.epochs:
            return False
        self.tell(epochs, self.measure().scalars)
        return self.best is not None and self.best["step"] == self.step

    def account(self) -> None:
        """Count the photos that any process had to leave out of its batches."""
        left_out, self.left_out = self.left_out, {}
        self.count(self.images, left_out)

    def count(self, images: Images, left_out: Mapping[str, str]) -> None:
        """Count what any process could not read of some images; too many end the run in all of them."""
        for unreadable in gather_object([left_out]) if self.accelerator.num_processes > 1 else [left_out]:
            self.account_of(images).add(unreadable)

    def account_of(self, images: Images) -> Unreadable:
        """What is known so far of those images that cannot be read."""
        return self.accounts.setdefault(images.fingerprint, Unreadable(len(images), self.recipe.unreadable_share))

    def tell(self, epoch: int, values: dict[str, float]) -> None:
        """Log the numbers, and let the alarms say what they make of them."""
        self.log.write(epoch, values)
        for alarm in self.alarms:
            if sentence := alarm.observe(self.step, values):
                self.log.say(sentence)

    def require_finite(self) -> None:
        """NotFiniteError where weights are no numbers any more: such a network is neither measured nor saved."""
        self.require_finite_steps()
        if not all_finite(self.method):
            raise NotFiniteError(self.not_finite(f"weights were no numbers after step {self.step}"))

    def require_finite_steps(self) -> None:
        """NotFiniteError where a loss or gradients were no numbers, with the images that led to them."""
        if trouble := self.watch.trouble():
            step, what = trouble
            keys = self.keys_of(step)
            rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise NotFiniteError(self.not_finite(f"{what} step {step + 1}, on {', '.join(keys[:3])}{rest}"))

    def keys_of(self, step: int) -> list[str]:
        """The images of a step, counted from 0, over all processes."""
        epoch, position = divmod(step, self.loader.steps_per_epoch)
        start = position * self.recipe.batch_size
        order = permutation(self.recipe.seed, epoch, len(self.images))
        return [self.images.keys[int(at)] for at in order[start : start + self.recipe.batch_size]]

    def not_finite(self, trouble: str) -> str:
        """What to say of a network that computes no numbers."""
        none, good = self.saved_step is None, checkpoint.folder_name(self.saved_step or 0)
        return (
            f"{trouble}: look at those images, or begin another run (--out) with a lower learning rate "
            f"({self.recipe.lr_sentence().rstrip('.')}), a longer warm-up, or --precision fp32; "
            + ("nothing was saved yet" if none else f"the last good checkpoint is {self.folder.checkpoints / good}")
        )

    def measure(self) -> Measured:
        """What the features are worth now; the best so far is remembered by its step."""
        self.require_finite()
        found = self.monitor.judge(self)
        if found.correct is not None and (self.best is None or found.score > self.best["score"]):
            self.best = {"step": self.step, "score": found.score}
        return found

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
        self.count(images, unreadable)
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
        run_state.write(self)
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Become what `save` wrote. Until then the network is as it was before training."""
        run_state.restore(self, saved)
