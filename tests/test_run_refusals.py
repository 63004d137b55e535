"""A run that cannot be is refused in a sentence, and leaves the folder as it was."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
import runs
import torch
from runs import image_folder, run, tiny
from scripts import script
from warm_processes import line_of, start_program
from whole_runs import data

from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.runs import checkpoint
from ssl_backbones.train import prepare as prepare_module
from ssl_backbones.train.guards import NotFiniteError
from ssl_backbones.train.loop import Loop

__all__ = ["data"]


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which a command line ends."""
    monkeypatch.setattr(Loop, "train", lambda *_: pytest.fail("it began to work"))
    runs.forget()
    with pytest.raises(SystemExit) as end:
        script("pretrain", words)
    runs.forget()
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    assert said.count("\n") == 0, said
    return said


SMALL = "--size 16 --batch-size 8 --epochs 3 --method.bn-splits 2 --workers 0"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("resnet8_byoll", "'resnet8_byoll' is not a recipe"),
        ("--epoch 3", "--epoch is no option of pretrain.py sample; the nearest: --epochs"),
        ("--epochs three", "--epochs is three, but must be a whole number"),
        ("--epochs 0", "epochs is 0, but must be at least 1"),
        ("resnet50_byol.in1k_200ep", "has no data here: name a folder"),
    ],
)
def test_a_command_that_makes_no_run(
    words: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(words.split(), monkeypatch, capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--data nowhere", "'nowhere' does not exist"),
        ("--data empty", "there is no image in"),
        ("--batch-size 32", "26 images are fewer than the batch of 32"),
        ("--accumulation 8 --batch-size 12", "accumulation is 8, but must be a divisor of the batch size, 12"),
        ("--validation nowhere", "'nowhere' does not exist"),
        ("--precision fp16", "this cpu device does not train in fp16; use bf16, fp32 or auto"),
        ("--out mine/list.txt --method.queue-size 16", "mine/list.txt cannot be written to"),
        ("--out mine --method.queue-size 16", "mine is not a run's folder"),
        ("--out photos/bag/run --method.queue-size 16", "'photos/bag/run' lies in the folder of images 'photos'"),
        ("--model resnet9_lewel_m", "no model, and no folder, is called 'resnet9_lewel_m'"),
        ("--model resnet20_byol", "model is 'resnet20_byol', but must be resnet20_lewel_m"),
        ("--method.groups 3", "groups=3 must divide projection_dim=64"),
        ("--method.groups 128 --method.projection_dim 128", "groups=128 must divide the backbone's width=64"),
        ("--trackers tensorbored", "'tensorbored' cannot track the run (Accelerate knows no such tracker)"),
        ("--trackers clearml", "'clearml' cannot track the run (its package is not installed)"),
        ("--method.bn-splits 16 --method.queue-size 16", "8 cannot be normalised in 16 groups: lower bn_splits"),
    ],
)
def test_a_run_that_cannot_work_is_refused_in_a_sentence(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "list.txt").write_text("of mine")
    monkeypatch.chdir(tmp_path)
    usual = [*SMALL.split(), "--data", "photos", "--out", "run"]
    assert sentence in refused([*usual, *words.split()], monkeypatch, capsys)
    assert not any((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_is_closed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    words = [*SMALL.split(), "--data", str(data), "--out", str(tmp_path / "closed" / "run")]
    assert "cannot be written to" in refused(words, monkeypatch, capsys)


def test_processes_that_cannot_share_the_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare_module, "world_size", lambda: 3)
    words = [*SMALL.split(), "--data", str(data), "--out", str(tmp_path / "run")]
    said = refused(words, monkeypatch, capsys)
    assert "a batch of 8 images cannot be shared evenly by 3 processes" in said
    assert not (tmp_path / "run").exists()


def test_a_mistake_does_not_take_the_folder(data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    with pytest.raises(prepare_module.UnfitError):
        run(dataclasses.replace(recipe, model="resnet9_byol"))
    run(recipe)


def test_another_process_in_the_folder_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holding = "import sys, time; from ssl_backbones.runs.run_folder import claim"
    holding += "; claim(sys.argv[1], {}); print('held', flush=True); time.sleep(3600)"
    other = start_program(holding, tmp_path / "run", said=[tmp_path / "said"] * 2)
    try:
        assert line_of(other, tmp_path / "said") == "held"
        words = [*SMALL.split(), "--method.queue-size", "16", "--data", str(data), "--out", str(tmp_path / "run")]
        assert f"is in use by process {other.pid}" in refused(words, monkeypatch, capsys)
    finally:
        other.kill()


@pytest.mark.parametrize("where", ["loss", "weights"])
def test_numbers_that_are_none_end_the_run_and_are_not_saved(
    where: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run", checkpoints=Checkpoints(1, 0), log_every=100)

    def poison() -> None:
        next(iter(loops[0].method.parameters())).data.view(-1)[0] = torch.nan

    loops: list[Loop] = []
    train = Loop.train
    monkeypatch.setattr(Loop, "train", lambda loop, log: (loops.append(loop), train(loop, log))[1])
    if where == "loss":
        recipe = dataclasses.replace(recipe, log_every=1, checkpoints=Checkpoints(0, 0))
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with runs.after(2 if where == "weights" else 1, poison), pytest.raises(NotFiniteError, match="lower learning rate"):
        run(recipe)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    left = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert left is not None
    assert all(tensor.isfinite().all() for named in left.tensors.values() for tensor in named.values())
    assert left.step == (1 if where == "weights" else 0)
