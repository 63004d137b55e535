"""Guards of a run: numbers that are not finite, and memory that runs out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ssl_backbones.distributed import sum_over_processes, world_size
from ssl_backbones.host_memory import is_out_of_memory
from ssl_backbones.methods.method import Method
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.recipes.ways_out import take_own
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.manifest import folder_name
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.embed import AT_ONCE

SKIPS = 20
"""Steps in a row that a gradient scaler may skip while it looks for a scale that fits."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of BatchNorm's buffers."""


class NotFiniteError(Refusal, RuntimeError):
    """A loss, a gradient or a weight that is NaN or infinite."""


def not_finite(trouble: str, run: Run, folder: RunFolder, saved_step: int | None) -> NotFiniteError:
    """The error of a run whose network computes NaN or infinity, with the ways out."""
    good = folder.checkpoints / folder_name(saved_step or 0)
    saved = "nothing was saved yet" if saved_step is None else f"the last good checkpoint is {good}"
    return NotFiniteError(
        f"{trouble}: look at those images, or begin another run (--out) with a lower learning rate "
        f"({run.lr_sentence().rstrip('.')}), a longer warm-up, or --precision fp32; {saved}"
    )


class FiniteWatch:
    """The first step whose loss or gradients were not finite; under a gradient scaler, which skips such steps, the
    first after too many of them in a row."""

    def __init__(self, device: torch.device, scaled: bool) -> None:
        self.allowed = SKIPS if scaled else 0
        self.noted = torch.tensor([-1, 0, 0, 0], device=device)  # the step, whether its loss was bad, in a row, in all

    @torch.no_grad()
    def observe(self, step: int, losses: Sequence[Tensor], gradients: Iterable[Tensor | None]) -> dict[str, Tensor]:
        """Take in the losses of a step's micro-batches and the gradients that they led to; nothing is waited for.

        Return the gradients' norm, for the log; not where a scaler has multiplied them.

        Gradients are told by their 2-norm: torch's maximum takes twenty times as long on a CPU, a tenth of a small
        network's step. A norm beyond float32, above 1e19, counts as none.
        """
        norm = get_total_norm([gradient for gradient in gradients if gradient is not None])
        bad_loss = ~torch.stack(list(losses)).isfinite().all()
        bad = bad_loss | ~norm.isfinite()
        first, loss_too, in_a_row, in_all = self.noted
        in_a_row, in_all = torch.where(bad, in_a_row + 1, 0), in_all + bad
        beyond = (first < 0) & (in_a_row > self.allowed)
        self.noted = torch.stack(
            [torch.where(beyond, step, first), torch.where(beyond, bad_loss, loss_too), in_a_row, in_all]
        )
        return {} if self.allowed else {"gradient": norm}

    def trouble(self) -> tuple[int, str] | None:
        """The step that went wrong and what was wrong with it; None if all went well; waits for the device."""
        step, loss_too, _, _ = self.noted.tolist()
        if step < 0:
            return None
        what = "the loss was not finite" if loss_too else "the gradients were not finite"
        return step, f"{what} for {self.allowed + 1} steps in a row, the last" if self.allowed else f"{what} in"

    def skipped(self) -> dict[str, float]:
        """Number of steps that a gradient scaler has left out so far, for the log; waits for the device."""
        return {"skipped": self.noted[3].item()} if self.allowed else {}

    def state_dict(self) -> list[int]:
        """The state that a resumed run needs, as JSON."""
        noted: list[int] = self.noted.tolist()
        return noted

    def load_state_dict(self, state: Sequence[int]) -> None:
        """Take up a state that `state_dict` gave."""
        self.noted = torch.tensor(state, device=self.noted.device)


def statistics_of(network: nn.Module) -> dict[str, Tensor]:
    """The batch statistics of a network by their names: the buffers that a forward pass moves.

    They differ between processes; methods keep all other buffers alike.
    """
    return {name: buffer for name, buffer in network.named_buffers() if name.endswith(STATISTICS)}


class StepUndo:
    """A step that a gradient scaler leaves out leaves nothing behind: neither batch statistics nor what was held back.

    The infinite activations that make a scaler do so are in the statistics by then, and targets would average them.
    """

    def __init__(self, method: Method, scaled: bool) -> None:
        self.method = method
        self.statistics = list(statistics_of(method).values()) if scaled else []
        self.before: list[Tensor] = []

    def begin(self) -> None:
        """Remember the batch statistics as a step begins; without a scaler there is nothing to remember."""
        self.before = [buffer.clone() for buffer in self.statistics]

    def undo(self) -> None:
        """Put them back, and let the method forget the step."""
        for buffer, before in zip(self.statistics, self.before, strict=True):
            buffer.copy_(before)
        self.method.on_step_left_out()


def all_finite(network: nn.Module) -> bool:
    """True if every weight and every buffer is finite, in all processes, which ask together: statistics differ."""
    tensors = [*network.parameters(), *network.buffers()]
    bad = ~torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
    return not sum_over_processes(bad.int())


class MemoryShortError(Refusal, RuntimeError):
    """A batch, or images that are looked at, that do not fit into memory."""


@contextmanager
def within_memory(run: Run, method: Method, precision: str) -> Iterator[None]:
    """Context manager: turn memory that runs out into MemoryShortError, which names the batch and the ways out."""
    with saying_if_memory_runs_out(memory_advice(run, method, precision)):
        yield


def within_memory_beside(step: int) -> AbstractContextManager[None]:
    """Context manager: MemoryShortError, with advice, where memory runs out while measuring between two steps."""
    return saying_if_memory_runs_out(
        f"out of memory while images were looked at after step {step}, {AT_ONCE} at a time: free memory of the device "
        "and the machine (--workers 0 takes less of that), and start the same command again, which goes on from its "
        "last checkpoint"
    )


@contextmanager
def saying_if_memory_runs_out(advice: str) -> Iterator[None]:
    """Context manager: turn memory that runs out into MemoryShortError with this advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryShortError(advice) from error


def memory_advice(run: Run, method: Method, precision: str) -> str:
    """The message on a batch that does not fit, with the ways to take less memory."""
    parts = run.parts * world_size()
    at_once = run.batch_size // parts
    instead = take_own(run)
    effect = "which keeps the loss" if method.accumulation_is_exact else "which changes this method's loss"
    smaller = f"raise --accumulation from {run.parts} to {2 * run.parts}, {effect}, or "
    return (
        f"out of memory with a batch of {run.batch_size} images of {run.size} px in {precision}, {at_once} at a time "
        f"in each of {world_size()} process{'es' if world_size() > 1 else ''}: "
        f"{smaller if at_once % 2 == 0 else ''}lower --batch_size or --size, or try --precision bf16, and "
        f"if training had begun, start a new run with --out{instead and f'; or {instead}'}"
    )
