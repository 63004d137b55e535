"""Learning rate and momentum as pure functions of where a run stands: nothing to prepare, nothing to restore.

What a learning rate is multiplied by is a factor in (0, 1]; `step` counts optimiser steps from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Per = Literal["step", "epoch"]
"""The unit in which a schedule moves."""


def linear_warmup(step: int, steps_per_epoch: int, warmup_epochs: int) -> float:
    """The factor of a linear rise: 1/N after no step, 1 from step N - 1 on, for N steps of warm-up."""
    return min(1.0, (step + 1) / (warmup_epochs * steps_per_epoch)) if warmup_epochs else 1.0


def cosine(progress: float) -> float:
    """Half a cosine, from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def cosine_decay(step: int, steps_per_epoch: int, epochs: int, warmup_epochs: int, per: Per) -> float:
    """The factor of half a cosine over the epochs that follow the warm-up.

    It moves once per epoch in MoCo, EMAN and LEWEL, once per step in BYOL; either way it ends above 0.
    """
    epoch = step // steps_per_epoch if per == "epoch" else step / steps_per_epoch
    return cosine((epoch - warmup_epochs) / (epochs - warmup_epochs))


def step_decay(step: int, steps_per_epoch: int, milestones: Sequence[int], decay: float = 0.1) -> float:
    """The factor decay^k, where k of the milestones (in epochs) have passed."""
    epoch = step // steps_per_epoch
    return decay ** sum(epoch >= milestone for milestone in milestones)


def polynomial_decay(step: int, total_steps: int, power: float = 0.9) -> float:
    """The factor (1 - step / total_steps)^power, which ends above 0. Chen et al., 2017 (DeepLab), section 4.1.1."""
    return math.pow(1 - step / total_steps, power)


def ema_momentum(progress: float, start: float, end: float = 1.0) -> float:
    """A target's momentum at progress in [0, 1]: from start to end along half a cosine; constant where they agree.

    Grill et al., 2020 (https://arxiv.org/abs/2006.07733), section 3.3, where end is 1.
    """
    return end - (end - start) * cosine(progress)
