"""Checkpoints written while a run goes on: its state is copied at the end of a step, and a thread writes the copy.

One is written at a time, and the next waits for it, so that they are there in the order of their steps.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_backbones.distributed import doing, first_decides, rank
from ssl_backbones.runs.manifest import MANIFEST, CheckpointError, wait_for
from ssl_backbones.runs.saving import Begun, State, begin, telling_of


class Writer:
    """Writes the checkpoints of a run, in the first rank; all ranks call `save` and `settle` together."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.saved: int | None = None
        """The step of the newest checkpoint that is known to be whole."""
        self.copy = HostCopy()
        self.begun: Begun | None = None
        self.thread: threading.Thread | None = None
        self.failure: Exception | None = None

    def save(
        self,
        step: int,
        tensors: State,
        scalars: Mapping[str, Any],
        *,
        own: Mapping[str, Tensor] | None = None,
        best: int | None = None,
    ) -> None:
        """Copy the state after `step` steps and have it written, once the one before is; see `saving.save`.

        Raises in all ranks what kept the one before from being written.
        """
        self.settle()
        begun = begin(self.folder, step, tensors, scalars, own=own, keep=self.keep, best=best)
        if rank() == 0:
            with telling_of(begun):
                parts = self.copy.of({**tensors, OWN: own or {}})
            copied, apart = {part: parts[part] for part in tensors}, parts[OWN] if own is not None else None
            # Python warns of every fork beside a thread; this one holds no lock that a reading process would want.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            name = f"checkpoint of step {step}"
            self.thread = threading.Thread(target=self.write, args=(begun, copied, apart), name=name, daemon=True)
            self.thread.start()
        self.begun = begun

    def write(self, begun: Begun, tensors: State, own: Mapping[str, Tensor] | None) -> None:
        """Write a copied state, and note what keeps it from being written."""
        try:
            begun.finish(tensors, own)
        except Exception as error:
            self.failure = error

    @property
    def failed(self) -> bool:
        """True in the rank where a checkpoint could not be written, which `settle` raises in all."""
        return self.failure is not None

    def settle(self) -> None:
        """Return in all ranks when the checkpoint that was begun last is there; raise what kept it from being there."""
        begun, self.begun = self.begun, None
        if begun is not None:
            first_decides(lambda: self.wait(begun.step))
            self.saved = begun.step

    def wait(self, step: int) -> None:
        """Wait in this rank alone for the checkpoint of a step; raise what kept it from being written."""
        if self.thread is not None:
            with doing(f"Writing the checkpoint of step {step}"):
                self.thread.join()
            self.thread = None
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def last(self, tell: Callable[[str], None]) -> int | None:
        """The step of the newest whole checkpoint, where all ranks come to the same end, each by itself."""
        if rank() == 0:
            self.close(tell)
        elif self.begun is not None:
            with suppress(CheckpointError):
                wait_for(self.begun.target / MANIFEST)
                self.saved = self.begun.step
            self.begun = None
        return self.saved

    def close(self, tell: Callable[[str], None]) -> None:
        """Wait, where the other ranks may be gone, for the checkpoint that is being written; tell why it is not there.

        Only the first rank has one to wait for.
        """
        begun, self.begun = self.begun, None
        if begun is None or rank() > 0:
            return
        try:
            self.wait(begun.step)
            self.saved = begun.step
        except Exception as error:
            tell(f"warning: {error}")


OWN = "rank-"
"""The name of a rank's own tensors among the parts that are copied; no part is called so, see `manifest.PART`."""


class HostCopy:
    """Copies of a state in the host's memory, whose space the next copy takes again."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def of(self, tensors: State) -> dict[str, dict[str, Tensor]]:
        """The same parts with contiguous tensors (...) of their own, whatever they shared; the last copy is gone."""
        before, self.parts = self.parts, {}
        for part, named in tensors.items():
            space = before.get(part, {})
            self.parts[part] = {name: copied(tensor, space.get(name)) for name, tensor in named.items()}
        return self.parts


def copied(tensor: Tensor, space: Tensor | None) -> Tensor:
    """A contiguous copy (...) of a tensor (...) on the CPU, in the space of an earlier one where that fits."""
    if space is None or space.shape != tensor.shape or space.dtype != tensor.dtype:
        space = torch.empty(tensor.shape, dtype=tensor.dtype)
    return space.copy_(tensor)
