"""Alarms: sentences in the log when the numbers mean that nothing is being learnt.

An alarm is shown the logged scalars step by step and answers with a sentence when its judgement changes, else None. It
takes the run's length for its measure of "long", so a dip that mends itself says nothing. Its state is plain JSON.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

SHORTEST = 200
"""Steps that a trouble must last at least, however short the run."""
BAND = 0.02
"""A loss nearer to chance than this share of it is at chance."""
SHARE = 0.1
"""Features below this share of their first value have collapsed."""
LOWEST = {"std": 0.01, "rank": 1.2}
"""Values below which the features of no network are of use."""


class Alarm(ABC):
    """Raised when a trouble has lasted for `patience` steps after as many first ones; lowered when it is surely over.

    `patience` is a twentieth of the run, and at least 200 steps.
    """

    def __init__(self, total_steps: int) -> None:
        self.patience = max(SHORTEST, total_steps // 20)
        self.state: dict[str, Any] = {"since": None, "raised": False}

    @abstractmethod
    def judge(self, step: int, values: Mapping[str, float]) -> bool | None:
        """True if the trouble is there, False if it surely is not, None if it cannot be told."""

    @abstractmethod
    def trouble(self, values: Mapping[str, float], lasted: int) -> str:
        """Sentence for the log: the trouble and its likely causes."""

    @abstractmethod
    def relief(self, values: Mapping[str, float]) -> str:
        """Sentence for the log: the trouble is over."""

    def observe(self, step: int, values: Mapping[str, float]) -> str | None:
        """Look at the scalars after a step; return a sentence if the trouble has lasted for long or is over."""
        there = self.judge(step, values)
        if there is None:
            return None
        if not there:
            relieved = self.state["raised"]
            self.state |= {"since": None, "raised": False}
            return self.relief(values) if relieved else None
        if self.state["since"] is None:
            self.state["since"] = step
        lasted = step - max(self.state["since"], self.patience)
        if self.state["raised"] or lasted < self.patience:
            return None
        self.state["raised"] = True
        return self.trouble(values, step - self.state["since"])

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs to judge as if it had never stopped, as JSON."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state_dict` gave; ValueError for one of another kind of alarm."""
        if state.keys() != self.state.keys():
            raise ValueError(f"the state of {type(self).__name__} has {sorted(state)} instead of {sorted(self.state)}")
        self.state = dict(state)


class ChanceAlarm(Alarm):
    """The running "loss" is no better than "chance", the score of a network that tells nothing apart.

    A method without a known chance reports none, and is never judged. The running mean is within BAND of chance, or
    above it, while in trouble, and lower by twice that when it is over.
    """

    def __init__(self, total_steps: int) -> None:
        super().__init__(total_steps)
        self.state |= {"running": None, "step": None}

    def judge(self, step: int, values: Mapping[str, float]) -> bool | None:
        loss, chance = values.get("loss", math.nan), values.get("chance", math.nan)
        if not (math.isfinite(loss) and math.isfinite(chance)):
            return None
        running = self.follow(step, loss)
        if running >= chance - BAND * abs(chance):
            return True
        if running >= chance - 2 * BAND * abs(chance) and self.state["raised"]:
            return None
        return False

    def follow(self, step: int, loss: float) -> float:
        """The mean of the loss over the last quarter of the patience or so, however often it is shown."""
        running, before = self.state["running"], self.state["step"]
        if running is not None:
            running += (1 - math.exp(-4 * max(0, step - before) / max(1, self.patience))) * (loss - running)
        self.state |= {"running": loss if running is None else running, "step": step}
        return float(self.state["running"])

    def trouble(self, values: Mapping[str, float], lasted: int) -> str:
        return (
            f"The loss has been at chance for {lasted} steps ({self.state['running']:.3f}, where a network that tells "
            f"no image from another scores {values['chance']:.3f}): it learns nothing. Likely causes: a learning rate "
            "far too high or too low, augmentations so strong that nothing is left in common, a temperature that does "
            "not fit, images normalised wrongly or all alike, or weights that are frozen or missing from the optimiser."
        )

    def relief(self, values: Mapping[str, float]) -> str:
        return f"The loss has left chance: {self.state['running']:.3f}, where chance is {values['chance']:.3f}."


class CollapseAlarm(Alarm):
    """The features of all images have become one point ("std") or fill a few dimensions only ("rank").

    "std" is the standard deviation of the L2-normalised features (N, D) times sqrt(D): 1 when they point everywhere, 0
    when all are alike. "rank" is their effective rank. In trouble is what falls below SHARE of the first value seen,
    best that of the network before training, or below a value at which no network is of use.
    """

    def __init__(self, total_steps: int) -> None:
        super().__init__(total_steps)
        self.state |= {"first": {}}

    def judge(self, step: int, values: Mapping[str, float]) -> bool | None:
        seen = {name: values[name] for name in LOWEST if math.isfinite(values.get(name, math.nan))}
        if not seen:
            return None
        self.state["first"] = seen | self.state["first"]
        floors = {name: self.floor(name) for name in seen}
        if any(seen[name] < floors[name] for name in seen):
            return True
        if self.state["raised"] and any(seen[name] < 1.5 * floors[name] for name in seen):
            return None
        return False

    def floor(self, name: str) -> float:
        """The value below which features count as collapsed."""
        return max(LOWEST[name], SHARE * float(self.state["first"][name]))

    def trouble(self, values: Mapping[str, float], lasted: int) -> str:
        return (
            f"The features have been collapsed for {lasted} steps ({self.described(values)}): images that differ are "
            "given the same features, however low the loss. Likely causes: a learning rate or weight decay too high, "
            "targets that receive gradients or an EMA momentum too low, a missing predictor, or batch statistics "
            "over too few images."
        )

    def relief(self, values: Mapping[str, float]) -> str:
        return f"The features have spread out again ({self.described(values)})."

    def described(self, values: Mapping[str, float]) -> str:
        words = {"std": "standard deviation x sqrt(D)", "rank": "effective rank"}
        first = self.state["first"]
        return ", ".join(f"{words[name]} {values[name]:.3g}, at first {first[name]:.3g}" for name in first)
