"""The benchmarks' own commands in their quick way, and the arithmetic of what they report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn
from warm_processes import run_script

sys.path.append(str(ROOT / "benchmarks"))
import aligned_cost
import collectives
import method_steps
import steps
import timing

CIRCUMSTANCES = {"hardware", "bf16_units", "cores", "threads", "load_before", "date", "python", "versions", "rounds"}


def quick(name: str, out: Path, *words: str) -> tuple[dict[str, Any], str]:
    """The results and the output of a benchmark in its quick way."""
    done = run_script(ROOT / "benchmarks" / f"{name}.py", "--quick", "--out", out, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    written: dict[str, Any] = json.loads(out.read_text())
    assert set(written) >= CIRCUMSTANCES
    return written, done.stdout


def test_steps_are_held_against_bare_passes_and_bases(tmp_path: Path) -> None:
    written, said = quick(
        "method_steps", tmp_path / "steps.json", "--rounds", "2", "--layout", "contiguous", "--precision", "fp32"
    )
    rows = {row["method"]: row for row in written["measured"][0]["methods"]}
    assert set(rows) == set(method_steps.PAIRED)
    both, target = "forward and backward", "forward alone, averaged BN"
    assert rows["byol"]["passes"] == rows["lewel_b"]["passes"] == {both: 16, target: 16}
    assert rows["moco_v2"]["passes"] == {both: 8, "forward alone, batch BN": 8}
    assert rows["flags"]["passes"] == {both: 8, "forward alone, batch BN": 40}
    for row in rows.values():
        assert row["ms"]["q1"] <= row["ms"]["median"] <= row["ms"]["q3"]
        assert row["memory_mb"]["step"] > 0
    assert {name for name, row in rows.items() if "to_base" in row} == {"lewel_b", "lewel_m", "flags"}
    assert "x moco_v2" in said


def test_distilling_from_kept_features_is_held_against_bare_passes(tmp_path: Path) -> None:
    written, said = quick("distillation", tmp_path / "distillation.json", "--rounds", "2")
    assert [row["case"] for row in written["steps"]] == ["quick"]
    assert [row["images"] for row in written["keeping"]] == [16]
    for row in (*written["steps"], *written["keeping"]):
        assert row["to_bare"]["median"] > 0.5
    assert len(written["verdicts"]) == 2
    assert "keeping / bare forward" in said


def test_targets_are_moved_in_three_ways(tmp_path: Path) -> None:
    written, said = quick("ema", tmp_path / "ema.json", "--rounds", "2")
    (row,) = written["measured"]
    assert set(row["ms"]) == {"ours", "state dict", "in place"}
    assert row["numbers"] > 70_000
    assert "times as fast as by state dict" in said


def test_the_aligned_branch_is_measured_knob_by_knob(tmp_path: Path) -> None:
    written, said = quick("aligned_cost", tmp_path / "cost.json", "--rounds", "2")
    assert [row["knob"] for row in written["measured"]] == list(aligned_cost.KNOBS)
    for row in written["measured"]:
        assert row[row["knob"]] == 2 * written["middle"][row["knob"]]
        assert row["lewel_m"]["extra_kb_per_image"] > 0
    assert "queue" in said


@pytest.mark.slow
def test_starts_on_images_that_are_made_up(tmp_path: Path) -> None:
    out = tmp_path / "starts.json"
    done = run_script(ROOT / "benchmarks" / "starts.py", "--images", "3000", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    written: dict[str, Any] = json.loads(out.read_text())
    assert set(written) >= CIRCUMSTANCES
    found = written["measured"]["3000"]
    assert list(found) == ["first start", "second start", "listing of one folder"]
    assert all(one["bytes_per_image"] > 0 for one in found.values())


@pytest.mark.slow
def test_deterministic_steps_are_held_against_plain_ones(tmp_path: Path) -> None:
    written, said = quick("deterministic", tmp_path / "deterministic.json", "--rounds", "2", "--methods", "byol")
    (row,) = written["measured"][0]["methods"]
    for way in ("deterministic_to_plain", "unfilled_to_plain"):
        assert 0 < row[way]["q1"] <= row[way]["median"] <= row[way]["q3"]
    assert "memory not filled" in said


@pytest.mark.slow
def test_views_of_large_images_are_held_against_pillows(tmp_path: Path) -> None:
    written, said = quick("large_images", tmp_path / "large.json", "--rounds", "2")
    assert [row["kind"] for row in written["measured"]] == ["sharp", "soft"]
    for row in written["measured"]:
        assert set(row["ms_per_image"]) == {"pillow", "all pixels", "opencv", "kept"}
        assert row["levels"]["all pixels"]["mean"] < row["levels"]["opencv"]["mean"] < 1
    assert "CPU time per image" in said


@pytest.mark.slow
def test_a_whole_run_is_held_against_another_loop(tmp_path: Path) -> None:
    written, _ = quick("end_to_end", tmp_path / "run.json", "--rounds", "2", "--steps", "6")
    (row,) = written["measured"]
    assert row["whole"]["steps"] == 5
    assert 0 <= row["whole"]["waited_share"] < 1
    assert set(row["against"]["ratios"]) >= {"ours bf16 / bare bf16", "ours fp32 / bare fp32"}
    assert len(written["verdicts"]) == 3
    assert written["data"] == "train.parquet"


@pytest.mark.slow
def test_collectives_are_counted_and_worked_out(tmp_path: Path) -> None:
    methods = ["byol", "moco_v2", "lewel_m", "flags"]
    written, _ = quick("collectives", tmp_path / "calls.json", "--batch", "8", "--methods", *methods)
    rows = {row["method"]: row for row in written["measured"]}
    assert list(rows) == methods

    def called(name: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for call in rows[name]["counted"]:
            found[call["caller"]] = found.get(call["caller"], 0) + call["times"]
        return found

    assert called("byol") == {collectives.GRADIENTS: 1, "StopSignals.ask": 1}
    assert called("moco_v2") == called("byol") | {"gather": 1}  # the keys
    assert called("lewel_m") == called("byol") | {"gather": 2}
    images = 8 * 3 * 16 * 16  # as levels; no process sends any
    for row in (rows["moco_v2"], rows["flags"]):
        assert max(call["payload_bytes"] for call in row["counted"] if call["caller"] == "gather") < images


def test_bytes_grow_with_processes_as_the_formulas_say() -> None:
    calls = [
        ("gather", "all_gather", 100, 2),
        ("same_permutation", "broadcast", 16, 1),
        (collectives.GRADIENTS, "all_reduce", 1000, 3),
    ]
    found = collectives.extrapolated(calls, 8)
    assert found["calls"] == 3
    assert found["megabytes"] == pytest.approx((2 * 7 * 100 + 16 * 4) / 1e6, abs=1e-3)
    assert found["of_gradients"]["calls"] == 3
    assert collectives.received("all_reduce", 1000, 2) == 1000
    norms = {"calls": [("AllReduceSum.forward", "all_reduce", 4, 9)], "norms": [(5, True, 2), (7, False, 1)]}
    assert collectives.on_gpus(norms) == [
        ("SyncBatchNorm.forward", "all_gather", 44, 2),
        ("SyncBatchNorm.backward", "all_reduce", 40, 2),
        ("SyncBatchNorm.forward", "all_gather", 60, 1),
    ]


@pytest.mark.parametrize(
    ("reached", "target", "at_most", "met", "missed_by"),
    [(1.03, 1.04, True, True, "0.0%"), (1.10, 1.00, True, False, "10.0%"), (1.2, 1.6, False, False, "25.0%")],
)
def test_a_target_is_kept_or_missed_by_a_share(
    reached: float, target: float, at_most: bool, met: bool, missed_by: str
) -> None:
    found = timing.verdict("a ratio", reached, target, at_most)
    assert (found["met"], found["missed_by"]) == (met, missed_by)


def test_ways_take_turns_at_going_first() -> None:
    seen: list[str] = []
    ticks = iter(np.arange(100.0))
    ways = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    seconds = timing.in_turn(ways, 3, lambda: float(next(ticks)))
    assert seen == list("abc" + "abc" + "bca" + "cab")
    assert {name: list(took) for name, took in seconds.items()} == {name: [1.0] * 3 for name in "abc"}


def test_bare_passes_are_those_asked_for() -> None:
    passes = (steps.Pass((4, 3, 16, 16), True, True), steps.Pass((4, 3, 16, 16), False, False))
    bare = steps.Bare(steps.QUICK, passes, steps.Compute("fp32", "contiguous", {}), torch.device("cpu"))
    seen: list[tuple[str, bool, bool]] = []

    def note(name: str, network: nn.Module) -> None:
        stem = network.get_submodule("conv1")
        stem.register_forward_pre_hook(lambda *_: seen.append((name, network.training, torch.is_grad_enabled())))

    note("online", bare.online)
    note("copy", bare.copy)
    before = [weights.clone() for weights in bare.online.parameters()]
    bare()
    assert seen == [("online", True, True), ("copy", False, False)]
    moved = [not torch.equal(old, new) for old, new in zip(before, bare.online.parameters(), strict=True)]
    assert any(moved)


def test_what_autograd_keeps_is_counted_once() -> None:
    weights, images = torch.ones(3, requires_grad=True), torch.ones(5, 3)

    def loss() -> torch.Tensor:
        squares = (images * weights).square()  # keeps images (60 bytes), weights and the product (60)
        return (squares * squares).sum()  # keeps the squares (60), twice

    assert aligned_cost.kept(loss, {weights.untyped_storage().data_ptr()}) == 180
    assert aligned_cost.kept(loss, set(aligned_cost.places(loss))) == 120
