"""The table at equal CPU cost: what a run costs is counted over a stop, and gains are paired image by image."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from runs import asked_to_stop, forget, image_folder, killed
from small_methods import leave_teacher

from ssl_backbones.metrics import paired_gain
from ssl_backbones.train.loop import Loop

sys.path.append(str(ROOT / "benchmarks"))
import equal_cost
import equal_cost_rows
import equal_cost_table


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> equal_cost_rows.Bench:
    """Two small sets, and two teachers of random weights."""
    for data in ("imagenette", "goods"):
        image_folder(tmp_path / data / "train", 80)
        image_folder(tmp_path / data / "val", 20)
    monkeypatch.setattr(equal_cost_rows, "TEACHERS", {name: {"teacher_size": 32} for name in ("lite0", "dinov2")})
    sets = {data: str(tmp_path / data) for data in ("imagenette", "goods")}
    teachers = {name: leave_teacher(tmp_path / name) for name in ("lite0", "dinov2")}
    return equal_cost_rows.Bench(sets, teachers, tmp_path / "out", budget=10)


def train(bench: equal_cost_rows.Bench, row: equal_cost_rows.Row, data: str = "imagenette") -> dict[str, Any]:
    forget()
    try:
        return equal_cost.trained(bench, row, data, 0, 2, 0.5)
    finally:
        forget()


def test_steps_are_counted_and_what_follows_the_last_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    file = tmp_path / "run.cpu.json"

    def go(first: int, last: int) -> None:
        saved: list[int] = []
        steps = SimpleNamespace(steps=range)
        loop: Any = SimpleNamespace(step=first, loader=steps, save=lambda: saved.append(loop.step))
        equal_cost_rows.Meter(loop, file)
        now[0] += 100  # measured before the first step
        loop.save()
        for _ in loop.loader.steps(first, last):
            now[0] += 3
            loop.step += 1
            loop.save()
        now[0] += 50  # measured after the last
        loop.save()
        assert saved == [*range(first, last + 1), last]

    go(0, 2)
    assert equal_cost_rows.spent(file) == {"0": 0, "1": 3, "2": 6}
    go(1, 4)  # killed behind the first step's checkpoint
    assert equal_cost_rows.spent(file) == {"0": 0, "1": 3, "2": 6, "3": 9, "4": 12}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_counting(bench: equal_cost_rows.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10_000, 7))
    monkeypatch.setattr(time, "process_time", lambda: float(next(ticks)))
    descend = Loop.descend

    def stopped(loop: Loop, batches: Any) -> None:
        descend(loop, batches)
        if loop.step == 1:
            asked_to_stop()

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "descend", stopped)
        with pytest.raises(SystemExit):
            train(bench, equal_cost_rows.SCRATCH)
    file = bench.run(equal_cost_rows.SCRATCH, "imagenette", 0)
    before = equal_cost_rows.spent(file.with_name(f"{file.name}.cpu.json"))
    assert before.keys() == {"0", "1"}
    assert 0 == before["0"] < before["1"]
    record = train(bench, equal_cost_rows.SCRATCH)
    assert record["steps"] == 2
    assert record["cpu_seconds"]["training"] == before["1"] + 7
    assert record["cpu_seconds"]["whole"] == record["cpu_seconds"]["training"] + 0.5
    assert len(bytes.fromhex(record["knn"]["right"])) == -(-record["of"] // 8)
    assert train(bench, equal_cost_rows.SCRATCH) == record


@pytest.mark.parametrize("row", [*equal_cost_rows.ROWS, *equal_cost_rows.LARGE], ids=lambda row: row.slug)
def test_every_row_is_a_recipe(row: equal_cost_rows.Row, bench: equal_cost_rows.Bench) -> None:
    made = bench.recipe(row, "goods", 3, 10)
    assert (made.epochs, made.seed, made.data, made.schedule.warmup_epochs) == (10, 3, bench.sets["goods"], 1)
    assert made.init == (str(bench.out / "runs" / "byol.imagenette.seed3") if row.begins_as else "")
    assert made.size == row.size == (64 if "resnet18" in made.model else 32)
    assert made.output_stride == (16 if "resnet18" in made.model else 0)
    assert getattr(made.method, "teacher", "") == bench.teachers.get(row.teacher, "")


@pytest.mark.slow
def test_the_whole_work_leaves_a_record_of_each_row_and_a_table(
    bench: equal_cost_rows.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(equal_cost, "TEACHERS", equal_cost_rows.TEACHERS)
    labels = ("BYOL", "BYOL, begun as the other set's", "Distilled, Lite0", "RoB by LEWEL_B, Lite0")
    rows = tuple(row for row in equal_cost_rows.ROWS if row.label in labels)
    monkeypatch.setattr(equal_cost, "ROWS", rows)
    assert equal_cost.work(bench, [0], 0, 0) == 0
    records = {path.name for path in (bench.out / "records").iterdir()}
    assert len(records) == 2 * (len(rows) + 3)
    monkeypatch.setattr(equal_cost, "trained", killed)
    assert equal_cost.work(bench, [0], 0, 0) == 0
    monkeypatch.setattr(sys, "argv", ["", str(bench.out / "records"), "--out", str(tmp_path / "table.json")])
    assert equal_cost_table.main() == 0
    assert (tmp_path / "table.png").exists()
    assert "| Distilled, Lite0 | BYOL |" in capsys.readouterr().out
    assert not any(str(tmp_path) in (bench.out / "records" / name).read_text() for name in records)


def test_rows_of_a_resnet18_are_held_to_random_weights_of_their_size(
    bench: equal_cost_rows.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: set[tuple[str, tuple[Any, ...]]] = set()
    found = {number: {"accuracy": 0.5} for number in equal_cost_table.NUMBERS}

    def draw(bench: equal_cost_rows.Bench, data: str, seed: int, *network: Any) -> dict[str, Any]:
        drawn.add((data, network))
        return found

    def costs(bench: equal_cost_rows.Bench, rows: tuple[equal_cost_rows.Row, ...], data: str) -> dict[str, Any]:
        return {row.recipe: {"epoch": 1.0, "before": 0.0} for row in rows}

    for name, instead in {
        "trained": lambda *_: found,
        "itself": lambda *_: found,
        "drawn": draw,
        "costs": costs,
    }.items():
        monkeypatch.setattr(equal_cost, name, instead)
    assert equal_cost.work(bench, [0], 60, 4) == 0
    deep, large = equal_cost_rows.DISTILLED18, equal_cost_rows.LARGE[0]
    sizes = {
        ("imagenette", deep): 64,
        ("goods", deep): 96,
        ("imagenette", large): 64,
    }
    networks = {(data, (str(bench.run(row, data, 0)), size)) for (data, row), size in sizes.items()}
    assert drawn == networks | {("imagenette", ()), ("goods", ())}
    labels = {record[0] for record in equal_cost_table.read(bench.out / "records")}
    assert labels == set(equal_cost_table.LABELS)


def record_of(right: np.ndarray, seed: int) -> dict[str, Any]:
    """A record with the same images right in both numbers."""
    cell = {"accuracy": float(right.mean()), "right": equal_cost.packed(torch.from_numpy(right))}
    return {"seed": seed, "of": len(right), "knn": cell, "linear": cell}


SMALL = {"value": 0.01, "low": -0.01, "high": 0.02, "by_seed": [0.01, -0.02, 0.03]}


def test_gains_are_paired_image_by_image() -> None:
    draw = np.random.default_rng(0)
    before = [draw.random(203) < 0.5 for _ in range(3)]
    after = [np.where(draw.random(203) < 0.9, one, ~one) for one in before]
    mine, theirs = ([record_of(one, seed) for seed, one in enumerate(side)] for side in (after, before))
    one = equal_cost_table.gain(mine[:1], theirs[:1], "knn")
    exact = paired_gain(torch.from_numpy(before[0]), torch.from_numpy(after[0]))
    assert one is not None
    assert (one["value"], one["low"], one["high"]) == (exact.value, exact.low, exact.high)
    three = equal_cost_table.gain(mine, theirs, "knn")
    assert three is not None
    apart = np.mean([np.subtract(*pair, dtype=float) for pair in zip(after, before, strict=True)], axis=0)
    of_seeds = np.std([a.mean() - b.mean() for a, b in zip(after, before, strict=True)], ddof=1) / np.sqrt(3)
    reach = np.hypot(1.971777 * apart.std(ddof=1) / np.sqrt(203), 4.302653 * of_seeds)
    assert three["value"] == pytest.approx(apart.mean())
    assert (three["low"], three["high"]) == pytest.approx((apart.mean() - reach, apart.mean() + reach), abs=1e-6)
    assert three["by_seed"] == pytest.approx([a.mean() - b.mean() for a, b in zip(after, before, strict=True)])
    assert equal_cost_table.gain(mine[:1], theirs[1:], "knn") is None
    assert equal_cost_table.points(SMALL) == "+1.0 [-1.0, 2.0] (+1.0, -2.0, +3.0)"


def test_seeds_that_disagree_show_no_gain() -> None:
    """However narrow their images make it."""
    draw = np.random.default_rng(0)
    before = [draw.random(4000) < 0.5 for _ in range(3)]
    changed = [draw.random(4000) < share for share in (0.05, 0.05, 0.06)]
    pairs = zip(before, changed, strict=True)
    after = [one | other if seed < 2 else one & ~other for seed, (one, other) in enumerate(pairs)]
    mine, theirs = ([record_of(one, seed) for seed, one in enumerate(side)] for side in (after, before))
    found = equal_cost_table.gain(mine, theirs, "knn")
    assert found is not None
    assert min(found["by_seed"]) < 0 < max(found["by_seed"])
    assert found["low"] < 0 < found["high"]
