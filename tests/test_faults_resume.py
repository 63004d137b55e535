"""Runs killed from outside and started again; the commands that show it; secrets that stay where they are."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import fuzz_reader
import kill_and_resume
import pytest
import torch
from conftest import ROOT
from interrupt_and_resume import KINDS, TRIALS
from runs import elsewhere, outcome, run, run_whole, stop, tiny
from small_methods import CONFIGS, STANDING
from warm_processes import run_script
from whole_runs import data

from ssl_backbones.cores import VARIABLE
from ssl_backbones.files import write_file
from ssl_backbones.methods import LewelBConfig, LewelMConfig
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.runs import checkpoint, saving

__all__ = ["data"]

TOKEN = "hf_ThisIsNoTokenThatAnybodyHas0000"


@pytest.mark.slow
def test_a_run_killed_at_random_moments_leaves_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    words = ["--kills", "2", "--methods", "lewel_m", "--workers", "0", "--processes", "1", "--out"]
    done = run_script(ROOT / "tests" / "kill_and_resume.py", *words, str(tmp_path / "kills.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "kills.json").read_text())
    assert done.stdout.splitlines()[-1] == "survived 2/2"
    assert (written["kills"], written["survived"], sum(written["where"].values())) == (2, 2, 2)


def test_every_method_was_killed_and_survived() -> None:
    """The record of the full trial: over all methods of its day, with and without workers, on one process and two."""
    path = ROOT / "benchmarks" / "results" / "kill_and_resume.json"
    written = json.loads(path.read_text())
    assert written["kills"] >= 100
    assert written["survived"] == written["kills"] == sum(len(one["struck"]) for one in written["trials"])
    assert STANDING <= written["by_method"].keys() <= {kind.name for kind in CONFIGS}
    assert f"; {len(written['by_method'])} methods |" in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert min(written["by_method"].values()) > 0
    assert min(written["by_workers"].values()) > 0
    assert min(written["by_processes"].values()) > 0
    moments = {"inside a checkpoint write", "inside k-NN", "at the epoch's edge", "between steps"}
    assert moments <= written["where"].keys()


def test_every_kind_of_signal_was_survived() -> None:
    """The record of the runs that were interrupted by signals: every one of the last series, and the one before it."""
    written = json.loads((ROOT / "benchmarks" / "results" / "kill_and_resume.json").read_text())
    for series, identical in (("interrupted_before", 63), ("interrupted", 66)):
        each = written[series]["each"]
        made = {(one["kind"], one["number"]) for one in each}
        assert made == {(kind, number) for kind in KINDS for number in range(TRIALS)}
        assert sum(one["identical"] for one in each) == written[series]["identical"] == identical
        assert written[series]["signals"] >= 200


@pytest.fixture(scope="module")
def alike(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of one recipe."""
    folder = tmp_path_factory.mktemp("alike")
    recipe = tiny(LewelBConfig, data, folder / "one", checkpoints=Checkpoints(2, 0))
    run(recipe)
    run(elsewhere(recipe, folder / "two"))
    return folder


@pytest.mark.parametrize("damage", [None, "log", "weights", "scalars"])
def test_the_comparison_of_two_runs_sees_a_difference(damage: str | None, alike: Path, tmp_path: Path) -> None:
    shutil.copytree(alike, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "two" / "checkpoints" / "step-00000006"
    if damage == "log":
        log = tmp_path / "two" / "log.jsonl"
        write_file(log, log.read_bytes() + log.read_bytes().splitlines(keepends=True)[-1])
    elif damage:
        saved = checkpoint.load_latest(newest.parent)
        assert saved is not None
        parts = saved.tensors
        if damage == "weights":
            parts["method"]["backbone.conv1.weight"].view(-1).view(torch.int32)[0] ^= 1
        scalars = saved.scalars | ({"images": "others"} if damage == "scalars" else {})
        saving.set_aside(newest)
        saving.save(newest.parent, 6, parts, scalars, own=saved.own)
    one, two = (kill_and_resume.outcome(tmp_path / name) for name in ("one", "two"))
    expected = {"log": ["log.jsonl"], "weights": ["method.safetensors"], "scalars": ["scalars"], None: []}
    assert kill_and_resume.differences(one, two) == expected[damage]


@pytest.fixture
def three_ticks_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock for the fuzzer that goes on by a millisecond whenever it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(fuzz_reader, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 1000))


@pytest.mark.usefixtures("three_ticks_a_file")
def test_fuzzing_the_reader_finds_nothing(tmp_path: Path) -> None:
    found = fuzz_reader.fuzz(minutes=0.03, seed=7, keep=tmp_path / "found")
    assert found["wrong"] == 0
    assert found["answers"].keys() == {"read", "refused"}
    assert found["files"] > 100
    assert not (tmp_path / "found").exists()


@pytest.mark.usefixtures("three_ticks_a_file")
def test_fuzzing_would_find_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_reader, "decode", lambda *_: [][0])
    found = fuzz_reader.fuzz(minutes=0.001, seed=7, keep=tmp_path / "found")
    assert found["answers"] == {"raised IndexError": found["wrong"]}
    assert len(list((tmp_path / "found").iterdir())) == found["files"]


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(LewelMConfig, data, tmp_path / "run")
    monkeypatch.setenv(VARIABLE, "2")
    stop(recipe, 3)
    monkeypatch.setenv(VARIABLE, "1")
    run(recipe)
    assert torch.get_num_threads() == 2
    said = capsys.readouterr().out
    assert said.count("(cpu, 2 threads)") == 2
    assert "bit-identical" not in said
    torch.set_num_threads(1)


def test_no_token_is_in_anything_a_run_leaves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, TOKEN)
    recipe = tiny(LewelMConfig, data, tmp_path / "run")
    stop(recipe, 2)
    run_whole(recipe)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [str(path) for path in files if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in "".join(capfd.readouterr())
    assert outcome(tmp_path / "run")
