"""Schedules against the formulas, the recorded runs, and what must hold for any run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.recipes.settings import ScheduleConfig
from ssl_backbones.schedules import Per, cosine, ema_momentum, linear_warmup, step_decay

GOLDEN = json.loads((Path(__file__).parent / "golden" / "lewel.json").read_text())
LEWEL_B = [case for case in GOLDEN["cases"] if case["name"].startswith("LEWEL_B")]


@pytest.mark.parametrize("case", LEWEL_B, ids=lambda case: str(case["name"]))
def test_recorded_rates_and_momenta(case):
    config, rows = case["config"], case["out"]["train"]
    epochs, per_epoch = config["epochs"], config["steps_per_epoch"]
    assert len(rows) == epochs * per_epoch
    schedule = ScheduleConfig(warmup_epochs=config["warmup_epoch"])
    for step, row in enumerate(rows):
        factor = schedule.factor(step, per_epoch, epochs, len(rows))
        assert config["lr"] * factor == pytest.approx(row["lr"], rel=1e-12)
        assert ema_momentum(step / len(rows), config["m"]) == pytest.approx(row["m"], rel=1e-12)


@pytest.mark.parametrize(
    ("step", "per", "factor"),
    [
        (0, "epoch", 1 / 12510),
        (12508, "epoch", 12509 / 12510),
        (12509, "step", 1.0),
        (12510, "epoch", 1.0),
        (13760, "epoch", 1.0),
        (13761, "epoch", 0.9996954135095479),
        (13760, "step", 0.9996959),
        (55 * 1251, "epoch", 0.5),
        (55 * 1251 + 1250, "epoch", 0.5),
        (55 * 1251 + 1250, "step", 0.4825641946),
        (100 * 1251 - 1, "epoch", 0.0003045864904520898),
    ],
)
def test_a_hundred_epochs_of_lewel_b(step: int, per: Per, factor: float):
    schedule = ScheduleConfig(warmup_epochs=10, per=per)
    assert schedule.factor(step, 1251, 100, 125100) == pytest.approx(factor, abs=1e-7)


def test_moco_has_no_warmup_and_moves_by_the_epoch():
    factors = [ScheduleConfig().factor(step, 5, 200, 1000) for step in range(1000)]
    expected = [0.5 * (1 + math.cos(math.pi * (step // 5) / 200)) for step in range(1000)]
    assert factors == pytest.approx(expected, rel=1e-12)


RUNS = st.tuples(st.integers(2, 400), st.integers(1, 50)).flatmap(
    lambda run: st.tuples(st.just(run[0]), st.just(run[1]), st.integers(0, run[0] - 1))
)


@given(RUNS, st.sampled_from(["step", "epoch"]))
def test_the_factor_rises_then_falls_within_bounds(run: tuple[int, int, int], per: Per):
    epochs, per_epoch, warmup = run
    schedule, steps = ScheduleConfig(warmup_epochs=warmup, per=per), epochs * per_epoch
    factors = [schedule.factor(step, per_epoch, epochs, steps) for step in range(steps)]
    top = warmup * per_epoch
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[top] == 1
    if per == "epoch":
        assert len(set(factors[top:])) <= epochs - warmup


def test_linear_warmup_ends_at_one():
    assert [linear_warmup(step, 2, 2) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert linear_warmup(0, 2, 0) == 1


def test_step_decay_at_the_milestones():
    factors = [step_decay(epoch * 7 + 6, 7, (30, 40), 0.1) for epoch in (0, 29, 30, 39, 40, 49)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("progress", "momentum"), [(0, 0.98), (0.25, 0.9829289321881345), (0.5, 0.99), (1, 1.0)])
def test_momentum_of_lewel_b(progress: float, momentum: float):
    assert ema_momentum(progress, 0.98) == pytest.approx(momentum, rel=1e-14)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_momentum_stays_between_its_ends(progress: float, start: float, end: float):
    momentum = ema_momentum(progress, start, end)
    assert min(start, end) - 1e-12 <= momentum <= max(start, end) + 1e-12
    assert ema_momentum(progress, start, start) == pytest.approx(start, abs=1e-12)
    assert ema_momentum(progress, start) == pytest.approx(1 - (1 - start) * cosine(progress), abs=1e-12)
