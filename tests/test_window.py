"""Means over the steps between two lines of the log: through a checkpoint as well, and nothing small is lost."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tinted import CPU

from ssl_backbones.train.running_means import RunningMeans

numbers = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=9), st.integers(0, 9))
def test_a_window_tells_means_and_goes_on_where_it_was(steps: list[list[float]], cut: int) -> None:
    window = RunningMeans(CPU)
    for number, (loss, chance) in enumerate(steps):
        if number == cut:  # through a checkpoint
            saved = window.names(), window.tensors()
            window = RunningMeans(CPU)
            window.load(*saved)
        window.add({"loss": torch.tensor(loss, requires_grad=True), "chance": chance})
        window.note({"lr": number / 10})
    means = window.close()
    assert list(means) == ["loss", "chance", "lr"]
    for name, values in zip(("loss", "chance"), zip(*steps, strict=True), strict=True):
        assert means[name] == pytest.approx(math.fsum(values) / len(steps), rel=1e-9, abs=1e-7)
    assert means["lr"] == (len(steps) - 1) / 10
    window.add({"loss": torch.tensor(3.0)})
    assert window.close() == {"loss": 3.0, "lr": means["lr"]}


def test_micro_batches_share_a_step() -> None:
    window = RunningMeans(CPU)
    for part in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(part)}, share=1 / 3)
    window.add({"loss": torch.tensor(5.0)})
    assert window.close()["loss"] == pytest.approx(4.0)


def test_a_window_does_not_lose_small_numbers_of_half_precision() -> None:
    window = RunningMeans(CPU)
    for _ in range(3000):
        window.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert window.close()["loss"] == 1
