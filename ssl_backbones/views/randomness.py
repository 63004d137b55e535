"""Counted randomness: numbers that are a function of counters, so that nothing depends on what was drawn before.

The hash is SplitMix64 (Steele, Lea and Flood, 2014. https://doi.org/10.1145/2714064.2660195), nested: a counter c takes
state h to the c-th output of the generator that starts at h. It is written out here in whole 64-bit arithmetic, so the
numbers are the same on every machine and with every version of numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_VIEWS, _ORDER, _SEED = 1, 2, 3
"""The purpose of a number: the first counter, so that no two purposes share a stream."""


def uniform(
    seed: int, epoch: int, indices: Sequence[int] | NDArray[np.integer], view: int, n: int
) -> NDArray[np.float64]:
    """Numbers in [0, 1), (B, n): row b is a function of (seed, epoch, indices[b], view) and nothing else."""
    state = _absorb(_start(seed, _VIEWS, epoch, view), _counter(indices))
    return _unit(_absorb(state[:, None], np.arange(n, dtype=np.uint64)))


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order (n,) in which an epoch shows n images."""
    return np.argsort(_absorb(_start(seed, _ORDER, epoch), np.arange(n, dtype=np.uint64)), kind="stable")


def seed_of(seed: int, *counters: int) -> int:
    """A seed in [0, 2^63) for a generator of its own, such as torch's at (seed, step, rank)."""
    return int(_start(seed, _SEED, *counters)[0] >> np.uint64(1))


def _start(seed: int, *counters: int) -> NDArray[np.uint64]:
    """The state (1,) that a seed and its counters lead to."""
    state = np.zeros(1, dtype=np.uint64)
    for counter in (seed, *counters):
        state = _absorb(state, _counter([counter]))
    return state


def _counter(values: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint64]:
    """Integers of any sign as 64-bit counters."""
    if isinstance(values, np.ndarray):
        return values.astype(np.uint64)
    return np.array([int(value) % 2**64 for value in values], dtype=np.uint64)


def _absorb(state: NDArray[np.uint64], counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The counter-th output, from 0, of the SplitMix64 generators that start at the states; both broadcast."""
    return mixed(state + _GOLDEN * (counter + np.uint64(1)))


def mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers (...) of which each bit turns about half of those that come out: the last step of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The upper 53 bits as a fraction in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
