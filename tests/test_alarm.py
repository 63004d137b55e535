"""The alarms speak once when a run learns nothing, once when it does again, and never about a healthy one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.train.alarm import Alarm, ChanceAlarm, CollapseAlarm

MOCO = math.log(65537)
PER_EPOCH = 1251
LEWEL_B = {
    0: 0.804,
    1: 0.785,
    2: 0.624,
    5: 0.660,
    10: 0.663,
    20: 0.684,
    30: 0.674,
    40: 0.631,
    50: 0.585,
    60: 0.520,
    70: 0.448,
    80: 0.375,
    90: 0.323,
    99: 0.308,
}
"""Epoch means of the loss in the published log of LEWEL_B, 100 epochs of 1251 steps."""


def spoken(alarm: Alarm, values: Iterable[tuple[int, dict[str, float]]]) -> list[tuple[int, str]]:
    """The alarm's sentence, and the step it comes after."""
    said = ((step, alarm.observe(step, seen)) for step, seen in values)
    return [(step, sentence) for step, sentence in said if sentence is not None]


def losses(
    total: int, loss: Callable[[int], float], chance: float, every: int = 1
) -> list[tuple[int, dict[str, float]]]:
    """A run's loss, with the noise of batches."""
    noise = np.random.default_rng(0).normal(0, 0.02, total + 1)
    return [(step, {"loss": loss(step) + noise[step], "chance": chance}) for step in range(1, total + 1, every)]


def seldom(total: int) -> int:
    """The steps between two looks at a run of some length."""
    return 1 if total < 10_000 else 10


def lewel_b(step: int) -> float:
    """The loss of the published log: 4 at first, down to 0.10 at step 150, and then the means of the epochs."""
    start = np.interp(step, [0, 50, 150, 300, 600], [4.0, 0.8, 0.10, 0.5, 0.804])
    epochs = np.interp(step / PER_EPOCH, list(LEWEL_B), list(LEWEL_B.values()))
    return float(start if step < 600 else epochs)


@pytest.mark.parametrize("chance", [2.0, 4.0])
@pytest.mark.parametrize("epochs", [1, 3, 100])
def test_lewel_b_as_published_is_healthy(epochs: int, chance: float) -> None:
    total = epochs * PER_EPOCH
    every = 1 if epochs < 10 else 10
    assert spoken(ChanceAlarm(total), losses(total, lewel_b, chance, every)) == []
    # In the dip the features close up: two views agree because all images do.
    open_by = {
        step: float(np.interp(step, [0, 50, 150, 300], [1, 0.4, 0.001, 1])) for step in range(1, total + 1, every)
    }
    spread = [(step, {"std": 0.6 * share, "rank": 1 + 200 * share}) for step, share in open_by.items()]
    assert sum(seen["std"] < 0.06 for _, seen in spread) * every > 20, "the dip is there to be seen"
    assert spoken(CollapseAlarm(total), spread) == []


@pytest.mark.parametrize("total", [500, 4000, 40000])
@pytest.mark.parametrize("start", [0.9, 1.0, 1.1])
def test_moco_leaves_chance_in_time(total: int, start: float) -> None:
    def loss(step: int) -> float:
        return MOCO * (0.6 + (start - 0.6) * math.exp(-step / (total / 40)))

    assert spoken(ChanceAlarm(total), losses(total, loss, MOCO, seldom(total))) == []


@pytest.mark.parametrize("total", [1000, 4000, 40000])
@pytest.mark.parametrize("level", [0.99, 1.0, 1.05, 1.5])
@pytest.mark.parametrize("chance", [MOCO, math.log(4097), math.log(4)])
def test_a_loss_at_chance_is_said_once(total: int, level: float, chance: float) -> None:
    (said,) = spoken(ChanceAlarm(total), losses(total, lambda step: level * chance, chance, seldom(total)))
    step, sentence = said
    assert 400 <= step <= max(402, total / 10 + 2)
    assert f"{chance:.3f}" in sentence
    for cause in ("learning rate", "augmentations", "temperature", "normalised", "frozen"):
        assert cause in sentence


def test_recovery_and_relapse_are_said() -> None:
    def loss(step: int) -> float:
        return MOCO if step < 3000 or 5000 <= step < 8000 else 0.7 * MOCO

    said = spoken(ChanceAlarm(10000), losses(10000, loss, MOCO))
    assert ["has been at chance" in sentence for _, sentence in said] == [True, False, True, False]
    assert all("has left chance" in said[index][1] for index in (1, 3))
    steps = [step for step, _ in said]
    assert steps == sorted(steps)
    assert 3000 < steps[1] < 3300
    assert 5500 <= steps[2] < 6000


