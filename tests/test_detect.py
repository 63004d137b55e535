"""detect.py from the command line to results.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_objects import coco, parquet, png, scene, voc, xml
from PIL import Image
from runs import forget
from scripts import script

from ssl_backbones.commands import detect
from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.detection import detection_judge
from ssl_backbones.evaluate.detection.detect import built, divided, open_data
from ssl_backbones.evaluate.detection.detect_run import PRESETS, DetectRun
from ssl_backbones.evaluate.detection.detection_judge import DetectionJudge, truth
from ssl_backbones.evaluate.detection.open_annotated import open_annotated, open_kept_out
from ssl_backbones.evaluate.learning_rates import Division

QUICK = ["--preset", "small", "--random", "--workers", "0", "--batch_size", "2", "--iteration_images", "2"]
QUICK += ["--size", "80", "--task.smallest", "64", "--task.longest", "96", "--task.width", "16", "--task.anchors", "32"]
QUICK += ["--task.regions", "16", "--task.test_proposals", "20", "--task.precise_batches", "1"]
NAMED = ("--data", "d", "--out", "o")
SHORT = ["--iterations", "3", "--schedule.milestone_steps", "2", "--schedule.warmup_steps", "1"]


def run(monkeypatch: pytest.MonkeyPatch, model: str, root: Path, out: Path, *words: str) -> dict[str, Any]:
    """The results of a command."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget()
    try:
        script("detect", [model, "--data", str(root), "--out", str(out), *QUICK, *words])
    finally:
        forget()
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def test_boxes_and_masks_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = parquet(tmp_path / "data")
    results = run(monkeypatch, "resnet8", root, tmp_path / "out", *SHORT, "--head", "mask_fpn")
    assert set(results["numbers"]) == {f"{kind}{name}" for kind in ("", "mask_") for name in ("AP", "AP50", "AP75")}
    for number in results["numbers"].values():
        assert 0 <= number["low"] <= number["high"] <= 1
        assert 0 <= number["value"] <= 1
    assert results["steps"] == 3
    assert results["random_weights"]
    assert results["data"]["images"] == results["validation"]["images"] == 4
    assert results["settings"]["task"]["classes"] == 2
    assert results["metric"] == "COCO's AP"
    said = capsys.readouterr().out
    assert "3 iterations of 2 images are 3 steps of 2" in said
    assert "of each process alone" in said
    again = run(monkeypatch, "resnet8", root, tmp_path / "again", *SHORT, "--head", "mask_fpn")
    assert again["numbers"] == results["numbers"]


