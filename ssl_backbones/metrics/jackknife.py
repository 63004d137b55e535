"""Confidence intervals of numbers that many images give together: the delete-a-group jackknife.

Kott, 2001, Journal of Official Statistics 17(4), 521-526: the number is measured again without each of G groups of the
images, drawn by lot, and spreads by (G - 1) / G sum_g (number without g - their mean)^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.metrics.interval import Interval, student_t

GROUPS = 10


def jackknife_interval(measure: Callable[[Tensor], float], order: np.ndarray) -> Interval:
    """The value of `measure` on all rows, given to it as (n,) int64, with its 95 % interval.

    `order` (N,) is the rows 0 to N - 1 in an order drawn by lot, which makes the groups.
    ValueError for fewer rows than two a group.
    """
    if len(order) < 2 * GROUPS:
        raise ValueError(f"there are {len(order)} rows; give at least {2 * GROUPS}, two for each of {GROUPS} groups.")
    group = order % GROUPS
    value = measure(torch.arange(len(order)))
    without = [measure(torch.from_numpy(np.flatnonzero(group != left_out))) for left_out in range(GROUPS)]
    mean = math.fsum(without) / GROUPS
    error = math.sqrt((GROUPS - 1) / GROUPS * math.fsum((number - mean) ** 2 for number in without))
    reach = student_t(GROUPS - 1) * error
    return Interval(value, value - reach, value + reach)
