"""The benchmarks that have minutes of a GPU: dry runs on a CPU, what they leave when cut, and their arithmetic."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

import pytest
import torch
from conftest import ROOT
from warm_processes import run_script

from ssl_backbones.typed.words import read

sys.path.append(str(ROOT / "benchmarks"))
import gpu
import gpu_quarter_hour
import gpu_runs
import gpu_steps
import limited
import needs
from gpu_runs import RunError, carried_out
from limited import Record, Row
from steps import QUICK


def small(name: str, out: Path, *words: object) -> dict[str, Any]:
    """The results of a benchmark's dry run, which has to succeed."""
    done = run_script(ROOT / "benchmarks" / f"{name}.py", "--small", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    written: dict[str, Any] = json.loads(out.read_text())
    assert (written["failed"], written["left_out"]) == ([], [])
    return written


def test_parts_without_training_run_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    written = small("gpu", out, "--only", "engines", "neighbours", "--out", out)
    assert set(written["parts"]) == set(written["took"]) == {"engines", "neighbours"}
    assert [row["views"] for row in written["parts"]["engines"]] == ["lewel_b", "moco_v2"]
    for row in written["parts"]["engines"]:
        assert row["largest_gap_in_levels"] == 0  # the same device twice
        assert row["views_ms"]["median"] > 0
    assert written["parts"]["neighbours"][1]["alike"] == 1


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    written = small("gpu", out, "--out", out, "--minutes", "60")
    assert set(written["parts"]) == set(gpu.NEEDS)
    assert [row["method"] for row in written["parts"]["waits"]] == list(gpu_steps.CONFIGS)
    rows = {row["method"]: row for row in written["parts"]["steps18"]}
    assert set(rows) == {"byol", "lewel_b", "moco_v2", "lewel_m"}
    for row in rows.values():
        assert row["peak_gb"] > row["held_gb"] > 0
    differences = [row["tensors_that_differ"] for row in written["parts"]["repeatability"][:4]]
    assert differences == [0] * 4
    resumed = {name: found for row in written["parts"]["resumed"] for name, found in row.items()}
    assert (
        resumed["straight on, twice"]["tensors_that_differ"] == resumed["from the middle"]["tensors_that_differ"] == 0
    )
    assert written["parts"]["nccl"][-1]["against a plain run"]["tensors_that_differ"] == 0
    assert len(written["parts"]["end_to_end"]) == 4
    assert len(written["parts"]["commands"]) == 8


@pytest.mark.slow
def test_a_quarter_of_an_hour_in_small_leaves_curves_weights_and_cards(tmp_path: Path) -> None:
    words = ("--teacher", "resnet8_byol.imagenette32_60ep", "--methods", "byol", "distilled")
    words += ("--minutes", "60", "--epochs_at_most", "3")  # whatever else the machine does
    written = small("gpu_quarter_hour", tmp_path / "quarter_hour.json", "--out", tmp_path, *words)
    assert {"trial byol", "trial distilled"} < set(written["parts"])
    assert written["epochs"] == 3
    for method in ("byol", "distilled"):
        (row,) = written["parts"][method]
        assert row["knn_curve"][-1][0] == row["epochs"] == written["epochs"]
        assert (tmp_path / method / "backbone" / "model.safetensors").is_file()
        assert (tmp_path / method / "README.md").is_file()


def test_a_benchmark_that_is_cut_leaves_every_row_before(tmp_path: Path) -> None:
    record = Record(tmp_path / "found.json", 1.0, {"device": "none"})
    seen: list[list[Row]] = []

    def counting() -> Iterator[Row]:
        for number in range(2):
            yield {"number": number}
            seen.append(json.loads((tmp_path / "found.json").read_text())["parts"]["counting"])

    def failing() -> Iterator[Row]:
        yield {"number": 2}
        raise RuntimeError("no such kernel")

    record.measure("counting", counting, needs=1)
    record.measure("failing", failing, needs=1)
    record.measure("too long", counting, needs=61)
    assert seen == [[{"number": 0}], [{"number": 0}, {"number": 1}]]
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["device"] == "none"
    assert written["parts"]["failing"] == [{"number": 2}]
    assert [one["error"] for one in written["failed"]] == ["RuntimeError: no such kernel"]
    assert written["left_out"] == ["too long"]
    assert set(written["took"]) == {"counting", "failing"}


def test_an_error_after_which_every_call_fails_is_written_and_ends_its_part_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path / "found.json", 1.0, {})
    written: list[int] = []

    def free() -> None:
        written.append(len(json.loads((tmp_path / "found.json").read_text())["failed"]))
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(limited, "free", free)
    for name in ("one", "other"):
        record.measure(name, lambda: iter([limited.caught({"what": "many"}, free)]), needs=1)
        record.measure(name, lambda: (free(), iter([]))[1], needs=1)
    assert written == [0, 1, 1, 2, 2, 3, 3, 4]
    assert [one["part"] for one in record.found["failed"]] == ["one", "one", "other", "other"]
    assert [row["what"] for name in ("one", "other") for row in record.rows(name)] == ["many", "many"]


@pytest.mark.parametrize("part", [gpu_steps.waits, gpu_steps.repeatability])
def test_a_method_that_fails_costs_no_other_its_row_and_few_images_are_enough(
    part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_steps, "CONFIGS", {"broken": object, "pcl": gpu_steps.CONFIGS["pcl"]})
    *_, broken, whole = part(gpu_steps.Machine(torch.device("cpu"), small=True))
    assert (broken["method"], whole["method"]) == ("broken", "pcl")
    assert broken["error"].startswith("TypeError")
    assert "error" not in whole


