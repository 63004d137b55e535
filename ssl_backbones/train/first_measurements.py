"""The measurements made before the first step, which what comes after is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ssl_backbones.data.images import by_sizes
from ssl_backbones.data.placement import Layout, laid_out
from ssl_backbones.runs.checkpoint import Checkpoint
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.judge import Judge, Measured


class Before:
    """The network as it begins and, beside one that was given weights, the same network with random ones."""

    def __init__(self, judge: Judge, given: Beginning | None, layout: Layout) -> None:
        self.judge, self.given, self.layout = judge, given, layout
        self.network: Measured | None = None
        self.random: Measured | None = None
        self.since = -1
        """The step after which all measurements answer the judge's question."""

    def measure(self, bench: Bench, found: Measured) -> None:
        """Keep what was found of the network, and measure random weights beside it if it was given others."""
        self.network = found
        if self.given is not None:
            self.random = self.judge.judge(self.showing(bench, self.given.drawn()))

    def showing(self, bench: Bench, backbone: nn.Module) -> Bench:
        """The bench with another backbone than the method's."""
        backbone.to(bench.device, next(bench.method.backbone.parameters()).dtype)
        return replace(bench, shown=laid_out(backbone, self.layout))

    def as_it_began(self, bench: Bench) -> Bench:
        """The bench of a run that goes on, before its state is restored: given weights are opened again."""
        return bench if self.given is None else self.showing(bench, self.given.started())

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """Their tensors, as a checkpoint has them."""
        measured = {"before": self.network, "random": self.random}
        return {name: found.tensors for name, found in measured.items() if found is not None and found.tensors}

    def scalars(self) -> dict[str, Any]:
        """The numbers and the question that they answer, likewise."""
        if self.network is None:
            return {}
        random = {} if self.random is None else {"random": self.random.scalars}
        return {"before": self.network.scalars, **random, "question": self.judge.question(), "since": self.since}

    def load(self, saved: Checkpoint) -> bool:
        """Take up what was saved; False where that answers another question, which is asked from here on."""
        if "before" not in saved.scalars:
            return True
        self.network, self.random = (recalled(saved.scalars, saved.tensors, name) for name in ("before", "random"))
        same = saved.scalars["question"] in (self.judge.question(), self.judge.question(by_sizes))
        self.since = saved.scalars.get("since", -1) if same else saved.step
        return same


def recalled(scalars: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]], name: str) -> Measured | None:
    """A measurement of a checkpoint; None where it has none of that name."""
    return Measured(scalars[name], **parts.get(name, {})) if name in scalars else None
