"""Segmentation from the command line: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Killed, after, asked_to_stop, forget, killed, sha, state
from scenes import palette, parquet_folder, scene, voc_folder
from scripts import script
from two_processes import TORCHRUN

from ssl_backbones.commands import segment
from ssl_backbones.evaluate.segmentation.iou import iou, mean_iou
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS, SegmentRun

SHORT = [
    *("--preset", "small", "--size", "24", "--task.short_side", "0", "--task.channels", "8", "--iterations", "5"),
    *("--iteration_images", "4", "--batch_size", "4", "--schedule.warmup_steps", "0", "--workers", "0"),
    *("--precision", "fp32", "--layout", "contiguous", "--log_every", "2", "--resamples", "50"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voc_folder(tmp_path_factory.mktemp("segment") / "voc")


def run(data: Path, out: Path, *more: str, model: str = "resnet8", random: bool = True) -> dict[str, Any]:
    """The content of results.json after the command."""
    forget()
    try:
        drawn = ["--random"] if random else []
        script("segment", [model, *drawn, *SHORT, "--data", str(data), "--out", str(out), *more])
    finally:
        forget()
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def refusal(capsys: pytest.CaptureFixture[str], data: Path, out: Path, *more: str, **options: Any) -> str:
    """The one sentence that ends a call, before the folder is made."""
    with pytest.raises(SystemExit) as end:
        run(data, out, *more, **options)
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("segment.py: ")
    assert "\n" not in said
    assert not out.exists()
    return said


@pytest.fixture(scope="module")
def results(data: Path) -> dict[str, Any]:
    return run(data, data.parent / "first")


def test_it_leaves_its_numbers_with_intervals(data: Path, results: dict[str, Any]) -> None:
    assert (results["protocol"], results["model"], results["steps"]) == ("segmentation (small)", "resnet8", 5)
    assert (results["random_weights"], results["not_in_training"]) == (True, [])
    assert results["classes"] == ["0", "1", "2", "3"]
    assert (results["data"]["images"], results["validation"]["images"]) == (10, 5)
    with np.load(data.parent / "first" / "per_image.npz") as found:
        pixels = found["pixels"].sum(axis=0)
        assert list(found["keys"]) == [f"JPEGImages/p{number}.jpg" for number in range(10, 15)]
    assert (
        np.asarray(results["confusion"]).sum()
        == pixels[2].sum()
        == sum((scene(n, 40 + n % 3, 32 + n % 5)[1] != 255).sum() for n in range(10, 15))
    )
    numbers = results["numbers"]
    assert numbers["miou"]["value"] == pytest.approx(float(mean_iou(pixels)))
    for name, value in zip(results["classes"], iou(pixels), strict=True):
        assert (f"iou/{name}" in numbers) == (name not in results["absent"]) == bool(np.isfinite(value))
    assert all(number["low"] <= number["high"] for number in numbers.values())
    assert "seed 0" in results["interval"]


def test_it_says_what_became_of_the_iterations(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(data, tmp_path / "out", "--iterations", "9", "--batch_size", "6")
    said = capsys.readouterr().out
    assert "9 iterations of 4 images are 6 steps of 6: 36 images, 3.60 epochs of 10" in said
    assert "4 classes in 10 masks, tested on 5" in said
    assert "Learning rate 1.6 per 256 images x 6 images = 0.0375" in said
    assert "Mean IoU of" in said
    assert found["steps"] == 6


def test_a_run_stopped_or_killed_ends_as_if_it_was_not(data: Path, tmp_path: Path, results: dict[str, Any]) -> None:
    out = tmp_path / "stopped"
    for step, happens in ((2, asked_to_stop), (4, killed)):
        with after(step, happens), pytest.raises((Killed, SystemExit)):
            run(data, out)
    again = run(data, out)
    assert again["numbers"] == results["numbers"]
    assert again["confusion"] == results["confusion"]
    assert sha(state(out)) == sha(state(data.parent / "first"))
    assert (out / "log.jsonl").read_text() == (data.parent / "first" / "log.jsonl").read_text()
    assert run(data, out) == again  # finished: nothing is done again


def test_parquet_and_another_column(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "parquet")
    found = run(folder, tmp_path / "out", "--mask_column", "mask_of_one", "--judge_every", "1")
    assert found["classes"] == ["0", "1"]
    told = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in told if "miou" in line] == [1, 2, 3]


def test_a_class_that_training_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = voc_folder(tmp_path / "voc")
    image, mask = scene(12, 40, 34)
    mask[:9, :9] = 4
    image.save(data / "JPEGImages/p12.jpg")
    palette(mask).save(data / "SegmentationClass/p12.png")
    assert "p12.png holds class 4, and the head tells the 4 classes" in refusal(capsys, data, tmp_path / "out")
    found = run(data, tmp_path / "out", "--task.classes", "6")
    assert "No training mask holds 4" in capsys.readouterr().out
    assert (found["not_in_training"], "iou/4" in found["numbers"], len(found["classes"])) == (["4"], True, 6)


class TestRefusals:
    def test_data(self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out, copy = tmp_path / "out", Path(shutil.copytree(data, tmp_path / "voc"))
        assert "aug.txt' does not exist" in refusal(capsys, copy, out, "--train_lists", "train", "aug")
        assert "are fewer than the batch of 12" in refusal(capsys, copy, out, "--batch_size", "12")
        palette(scene(0, 20, 20)[1]).save(copy / "SegmentationClass/p11.png")
        assert "'JPEGImages/p11.jpg' has 42 x 33 pixels, and its annotations" in refusal(capsys, copy, out)
        (copy / "SegmentationClass/p1.png").unlink()
        assert "SegmentationClass/p1.png', the mask of 'p1', does not exist" in refusal(capsys, copy, out)
        (copy / "ImageSets/Segmentation/train.txt").write_text("")
        assert "train.txt' names no image" in refusal(capsys, copy, out)

    def test_models(self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert "near it are" in refusal(capsys, data, out, model="resnet8_moc_v2")
        assert "no weights are published" in refusal(capsys, data, out, model="resnet20_moco_v2", random=False)

    def test_words(self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert "--iteration is no option of segment.py; the nearest: --iterations" in refusal(
            capsys, data, out, "--iteration", "3"
        )
        assert "--batch_size is few, but must be a whole number" in refusal(capsys, data, out, "--batch_size", "few")
        assert "task.dropout is 2.0, but must be" in refusal(capsys, data, out, "--task.dropout", "2")
        with pytest.raises(SystemExit, match="2"):
            script("segment", ["resnet8", "--preset", "tiny", "--data", "x", "--out", "y"])
        assert "--preset is tiny, but must be one of voc_fcn_d8, voc_moco, small" in capsys.readouterr().err
        for words, lacks in ((["--data", "x"], "MODEL"), (["resnet8", "--out", "y"], "--data"), (["resnet8"], "--d")):
            with pytest.raises(SystemExit, match="2"):
                script("segment", words)
            assert lacks in capsys.readouterr().err

    def test_another_run_in_the_folder(
        self, data: Path, results: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            run(data, data.parent / "first", "--task.channels", "16")
        assert "task.channels is 8 there and 16 here" in capsys.readouterr().err


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_with_any_number_changed(name: str) -> None:
    words = ["resnet8", "--preset", name, "--data", "d", "--out", "o"]
    plain = segment.parse(words, "segment.py")
    assert plain == dataclasses.replace(PRESETS[name], model="resnet8", data="d", out="o")
    changed = segment.parse([*words, "--optimizer.lr", "0.5", "--task.dilation", "3"], "segment.py")
    assert (changed.optimizer.lr, changed.task.dilation, changed.size) == (0.5, 3, plain.size)


def test_steps_follow_the_batch() -> None:
    run = dataclasses.replace(PRESETS["voc_moco"], batch_size=32).on(10_582)
    assert (run.max_steps, run.epochs, run.schedule.milestone_steps) == (25_000, 76, (17_500, 22_500))
    assert run.peak_lr == pytest.approx(0.006)
    assert isinstance(run, SegmentRun)


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(data: Path, tmp_path: Path, results: dict[str, Any]) -> None:
    words = ["-m", "ssl_backbones", "segment", "resnet8", "--random", *SHORT, "--data", str(data)]
    subprocess.run([*TORCHRUN, *words, "--out", str(tmp_path / "two")], check=True)
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert two["compute"]["processes"] == 2
    for name, number in results["numbers"].items():
        assert two["numbers"][name]["value"] == pytest.approx(number["value"], abs=2e-3), name
