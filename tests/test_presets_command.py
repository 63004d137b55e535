"""The command line of a protocol with presets: every number can be said, and what is wrong is told in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import labelled_runs
import pytest
import runs
from scripts import script

from ssl_backbones.evaluate.presets import read_preset
from ssl_backbones.evaluate.protocols import finetune, linear, semi

SAID = ["resnet8", "--data", "photos", "--out", "run"]


def parsed(*words: str, presets: Any = linear.PRESETS) -> Any:
    return read_preset(presets, [*SAID, *words], "evaluate.py linear", "What it does.")


def test_the_first_preset_is_the_usual_one() -> None:
    made = parsed()
    assert (made.model, made.data, made.out, made.protocol) == ("resnet8", "photos", "run", "linear (moco_v2)")
    assert made.optimizer == linear.MOCO.optimizer


@pytest.mark.parametrize("words", [["--preset", "lewel_m"], ["--preset=lewel_m"]])
def test_a_preset_is_named(words: list[str]) -> None:
    assert parsed(*words).optimizer == linear.PRESETS["lewel_m"].optimizer


def test_every_number_can_be_said() -> None:
    made = parsed(
        *["--preset", "lewel_b", "--optimizer.lr", "3", "--batch-size", "64", "--task.views.area", "0.2", "0.9"],
        *["--task.classes", "12", "--task.head_std", "None", "--task.views.no_augment", "--schedule.decay", "0.5"],
        *["--random", "--size", "64", "--precision", "auto", "--judge_every", "2", "--seed", "4"],
    )
    assert (made.optimizer.lr, made.batch_size, made.peak_lr) == (3.0, 64, 0.75)
    assert (made.task.classes, made.task.head_std, made.task.views.area) == (12, None, (0.2, 0.9))
    assert (made.task.views.augment, made.schedule.decay, made.random, made.size) == (False, 0.5, True, 64)
    assert (made.precision, made.judge_every, made.seed) == ("auto", 2, 4)
    assert made.schedule.milestones == (30, 40)


def test_milestones_follow_the_epochs_unless_they_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed("--epochs", "20").schedule.milestones == (12, 16)
    assert "Of 20 epochs instead of 100, the milestones (60, 80) are (12, 16)." in capsys.readouterr().out
    assert parsed("--epochs", "1").schedule.milestones == ()
    assert parsed("--epochs", "90", "--schedule.milestones", "60", "80").schedule.milestones == (60, 80)
    assert parsed("--epochs", "20", "--preset", "patch").schedule.milestones == ()


def test_what_belongs_to_one_protocol_is_known_to_it() -> None:
    assert parsed("--task.hidden", "9", presets=finetune.PRESETS).task.hidden == 9
    made = parsed("--subset", "list.txt", "--share", "0.2", "--optimizer.backbone_lr", "0.5", presets=semi.PRESETS)
    assert (made.subset, made.share, made.optimizer.backbone_lr) == ("list.txt", 0.2, 0.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["linear"], "the MODEL is missing: a registered name"),
        (["linear", "--data", "photos", "--out", "run"], "the MODEL is missing"),
        (["linear", "resnet8", "--out", "run"], "--data is missing"),
        (["linear", "resnet8", "--data", "photos"], "--out is missing"),
        (["linear", *SAID, "--preset", "moco"], "--preset is moco, but must be one of moco_v2, lewel_m"),
        (["linear", *SAID, "--preset"], "--preset is left empty"),
        (
            ["linear", *SAID, "--optimizer.lrr", "1"],
            "is no option of evaluate.py linear; the nearest: --optimizer.lr",
        ),
        (["linear", *SAID, "--epochs", "many"], "--epochs is many, but must be a whole number."),
        (["linear", *SAID, "--epochs", "0"], "epochs is 0, but must be at least 1."),
        (["linear", *SAID, "--task.views.area", "2", "3"], "area is (2.0, 3.0)"),
        (["semi", *SAID, "--share", "7"], "share is 7.0, but must be above 0 and at most 1."),
        (["finetune", *SAID, "--preset", "moco_v2"], "--preset is moco_v2, but must be one of patch."),
        (["linaer", *SAID], "'linaer' is no protocol; the nearest: linear"),
    ],
)
def test_what_cannot_be_read_ends_in_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        script("evaluate", words)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert sentence in said
    assert said.startswith("evaluate.py")
    assert said.count("\n") == 1


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        script("evaluate", ["linear", "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    for word in ("--preset", "moco_v2, lewel_m, lewel_b, flags, patch", "--optimizer.lr", "--task.views.area"):
        assert word in said
    assert "--weights" not in said


def test_the_command_runs_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = labelled_runs.divided(tmp_path / "photos")
    words = ["linear", "resnet8", "--random", "--data", str(data), "--size", "16", "--batch-size", "9", "--epochs", "1"]
    words += ["--workers", "0"]
    runs.forget()
    script("evaluate", [*words, "--out", str(tmp_path / "run")])
    assert "top-1" in capsys.readouterr().out
    assert (tmp_path / "run" / "results.json").exists()
    with pytest.raises(SystemExit) as end:
        script("evaluate", [*words, "--out", str(tmp_path / "other"), "--task.classes", "2"])
    assert end.value.code == 2
    assert "3 classes and the head tells 2 apart" in capsys.readouterr().err
    runs.forget()