@pytest.mark.parametrize("deterministic", [False, True])
def test_steps_are_taken_under_the_switches_of_a_run(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(gpu_steps, "set_switches", lambda run, device: seen.append((run.deterministic, device.type)))
    with gpu_steps.ready("byol", QUICK, "fp32", deterministic=deterministic) as step:
        step()
    assert seen == [(deterministic, "cpu")]


@pytest.mark.parametrize("small", [False, True])
def test_commands_are_given_words_that_they_read(small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def only_read(words: list[str], left: float, environment: dict[str, str]) -> float:
        given.append(words[0])
        command = import_module(f"ssl_backbones.commands.{words[0]}")
        parse = getattr(command, "parse", None) or partial(read, command.Options, about="")
        parse(words[1:], words[0])
        return 0.0

    monkeypatch.setattr(gpu_runs, "carried_out", only_read)
    monkeypatch.setattr(gpu_runs, "read_log", lambda path: [])
    runs = gpu_runs.Runs(gpu_steps.Machine(torch.device("cpu"), small), tmp_path, lambda: 60.0)
    rows = list(runs.commands())
    assert [row for row in rows if "error" in row] == []
    assert given == ["pretrain"] * 6 + ["evaluate"] * 2 + ["embed"]


@pytest.mark.parametrize("over", [False, True])
def test_a_command_that_fails_or_is_not_over_leaves_its_last_words(over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"begun\n" * 1000 + b"no such kernel \xff"

    def instead(command: list[str], timeout: float, **kind: Any) -> CompletedProcess[bytes]:
        if not over:
            raise TimeoutExpired(command, timeout, output=said)
        return CompletedProcess(command, 2, said)

    monkeypatch.setattr(gpu_runs.subprocess, "run", instead)
    with pytest.raises(RunError, match="^exit code 2: " if over else "^not over after 20 s: ") as raised:
        carried_out(["evaluate", "knn"], 5.0, {})
    assert str(raised.value).endswith("no such kernel \N{REPLACEMENT CHARACTER}")
    assert gpu_runs.SAID < len(str(raised.value)) < limited.SAID


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("1.0.29", "timm is 1.0.29, and 1.0.30 or newer is wanted"),
        ("", "timm is not installed, and 1.0.30 or newer is wanted"),
        ("1.0.30", ""),
        ("1.1", ""),
        ("1.0.30+local.2", ""),
    ],
)
def test_a_package_that_is_absent_or_too_old_is_told_at_once(
    found: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if not found:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(needs, "version", version)
    assert needs.lacking({"timm": "1.0.30"}) == ([words] if words else [])


def test_epochs_fill_the_time_that_all_have() -> None:
    costs = [gpu_quarter_hour.Cost(10, 2, 1), gpu_quarter_hour.Cost(20, 3, 1)]
    epochs = gpu_quarter_hour.epochs_within(600, costs)
    assert sum(cost.of(epochs) for cost in costs) <= 600 < sum(cost.of(epochs + 1) for cost in costs)
    assert gpu_quarter_hour.epochs_within(0, costs) == gpu_quarter_hour.TRIAL
    assert gpu_quarter_hour.epochs_within(600, []) == gpu_quarter_hour.TRIAL


@pytest.mark.parametrize("failing", [("byol",), ("lewel_b",), ("byol", "lewel_b", "moco_v2")])
def test_a_method_that_fails_in_its_trial_costs_no_other_its_run(
    failing: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["byol", "lewel_b", "moco_v2"]

    def cost_of(method: str) -> gpu_quarter_hour.Cost:
        if method in failing:
            raise RuntimeError("no such kernel")
        return gpu_quarter_hour.Cost(1, 1, 1)

    monkeypatch.setattr(gpu_quarter_hour, "recipe_of", lambda method, *_: method)
    monkeypatch.setattr(gpu_quarter_hour, "cost_of", cost_of)
    monkeypatch.setattr(gpu_quarter_hour, "run_of", lambda method, *_: iter([{"method": method}]))
    record = Record(tmp_path / "found.json", 1.0, {})
    asked = Namespace(methods=methods, teacher="", epochs=0, epochs_at_most=0)
    gpu_quarter_hour.measure(asked, record)
    assert [one["part"] for one in record.found["failed"]] == [f"trial {name}" for name in failing]
    assert [name for name in methods if record.rows(name)] == [name for name in methods if name not in failing]


def test_targets_of_a_gpu_are_held_against_what_was_measured(tmp_path: Path) -> None:
    record = Record(tmp_path / "found.json", 1.0, {})
    assert gpu.verdicts(record) == []
    for part in ("steps50", "steps18"):
        for method, rate in (("byol", 1700), ("lewel_b", 1600), ("moco_v2", 3000)):
            times = {"ms": {"median": 256e3 / rate}, "bare_ms": {"median": 240e3 / rate}}
            record.note(part, {"method": method, "batch": 256, "images_per_second": rate, **times})
    record.note("engines", {"views": "lewel_b", "size": 64, "resident_views_ms": {"median": 16.0}})
    record.note("end_to_end", {"images_per_second": [900.0, 1600.0]})
    found = {one["what"]: (one["reached"], one["met"]) for one in gpu.verdicts(record)}
    assert found["byol, ResNet-50 at 224 px, images/s"] == (1700, True)
    assert found["moco_v2, ResNet-50 at 224 px, images/s"] == (3000, False)
    assert found["LEWEL_B's step to BYOL's, ResNet-50 at 224 px"] == (1.062, True)
    assert found["LEWEL_B end to end, the fastest engine, to its bare passes"] == (1.067, False)
    assert found["device views to LEWEL_B's step, ResNet-18 at 64 px"] == (0.1, True)
