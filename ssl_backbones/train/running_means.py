"""Running means of what is logged, between two lines of the log; read from the device only for a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_backbones.distributed import sum_over_processes, world_size


class RunningMeans:
    """Sums of scalars over the steps since the last line, per process, in float64 where the device has it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums: dict[str, Tensor] = {}
        self.weight = 0.0
        self.latest: dict[str, float] = {}

    @torch.no_grad()
    def add(self, scalars: Mapping[str, Tensor | float], share: float = 1.0) -> None:
        """Take in the scalars of a batch that is `share` of a step."""
        for name, value in scalars.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros((), dtype=self.dtype, device=self.device)
            value = value.detach().to(self.dtype) if isinstance(value, Tensor) else value
            self.sums[name] = self.sums[name] + share * value
        self.weight += share

    def add_step(self, scored: Sequence[Mapping[str, Tensor | float]]) -> None:
        """Take in the scalars of a step's micro-batches."""
        for scalars in scored:
            self.add(scalars, share=1 / len(scored))

    def note(self, values: Mapping[str, float]) -> None:
        """Take in what is logged as it stands at the end: the learning rate, a momentum."""
        self.latest |= values

    def close(self) -> dict[str, float]:
        """The means over steps and processes, and the latest values; and start anew. Without a step, no means."""
        if not self.sums:
            return dict(self.latest)
        sums = sum_over_processes(torch.stack(list(self.sums.values())))
        means = (sums / (self.weight * world_size())).tolist()
        values = dict(zip(self.sums, means, strict=True)) | self.latest
        self.sums, self.weight = {}, 0.0
        return values

    def names(self) -> dict[str, object]:
        """The state that `load` needs beside the tensors, as JSON."""
        return {"names": list(self.sums), "weight": self.weight, "latest": self.latest}

    def tensors(self) -> dict[str, Tensor]:
        """This process's sums."""
        return {f"window.{name}": value for name, value in self.sums.items()}

    def load(self, state: Mapping[str, object], own: Mapping[str, Tensor]) -> None:
        """Go on where `names` and `tensors` were taken."""
        self.sums = {name: own[f"window.{name}"].to(self.device) for name in state["names"]}  # type: ignore[attr-defined]
        self.weight = float(state["weight"])  # type: ignore[arg-type]
        self.latest = dict(state["latest"])  # type: ignore[call-overload]