def test_a_loss_at_the_edge_does_not_flutter() -> None:
    said = spoken(ChanceAlarm(4000), losses(4000, lambda step: MOCO * (0.98 + 0.015 * math.sin(step / 300)), MOCO))
    assert len(said) <= 1


def test_a_short_stop_at_chance_is_not_mentioned() -> None:
    stop = losses(10000, lambda step: MOCO if 2000 <= step < 2300 else 0.8 * MOCO, MOCO)
    assert spoken(ChanceAlarm(10000), stop) == []


def test_short_runs_are_not_judged() -> None:
    assert spoken(ChanceAlarm(300), losses(300, lambda step: MOCO, MOCO)) == []


@pytest.mark.parametrize("values", [{"loss": 4.0}, {"chance": 1.0}, {"loss": math.nan, "chance": 1.0}, {}])
def test_what_cannot_be_judged_is_not(values: dict[str, float]) -> None:
    alarm = ChanceAlarm(1000)
    assert spoken(alarm, [(step, values) for step in range(1000)]) == []
    assert alarm.state["running"] is None
    assert spoken(CollapseAlarm(1000), [(step, values) for step in range(1000)]) == []


@pytest.mark.parametrize("every", [1, 7, 50])
def test_how_often_it_looks_hardly_matters(every: int) -> None:
    (said,) = spoken(ChanceAlarm(8000), losses(8000, lambda step: MOCO, MOCO, every))
    assert 800 <= said[0] <= 800 + 2 * every


HEALTHY = {"std": 0.6, "rank": 200.0}
COLLAPSES = {
    "one point": {"std": 0.001, "rank": 1.1},
    "few dimensions": {"std": 0.97, "rank": 7.9},
    "std alone": {"std": 0.001},
    "rank alone": {"rank": 1.1},
}


@pytest.mark.parametrize("collapse", COLLAPSES)
def test_a_collapse_that_lasts_is_said_once_and_so_is_its_end(collapse: str) -> None:
    values = COLLAPSES[collapse]
    start = {name: HEALTHY[name] for name in values}
    run = [(step, start if step == 0 or step >= 3000 else values) for step in range(0, 4000, 10)]
    said = spoken(CollapseAlarm(4000), run)
    assert len(said) == 2
    assert said[0][0] == 400
    assert "have been collapsed for 390 steps" in said[0][1]
    assert "learning rate" in said[0][1]
    assert said[1] == (3000, said[1][1])
    assert "spread out again" in said[1][1]


def test_a_network_collapsed_from_the_start_is_noticed() -> None:
    (said,) = spoken(CollapseAlarm(4000), [(step, {"std": 0.0, "rank": 1.0}) for step in range(4000)])
    assert said[0] == 400


def test_few_looks_are_enough() -> None:
    run = [(0, HEALTHY), (1251, COLLAPSES["one point"]), (2502, COLLAPSES["one point"])]
    assert [step for step, _ in spoken(CollapseAlarm(20000), run)] == [2502]


def test_a_healthy_network_that_narrows_is_left_alone() -> None:
    run = [(step, {"std": 0.62 - step / 10000, "rank": 215 * math.exp(-step / 3000)}) for step in range(4000)]
    assert spoken(CollapseAlarm(4000), run) == []


@given(
    seed=st.integers(0, 99),
    stopped=st.integers(1, 1500),
    kind=st.sampled_from([ChanceAlarm, CollapseAlarm]),
)
def test_an_alarm_resumed_judges_as_one_never_stopped(seed: int, stopped: int, kind: type[Alarm]) -> None:
    draw = np.random.default_rng(seed)
    level = np.repeat(draw.choice([0.01, 0.5, 1.0], 5), 300)
    run = [
        (2 * step, {"loss": 5 * level[step], "chance": 5.0, "std": 1.0 - 0.999 * level[step], "rank": 9.0})
        for step in range(1500)
    ]
    never, before, after = kind(3000), kind(3000), kind(3000)
    said = spoken(never, run)
    first = spoken(before, run[:stopped])
    after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
    assert first + spoken(after, run[stopped:]) == said
    assert after.state_dict() == never.state_dict()


def test_a_state_of_another_alarm_is_refused() -> None:
    with pytest.raises(ValueError, match="the state of CollapseAlarm has"):
        CollapseAlarm(100).load_state_dict(ChanceAlarm(100).state_dict())
