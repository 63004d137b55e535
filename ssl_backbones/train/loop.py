"""The loop: it knows the protocol of `Method`, and no method."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ssl_backbones.checks import few
from ssl_backbones.data import Batch, Images
from ssl_backbones.data.placement import in_layout, laid_out, to_device
from ssl_backbones.data.progressive import progressive
from ssl_backbones.data.unreadable import Accounts
from ssl_backbones.methods.method import Method
from ssl_backbones.products import network_products
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.optimizer_state import load_optimizer, optimizer_tensors
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.runs.writer import Writer
from ssl_backbones.train.alarm import ChanceAlarm, CollapseAlarm
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.due import Due
from ssl_backbones.train.first_measurements import Before
from ssl_backbones.train.guards import (
    FiniteWatch,
    StepUndo,
    all_finite,
    not_finite,
    statistics_of,
    within_memory,
    within_memory_beside,
)
from ssl_backbones.train.judge import Judge, Measured, Trained
from ssl_backbones.train.loader import Loader
from ssl_backbones.train.optimization import build_optimizer, set_hyperparameters
from ssl_backbones.train.precision import Compute
from ssl_backbones.train.processes import Stopped, StopSignals
from ssl_backbones.train.running_means import RunningMeans
from ssl_backbones.train.saved_state import noticed
from ssl_backbones.train.switches import repeatable
from ssl_backbones.views import seed_of


class Loop:
    """A run between its first step and its last: everything that a checkpoint holds, and what moves it."""

    def __init__(
        self,
        run: Run,
        images: Images,
        judge: Judge,
        method: Method,
        compute: Compute,
        accelerator: Accelerator,
        folder: RunFolder,
        given: Beginning | None = None,
    ) -> None:
        self.run, self.images, self.judge, self.compute = run, images, judge, compute
        self.accelerator, self.folder = accelerator, folder
        self.dataset = progressive(method.dataset(images, run.size, run.seed), run.sides)
        self.loader = Loader.of(run, self.dataset, accelerator)
        self.total_steps = run.total_steps(self.loader.steps_per_epoch)
        self.whole_steps = run.whole_steps(self.loader.steps_per_epoch)
        self.writer = Writer(folder.checkpoints, run.checkpoints.keep)
        self.before = Before(judge, given, compute.layout)
        self.last: Measured | None = None
        self.best: dict[str, Any] | None = None
        self.left_out: dict[str, str] = {}
        self.unreadable = Accounts(run.unreadable_share)
        self.unreadable.of(images)
        self.alarms = [ChanceAlarm(self.whole_steps), CollapseAlarm(self.whole_steps)]
        self.means = RunningMeans(accelerator.device)
        self.watch = FiniteWatch(accelerator.device, scaled=accelerator.scaler is not None)
        self.step, self.due = 0, Due(run)
        self.place(method)
        self.bench = Bench(run, method, self.loader, self.unreadable, accelerator)

    def place(self, method: Method) -> None:
        """Bring the method to its device and layout, and wrap it for the processes and the precision."""
        self.method = method.train()
        laid_out(method.to(self.accelerator.device), self.compute.layout)
        self.optimizer = build_optimizer(method, self.run, scaled=self.accelerator.scaler is not None)
        if self.run.compile:
            method.compile()
        self.wrapped, self.stepper = self.accelerator.prepare(method, self.optimizer)
        self.undo = StepUndo(method, scaled=self.accelerator.scaler is not None)

    def train(self, log: RunLog) -> Trained:
        """Train to the last step and measure at both ends."""
        self.log = log
        self.stop = StopSignals()
        try:
            with within_memory(self.run, self.method, self.compute.precision), repeatable():
                after = self.finish()
                self.writer.settle()
                return self.trained(after)
        finally:
            try:
                self.writer.close(self.log.say)  # a signal meanwhile is noted, and the checkpoint is written whole
            finally:
                self.stop.restore()

    def finish(self) -> Measured:
        """Make all the steps that are left, and measure after the last."""
        was_over = self.step == self.total_steps
        if self.step == 0 and self.before.network is None:
            if self.judge.at_start:
                self.before.measure(self.bench, found := self.measure(self.bench))
                self.tell(0, found.scalars)
            self.save()
        for batches in self.loader.steps(self.step, self.total_steps):
            epoch, position = divmod(self.step, self.loader.steps_per_epoch)
            if position == 0:
                torch.manual_seed(seed_of(self.run.seed, self.step))  # alike in all processes
                with within_memory_beside(self.step):
                    self.method.on_epoch_start(lambda: self.bench.embed_share(self.images, self.method.embedder))
            self.descend(batches)
            self.after_step(epoch)
        after = self.measure(self.bench)
        if not was_over:
            self.tell(-(-self.step // self.loader.steps_per_epoch), after.scalars)
            self.save()
        self.end_with(self.stop.agreed_at_once())
        return after

    def trained(self, after: Measured) -> Trained:
        """Return what the results of the run are made of."""
        return Trained(
            method=self.method,
            images=self.images,
            folder=self.folder,
            steps=self.step,
            compute=self.compute,
            device=self.accelerator.device,
            before=self.before.network,
            random=self.before.random,
            after=after,
            asked_since=self.before.since,
            best=self.best,
            unreadable=sorted(self.unreadable.of(self.images).reasons),
            unreadable_elsewhere=self.unreadable.elsewhere(self.images),
            log=self.log,
        )

    def descend(self, batches: list[Batch]) -> None:
        """Make one optimiser step over the micro-batches of a global batch."""
        self.means.note({"lr": set_hyperparameters(self.optimizer, self.run, self.step, self.loader.steps_per_epoch)})
        torch.manual_seed(seed_of(self.run.seed, self.step, self.accelerator.process_index))
        scored = []
        self.undo.begin()
        for batch in batches:
            self.left_out |= batch.unreadable
            content = self.dataset.on_device(to_device(batch.content, self.accelerator.device))
            alone = nullcontext() if batch is batches[-1] else self.accelerator.no_sync(self.wrapped)
            with alone, network_products(self.accelerator.device):
                scalars = self.wrapped(in_layout(content, self.compute.layout))
                self.accelerator.backward(scalars["loss"] / len(batches))
            self.method.on_part_end()
            scored.append(scalars | {"loss": scalars["loss"].detach()})
        gradients = (weights.grad for group in self.optimizer.param_groups for weights in group["params"])
        norm = self.watch.observe(self.step, [scalars["loss"] for scalars in scored], gradients)
        self.stepper.step()
        self.stepper.zero_grad()
        if self.stepper.step_was_skipped:  # by a gradient scaler
            self.undo.undo()
        else:
            self.means.add_step([scalars | norm for scalars in scored])
            self.means.note(self.method.on_step_end(self.step / self.whole_steps))
        self.step += 1

    def after_step(self, epoch: int) -> None:
        """Log, measure, save and stop, each when it is due; Stopped ends all processes after the same step."""
        self.log.advance()
        if self.step % self.run.log_every == 0 or self.step == self.total_steps:
            self.count_unreadable()
            self.require_finite_steps()
            self.tell(epoch, self.means.close() | self.watch.skipped())
        improved = self.step % self.loader.steps_per_epoch == 0 and self.after_epoch(epoch + 1)
        if self.step == self.total_steps:
            return  # what is left to do is logged before it is saved
        code = self.stop.agreed(failed=self.writer.failed)
        if improved or self.due.after(self.step) or code is not None:
            self.save()
        self.end_with(code)

    def end_with(self, code: int | None) -> None:
        """Raise Stopped if all processes have agreed on a code, once the last checkpoint is there."""
        if code is not None:
            self.writer.settle()
            self.log.say(f"Stopped after step {self.step} of {self.total_steps}; the same command goes on from there.")
            raise Stopped(code)

    def after_epoch(self, epochs: int) -> bool:
        """Run the judge if this epoch is due. True if the score is the best so far."""
        if not self.judge.every or epochs % self.judge.every or self.step == self.total_steps:
            return False  # what is measured after the last step is measured once
        self.tell(epochs, self.measure(self.bench).scalars)
        return self.best is not None and self.best["step"] == self.step

    def count_unreadable(self) -> None:
        """Count the training images that any process had to leave out; TooManyUnreadableError in all of them."""
        left_out, self.left_out = self.left_out, {}
        self.unreadable.count(self.images, left_out)

    def tell(self, epoch: int, values: dict[str, float]) -> None:
        """Log the numbers, and the sentences that the alarms make of them."""
        self.log.write(epoch, values)
        for sentence in filter(None, [alarm.observe(self.step, values) for alarm in self.alarms]):
            self.log.say(sentence)

    def require_finite(self) -> None:
        """Raise NotFiniteError for weights that are not finite: such a network is neither measured nor saved."""
        self.require_finite_steps()
        if not all_finite(self.method):
            what = f"weights or statistics were not finite after step {self.step}"
            raise not_finite(what, self.run, self.folder, self.writer.last(self.log.say))

    def require_finite_steps(self) -> None:
        """Raise NotFiniteError for a loss or gradients that were not finite, with the images that led to them."""
        if trouble := self.watch.trouble():
            step, what = trouble
            keys = self.loader.order.keys_of(step, self.images.keys)
            shown = f"{what} step {step + 1}, on {few(keys)}"
            raise not_finite(shown, self.run, self.folder, self.writer.last(self.log.say))

    def measure(self, bench: Bench) -> Measured:
        """Measure the network as it is now, and remember the step of the best score."""
        self.require_finite()
        with self.loader.spent.measuring(), within_memory_beside(self.step):
            found = self.last = self.judge.judge(bench).beside(self.last)
        if found.correct is not None and (self.best is None or found.score > self.best["score"]):
            self.best = {"step": self.step, "score": found.score}
        return found

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on; all processes together."""
        self.require_finite()
        self.count_unreadable()
        self.log.sync()
        tensors, scalars, own = self.state()
        best = None if self.best is None else self.best["step"]
        self.writer.save(self.step, tensors, scalars, own=own, best=best)
        self.due.saved()

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], dict[str, Tensor]]:
        """The state as a checkpoint holds it: each part's tensors, plain values, and this process's own tensors."""
        state = self.method.state_dict()
        tensors, entries = optimizer_tensors(self.optimizer, self.method.named_parameters())
        parts: dict[str, dict[str, Tensor]] = {"method": state, "optimizer": tensors}
        scalars: dict[str, Any] = {
            "unreadable": self.unreadable.state_dict(),
            "alarms": [alarm.state_dict() for alarm in self.alarms],
            "window": self.means.names(),
            "watch": self.watch.state_dict(),
            "best": self.best,
            "compute": self.compute.kept() | noticed(self.run) | {"parts": self.run.parts},
            "images": self.images.fingerprint,
            "coarse": self.dataset.decodes_coarsely,
        }
        if self.accelerator.scaler is not None:
            scalars["scaler"] = self.accelerator.scaler.state_dict()
        parts, scalars = parts | self.before.parts(), scalars | self.before.scalars()
        if self.last and self.last.tensors:
            parts["last"] = self.last.tensors
        own = statistics_of(self.method) if self.accelerator.num_processes > 1 else {}
        own_tensors = {f"buffer.{name}": state[name] for name in own} | self.means.tensors()
        return parts, scalars | {"optimizer": entries}, own_tensors

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Take up what `save` wrote. The loop is new: until then its network is as it was before training."""
        self.best = saved.scalars["best"]
        self.last = Measured({}, **saved.tensors.get("last", {}))
        if not self.before.load(saved):
            self.best = self.last = None  # they answer another question
            self.before.measure(self.bench, self.measure(self.before.as_it_began(self.bench)))
        buffers = {name.removeprefix("buffer."): own for name, own in saved.own.items() if name.startswith("buffer.")}
        self.method.load_state_dict(saved.tensors["method"] | buffers)
        entries = saved.scalars["optimizer"]
        load_optimizer(self.optimizer, self.method.named_parameters(), saved.tensors["optimizer"], entries)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.scalars["scaler"])
        self.unreadable.load_state_dict(saved.scalars["unreadable"])
        for alarm, state in zip(self.alarms, saved.scalars["alarms"], strict=True):
            alarm.load_state_dict(state)
        self.watch.load_state_dict(saved.scalars["watch"])
        self.means.load(saved.scalars["window"], saved.own)
        self.step = self.writer.saved = saved.step