def test_objects_of_an_image_that_cannot_be_read_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All objects of the three of four images that can be read are found, and nothing else."""
    root = voc(tmp_path / "voc")
    words = ["resnet8", "--data", str(root), "--out", str(tmp_path / "out"), *QUICK]
    images, validation = open_data(detect.parse(words, "detect.py"))
    run, method = built(detect.parse(words, "detect.py"), images)
    judge = DetectionJudge(run, images, validation)
    there = {index: truth(validation, index, False) for index in (0, 1, 3)}
    exact = {index: replace(each, scores=np.ones(len(each.boxes))) for index, each in there.items()}
    monkeypatch.setattr(detection_judge, "precise_statistics", lambda *_: nullcontext())
    monkeypatch.setattr(judge, "find", lambda *_: exact)
    bench: Any = SimpleNamespace(method=method, training_batches=lambda count: None)
    assert judge.judge(bench).scalars["AP"] == 1
    monkeypatch.setattr(judge, "find", lambda *_: exact | {2: replace(exact[0], boxes=exact[0].boxes + 500.0)})
    assert judge.judge(bench).scalars["AP"] < 1


@pytest.mark.slow
def test_a_c4_detector_end_to_end_by_vocs_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SHORT, "--head", "faster_c4", "--size", "64", "--iterations", "2", "--task.test_proposals", "4"]
    words += ["--schedule.milestone_steps", "1"]
    results = run(monkeypatch, "resnet18_byol", voc(tmp_path / "voc"), tmp_path / "out", *words)
    assert set(results["numbers"]) == {"AP", "AP50", "AP75"}
    assert results["metric"] == "VOC's AP of eleven points"
    assert results["protocol"] == "detection (small)"
    assert len(results["classes"]) == 20


@pytest.mark.parametrize(
    ("model", "words", "expected"),
    [
        ("resnet8", ["--head", "faster_c4"], "maps of strides 1, 1, 2, 4: take faster_fpn or mask_fpn"),
        ("resnet8", ["--head", "mask_fpn"], "has boxes alone: take a head without masks"),
        ("resnet8", ["--classes", "3"], "has 20 classes and the head tells 3 apart: set --classes to 20"),
        ("resnet8", ["--batch_size", "8"], "4 images are fewer than the batch of 8"),
        ("resnet8", ["--validation", "nowhere"], "'nowhere' has no objects"),
        ("resnet9", [], "resnet9"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence_before_a_folder_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
    words: list[str],
    expected: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, model, voc(tmp_path / "voc"), tmp_path / "out", *words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in said
    assert said.startswith("detect.py: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def difficult(root: Path) -> None:
    """Make all test objects of a VOC folder difficult."""
    for number in range(4, 8):
        (root / "Annotations" / f"{number:06}.xml").write_text(xml(scene(number), difficult=1))


def crowds(root: Path) -> None:
    """Make all test objects of a COCO folder crowds."""
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))


def hidden(root: Path) -> None:
    """Leave no pixel of any test object in the masks of parquet."""
    file = root / "validation.parquet"
    table = pq.read_table(file)
    nothing = {"instance_mask": {"bytes": png(Image.new("L", (96, 80))), "path": None}}
    pq.write_table(pa.Table.from_pylist([row | nothing for row in table.to_pylist()], table.schema), file)


@pytest.mark.parametrize(
    ("make", "spoil", "words"),
    [
        (voc, difficult, []),
        (voc, difficult, ["--metric", "coco"]),
        (coco, crowds, []),
        (coco, crowds, ["--head", "mask_fpn"]),
        (parquet, hidden, ["--head", "mask_fpn"]),
    ],
)
def test_images_without_an_object_that_counts_are_no_test(
    make: Callable[[Path], Path], spoil: Callable[[Path], None], words: list[str], tmp_path: Path
) -> None:
    root = make(tmp_path / "data")
    asked = detect.parse(["resnet8", "--data", str(root), "--out", str(tmp_path / "out"), *QUICK, *words], "detect.py")
    open_data(asked)
    spoil(root)
    with pytest.raises(ImageSourceError, match=r"none of the 4 images of .* name others with --validation"):
        open_data(asked)
    tested, every = open_kept_out(str(root), open_annotated(str(root))), np.arange(4)
    with pytest.raises(ImageSourceError, match=r"none of the 4 images of .* choose with --choose_on validation"):
        divided(tested, Division(every, every), asked.task.with_masks)


def test_a_part_without_an_object_is_refused(tmp_path: Path) -> None:
    images = open_annotated(str(voc(tmp_path / "voc")))
    for learnt, kept in (([0, 1], [3]), ([3], [0, 1])):
        with pytest.raises(ImageSourceError, match="object"):
            divided(images, Division(np.array(learnt), np.array(kept)), masks=False)


@pytest.mark.parametrize("words", [[], ["--metric", "coco"]])
def test_what_judges_detections_is_asked_for_before_training(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "resnet8", voc(tmp_path / "voc"), tmp_path / "out", *words)
    assert ended.value.code == 2
    expected = (
        "detect.py: pycocotools, which detections are judged by, is not installed: pip install 'ssl-backbones[eval]'"
    )
    assert capsys.readouterr().err == f"{expected}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "d", "--out", "o"], "the MODEL is missing"),
        (["m", "--out", "o"], "--data is missing"),
        (["m", "--data", "d"], "--out is missing"),
        (["m", "--preset", "voc"], "--preset is voc, but must be one of voc_24k, coco_1x"),
        (["m", *NAMED, "--metric", "map"], "metric is 'map', but must be one of auto, voc, coco"),
        (["m", "--head", "c4"], "--task.head is c4, but must be one of faster_fpn"),
        (["m", "--task.region", "3"], "the nearest: --task.regions"),
        (["m", "--iterations", "many"], "--iterations is many, but must be a whole number"),
        (["m", *NAMED, "--iterations", "0"], "iterations is 0, but must be at least 1"),
        (["m", *NAMED, "--size", "100"], "task.smallest is 480, but must be at most the size, 100"),
    ],
)
def test_a_command_line_that_cannot_be_read_says_why(
    capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script("detect", words)
    assert expected in capsys.readouterr().err


def schedule(run: DetectRun) -> tuple[Any, ...]:
    """The events of a run, counted in its own steps."""
    run = run.on(16_551)
    return (
        run.max_steps,
        run.batch_size,
        run.peak_lr,
        run.schedule.milestone_steps,
        run.schedule.warmup_steps,
        run.task.head,
        (run.task.smallest, run.size, run.task.longest),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc_24k", (24_000, 16, 0.02, (18_000, 22_000), 100, "faster_c4", (480, 800, 1333))),
        ("coco_1x", (90_000, 16, 0.02, (60_000, 80_000), 1000, "mask_c4", (640, 800, 1333))),
        ("coco_2x", (180_000, 16, 0.02, (120_000, 160_000), 1000, "mask_c4", (640, 800, 1333))),
        ("flags_coco", (180_000, 8, 0.01, (120_000, 160_000), 1000, "mask_c4", (640, 800, 1333))),
        ("flags_voc", (96_000, 4, 0.005, (72_000, 88_000), 400, "faster_c4", (480, 800, 1333))),
    ],
)
def test_presets_are_the_papers_schedules(name: str, expected: tuple[Any, ...]) -> None:
    found = schedule(PRESETS[name])
    assert found[2] == pytest.approx(expected[2])
    assert found[:2] + found[3:] == expected[:2] + expected[3:]


def test_steps_and_learning_rate_follow_the_batch() -> None:
    """FLAGS' schedule on VOC is MoCo's at a quarter of the batch."""
    quarter = detect.parse(["m", "--data", "d", "--out", "o", "--preset", "voc_24k", "--batch_size", "4"], "detect.py")
    assert schedule(quarter) == schedule(PRESETS["flags_voc"])
    said = quarter.on(16_551).steps_sentence(16_551)
    assert said.startswith("24000 iterations of 16 images are 96000 steps of 4: 384000 images, 23.20 epochs of 16551")
    assert "warm-up of 400 steps, decay at 72000, 88000" in said


def test_every_number_of_a_preset_can_be_overridden() -> None:
    words = "--optimizer.lr 0.1 --schedule.milestone_steps 5 6 --task.regions 7 --task.precise_batches 0 --size 900"
    made = detect.parse(["m", "--data", "d", "--out", "o", *words.split(), "--head", "mask_fpn"], "detect.py")
    assert (made.optimizer.lr, made.schedule.milestone_steps, made.size) == (0.1, (5, 6), 900)
    assert (made.task.regions, made.task.precise_batches, made.task.head) == (7, 0, "mask_fpn")


@pytest.mark.slow
@pytest.mark.parametrize(("head", "iterations", "lr"), [("mask_fpn", 60, "2.56"), ("mask_c4", 120, "1.28")])
def test_a_detector_learns_a_few_scenes_by_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, iterations: int, lr: str
) -> None:
    root = coco(tmp_path / "coco", train=6)
    torch.set_num_threads(2)
    words = ["--validation", str(root / "annotations" / "instances_train2017.json"), "--head", head]
    words += ["--iterations", str(iterations), "--schedule.milestone_steps", str(iterations * 4 // 5)]
    words += ["--schedule.warmup_steps", "10", "--optimizer.lr", lr]
    words += ["--task.width", "64", "--task.smallest", "80", "--task.precise_batches", "10"]
    try:
        results = run(monkeypatch, "resnet18_byol", root, tmp_path / "out", *words)
    finally:
        torch.set_num_threads(1)
    assert results["numbers"]["AP50"]["value"] > 0.7
    assert results["numbers"]["mask_AP50"]["value"] > 0.7
