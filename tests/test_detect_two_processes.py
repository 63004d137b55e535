"""detect.py stopped and gone on with, and a detector tested by two processes: the same to the last bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from drawn_objects import parquet
from runs import Killed, after, asked_to_stop, forget, killed, sha, state
from scripts import script
from two_processes import run_two_processes

from ssl_backbones.commands.detect import parse
from ssl_backbones.evaluate.detection import box_metrics
from ssl_backbones.evaluate.detection.box_metrics import Instances
from ssl_backbones.evaluate.detection.detect import built, open_data
from ssl_backbones.evaluate.detection.detection import Detection
from ssl_backbones.evaluate.detection.detection_judge import DetectionJudge
from ssl_backbones.evaluate.detection.packed_masks import unpacked
from ssl_backbones.evaluate.detection.precise_bn import precise_statistics
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.prepare import meet_for, prepare

IMAGES = 5
"""In the test, of three shapes: two processes do not share them evenly."""
WORDS = [
    *("--preset", "small", "--head", "mask_fpn", "--random", "--workers", "0", "--size", "80", "--batch_size", "2"),
    *("--iteration_images", "2", "--iterations", "6", "--schedule.milestone_steps", "5"),
    *("--schedule.warmup_steps", "1", "--task.smallest", "64", "--task.longest", "140", "--task.width", "16"),
    *("--task.anchors", "32", "--task.regions", "16", "--task.test_proposals", "20", "--log_every", "2"),
]
CASES: dict[str, tuple[str, int]] = {"voc": ("voc", 0), "coco": ("coco", 0), "precise": ("coco", 2)}
"""The metric of boxes, and the batches from which statistics are taken anew."""
Answer = tuple[dict[str, Any], dict[str, torch.Tensor]]
"""Numbers, and what was found in each image as tensors by name."""


def words(data: Path, out: Path) -> list[str]:
    """A command line."""
    return ["resnet8", *WORDS, "--task.precise_batches", "1", "--data", str(data), "--out", str(out)]


def run(argv: list[str], patch: pytest.MonkeyPatch) -> None:
    """A command as a process of its own would carry it out."""
    patch.setenv("ACCELERATE_USE_CPU", "true")
    patch.setattr(box_metrics, "RESAMPLES", 20)
    forget()
    try:
        script("detect", argv)
    finally:
        forget()


def tensors_of(found: dict[int, Instances]) -> dict[str, torch.Tensor]:
    """The detections in each image, as tensors by name."""
    fields: dict[str, torch.Tensor] = {}
    for image, each in sorted(found.items()):
        assert each.masks is not None
        values = {"boxes": each.boxes, "labels": each.labels, "scores": each.scores, "masks": unpacked(each.masks)}
        fields |= {f"{image}/{name}": torch.from_numpy(np.array(value)) for name, value in values.items()}
    return fields


def judged(rank: int, argv: list[str]) -> dict[str, Answer]:
    """A run at its last step in this process: what it says, and its detections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(box_metrics, "RESAMPLES", 20)
        forget()
        asked = parse(argv, "detect.py")
        images, validation = open_data(asked)
        run, method = built(asked, images)
        judges = {
            name: DetectionJudge(dataclasses.replace(run, metric=metric), images, validation)
            for name, (metric, _) in CASES.items()
        }
        begun = prepare(run, method, images, judges["voc"], meet_for(run))
        assert not isinstance(begun, RunFolder)
        loop, log = begun
        with loop.folder, closing(log):
            assert loop.step == loop.total_steps
            return {name: answer(judge, loop, CASES[name][1]) for name, judge in judges.items()}


def answer(judge: DetectionJudge, loop: Loop, precise_batches: int) -> Answer:
    """The judgement of a loop's detector, with statistics from so many batches."""
    method = loop.method
    assert isinstance(method, Detection)
    method.config = dataclasses.replace(method.config, precise_batches=precise_batches)
    judge.judge(loop.bench)
    with precise_statistics(method, loop.bench.training_batches(precise_batches)):
        return judge.numbers, tensors_of(judge.find(method, loop.bench))


class Both(NamedTuple):
    """The output of two processes, and that of one."""

    ranks: list[Any]
    alone: Any


class Whole(NamedTuple):
    """A run that nothing disturbed, and its data."""

    data: Path
    path: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A detector trained by one process."""
    folder = tmp_path_factory.mktemp("detect")
    data = parquet(folder / "data", 4, IMAGES, ragged=True)
    with pytest.MonkeyPatch.context() as patch:
        run(words(data, folder / "whole"), patch)
    return Whole(data, folder / "whole")


@pytest.fixture(scope="module")
def both(whole: Whole) -> Both:
    """The same detector tested by one process and by two."""
    alone, shared = (whole.path.with_name(name) for name in ("one", "two"))
    for copy in (alone, shared):
        shutil.copytree(whole.path, copy)
        (copy / "results.json").unlink()
    try:
        return Both(run_two_processes(judged, words(whole.data, shared)), judged(0, words(whole.data, alone)))
    finally:
        forget()


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_two_processes_find_what_one_finds(both: Both, name: str) -> None:
    numbers, found = both.alone[name]
    assert len(numbers) == 6
    assert sum(len(value) for field, value in found.items() if field.endswith("boxes")) > IMAGES
    for there, elsewhere in (rank[name] for rank in both.ranks):
        assert there == numbers
        assert elsewhere.keys() == found.keys()
        assert all(torch.equal(value, elsewhere[field]) for field, value in found.items())


def test_statistics_taken_anew_are_the_same_in_both_processes(both: Both) -> None:
    first, second = (rank["precise"] for rank in both.ranks)
    assert first[0] == second[0]
    assert all(torch.equal(value, second[1][field]) for field, value in first[1].items())


def test_a_run_stopped_or_killed_ends_as_if_it_was_not(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = words(whole.data, tmp_path / "stopped")
    for step, happens in ((2, asked_to_stop), (5, killed)):
        with after(step, happens), pytest.raises((Killed, SystemExit)):
            run(stopped, monkeypatch)
    run(stopped, monkeypatch)
    straight, again = whole.path, tmp_path / "stopped"
    numbers, same = (json.loads((path / "results.json").read_text())["numbers"] for path in (straight, again))
    assert same == numbers
    assert sha(state(again)) == sha(state(straight))
    assert (again / "log.jsonl").read_text() == (straight / "log.jsonl").read_text()
