"""The slope of a share over the steps at which it was measured: weighted least squares (Aitken, 1935)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssl_backbones.metrics.interval import Interval, two_sided


def share_slope(steps: Sequence[float], shares: Sequence[float], total: int, confidence: float = 0.95) -> Interval:
    """The slope per step of shares in [0, 1], each of `total` items, with its interval.

    Each share errs as (t + 2) / (total + 4) of so many items does (Agresti and Coull), and they err independently: of
    the same items at every step that is too much for a slope, so the interval is wider than it need be, not narrower.
    ValueError for fewer than two different steps, or where the two do not pair.
    """
    if len(steps) != len(shares) or len(set(steps)) < 2 or total < 1:
        raise ValueError(f"there are {len(steps)} steps and {len(shares)} shares; give at least two, at other steps.")
    centred = [(share * total + 2) / (total + 4) for share in shares]
    weights = [(total + 4) / (centre * (1 - centre)) for centre in centred]
    whole = math.fsum(weights)
    at = math.fsum(weight * step for weight, step in zip(weights, steps, strict=True)) / whole
    spread = math.fsum(weight * (step - at) ** 2 for weight, step in zip(weights, steps, strict=True))
    products = (weight * (step - at) * share for weight, step, share in zip(weights, steps, shares, strict=True))
    slope = math.fsum(products) / spread
    reach = two_sided(confidence) / math.sqrt(spread)
    return Interval(slope, slope - reach, slope + reach)
