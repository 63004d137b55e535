"""Several learning rates of a transfer: each is its own run, the best is taken, and all are told."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import drawn_objects
import labelled_runs
import numpy as np
import pytest
import scenes
import test_detect
import test_segment
from labelled_runs import divided, small
from runs import Killed, after, asked_to_stop, killed, sha, state
from scripts import script

from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.detection import detect_run
from ssl_backbones.evaluate.detection.open_annotated import open_annotated
from ssl_backbones.evaluate.learning_rates import Division, at_rate
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.evaluate.segmentation import segment_run
from ssl_backbones.evaluate.segmentation.masks import ScenesAt, open_scenes
from ssl_backbones.evaluate.transfer import Transfer, altered
from ssl_backbones.hub.evaluations import searches
from ssl_backbones.train.loop import Loop

PRESETS: dict[str, Mapping[str, Transfer]] = {
    "finetune": finetune.PRESETS,
    "semi": semi.PRESETS,
    "linear": linear.PRESETS,
    "segment": segment_run.PRESETS,
    "detect": detect_run.PRESETS,
}
CLASSIFYING: dict[str, tuple[ModuleType, str]] = {
    "finetune": (finetune, "patch"),
    "semi": (semi, "lewel_10pct"),
    "linear": (linear, "lewel_b"),
    "linear on features": (linear, "patch"),
}
TASKS = [*CLASSIFYING, "segment", "detect"]
SOME = [pytest.param(task, marks=pytest.mark.slow if task in ("semi", "linear", "detect") else ()) for task in TASKS]
FEW = [
    pytest.param(task, marks=() if task in ("linear on features", "segment") else pytest.mark.slow) for task in TASKS
]
Command = Callable[..., dict[str, Any]]


@pytest.fixture
def transferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command of a task on small data into a folder; options follow as words. Its results."""

    def command(task: str, out: str, *words: str) -> dict[str, Any]:
        place = tmp_path / out
        if task == "segment":
            data = tmp_path / "voc"
            return test_segment.run(data if data.exists() else scenes.voc_folder(data), place, *words)
        if task == "detect":
            data = tmp_path / "drawn"
            data = data if data.exists() else drawn_objects.parquet(data, train=6)
            return test_detect.run(monkeypatch, "resnet8", data, place, *test_detect.SHORT, *words)
        protocol, preset = CLASSIFYING[task]
        few = {"share": 1.0} if task == "semi" else {}
        run = small(protocol, preset, divided(tmp_path / "data"), place, **few)
        return labelled_runs.run(protocol, said(run, words))

    return command


def said(run: Any, words: tuple[str, ...]) -> Any:
    """The run with options that are spelled as a command has them."""
    read: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            read[name] = ()
        else:
            read[name] += (word if name == "choose_on" else float(word),)
    plain = {name: values if name == "learning_rates" else values[0] for name, values in read.items()}
    if lr := plain.pop("optimizer.lr", None):
        run = dataclasses.replace(run, optimizer=run.optimizer.at_lr(lr))
    return dataclasses.replace(run, **plain)


def told(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what tells when and how they were asked for."""
    free = ("learning_rates", "command", "date", "backbone")
    settings = {name: value for name, value in results["settings"].items() if name != "out"}
    return {name: value for name, value in results.items() if name not in free} | {"settings": settings}


@pytest.mark.parametrize("task", SOME)
def test_each_rate_is_a_run_of_its_own_and_the_best_is_taken(
    task: str, transferred: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = transferred(task, "all", "--learning_rates", "0.01", "0.3", "--choose_on", "validation")
    search, number = found["learning_rates"], next(iter(found["numbers"]))
    assert [one["lr"] for one in search["tried"]] == [0.01, 0.3]
    assert search["chosen_on"] == "the validation images, which the results are of too"
    assert search["by"] == number
    best = max(search["tried"], key=lambda one: one["value"])
    assert search["chosen"] == best["lr"]
    assert found["numbers"][number] == {name: best[name] for name in found["numbers"][number]}
    kept = json.loads((tmp_path / "all" / best["folder"] / "results.json").read_text())
    assert told(found) == told(kept)
    assert found["settings"]["out"] == str(tmp_path / "all")
    assert "Learning rates by" in capsys.readouterr().out
    if not task.startswith("linear"):
        assert open_model(tmp_path / "all").weights_sha256 == found["backbone"]["weights_sha256"]
    alone = transferred(task, "alone", "--optimizer.lr", "0.3")
    assert told(alone) == told(json.loads((tmp_path / "all" / "lr_0.3" / "results.json").read_text()))
    assert "learning_rates" not in json.loads((tmp_path / "alone" / "recipe.json").read_text())
    if task != "linear on features":
        assert sha(state(tmp_path / "all" / "lr_0.3")) == sha(state(tmp_path / "alone"))


@pytest.mark.parametrize("task", FEW)
def test_the_validation_images_take_no_part_in_the_choice(task: str, transferred: Command, tmp_path: Path) -> None:
    found = transferred(task, "all", "--learning_rates", "0.01", "0.3", "--choice_share", "0.34")
    search, images = found["learning_rates"], found["data"]["images"]
    kept = round(0.34 * images)
    assert search["chosen_on"] == f"{kept} of the {images} training images, kept from training for the choice"
    for one in search["tried"]:
        results = json.loads((tmp_path / "all" / one["folder"] / "results.json").read_text())
        assert results["validation"]["images"] == kept
        assert results["data"]["images"] == images - kept
        assert results["validation"]["fingerprint"] not in (
            found["validation"]["fingerprint"],
            results["data"]["fingerprint"],
        )
        assert results["altered"]["data"] == ["all", "a part, for the choice of the learning rate"]
    alone = transferred(task, "alone", "--optimizer.lr", str(search["chosen"]))
    assert told(alone) == told(found)


def test_a_search_stopped_or_killed_goes_on(transferred: Command, tmp_path: Path) -> None:
    words = ("--learning_rates", "0.01", "0.3", "--choice_share", "0.4")
    expected = transferred("segment", "whole", *words)
    made = []
    descend = Loop.descend

    def counted(loop: Loop, batches: Any) -> None:
        made.append((loop.folder.path.name, loop.step))
        descend(loop, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "descend", counted)
        with after(2, asked_to_stop), pytest.raises(SystemExit):
            transferred("segment", "stopped", *words)
        for happens in (killed, asked_to_stop):
            with after(4, happens), pytest.raises((Killed, SystemExit)):
                transferred("segment", "stopped", *words)
        found = transferred("segment", "stopped", *words)
        assert told(found) == told(expected)
        assert found["learning_rates"] == expected["learning_rates"]
        assert {name for name, _ in made} == {"lr_0.01", "lr_0.3", "chosen"}
        assert (tmp_path / "stopped" / "lr_0.01" / "log.jsonl").read_text() == (
            tmp_path / "whole" / "lr_0.01" / "log.jsonl"
        ).read_text()
        before = len(made)
        assert transferred("segment", "stopped", *words) == found
        assert len(made) == before
    with pytest.raises(SystemExit):
        transferred("segment", "stopped", *words[:-1], "0.5")


def test_another_search_does_not_take_the_folder_of_one_that_has_begun(
    transferred: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with after(2, asked_to_stop), pytest.raises(SystemExit):
        transferred("segment", "out", "--learning_rates", "0.01", "0.3")
    with pytest.raises(SystemExit, match="2"):
        transferred("segment", "out", "--learning_rates", "0.01", "0.5")
    assert "learning_rates is [0.01, 0.3] there and [0.01, 0.5] here" in capsys.readouterr().err


def test_a_rate_that_diverges_is_told_and_not_chosen(transferred: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--choose_on", "validation", "--learning_rates", "1e30")
    found = transferred("segment", "out", *words, "0.01")
    assert found["learning_rates"]["tried"][0] == {"lr": 1e30, "folder": "lr_1e+30", "value": None}
    assert found["learning_rates"]["chosen"] == 0.01
    said = capsys.readouterr().out
    assert "1e+30 (not finite), 0.01 (" in said
    with pytest.raises(SystemExit, match="2"):
        transferred("segment", "none", *words, "1e31")
    assert "all of the learning rates 1e+30, 1e+31 ended in numbers that are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("task", PRESETS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--learning_rates", "0.1"], "learning_rates is (0.1,), but must be two or more"),
        (["--learning_rates", "0.1", "0.2", "0.1"], "each named once"),
        (["--learning_rates", "0.1", "0"], "above 0"),
        (["--learning_rates", "0.1", "-0.2"], "above 0"),
        (["--learning_rates", "0.1", "nan"], "learning_rates is"),
        (["--learning_rates", "inf", "0.1"], "learning_rates is"),
        (["--learning_rates", "0.1", "fast"], "learning_rates is 0.1 fast, but must be"),
        (["--learning_rates", "0.1", "0.2", "--choice_share", "1"], "choice_share is 1.0, but must be above 0 and"),
        (["--learning_rates", "0.1", "0.2", "--choice_share", "nan"], "choice_share is nan"),
        (["--choose_on", "validation"], "choose_on is 'validation', but must be train without learning_rates"),
        (["--learning_rates", "0.1", "0.2", "--choose_on", "test"], "--choose_on is test, but must be"),
    ],
)
def test_rates_that_cannot_be_searched_are_refused(
    task: str, words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", task] if task in ("finetune", "semi", "linear") else [task]
    with pytest.raises(SystemExit, match="2"):
        script(command[0], [*command[1:], "resnet8", "--data", "x", "--out", str(tmp_path / "out"), *words])
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rates_of_parts_follow(tmp_path: Path) -> None:
    run: Any = small(finetune, "patch", tmp_path, tmp_path / "out", learning_rates=(1e-4, 3e-4))
    same, higher = (at_rate(run, rate).optimizer for rate in run.learning_rates)
    assert same == run.optimizer
    assert (higher.lr, higher.backbone_lr) == (3e-4, pytest.approx(3e-3))


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, presets in PRESETS.items() for name in presets])
def test_a_preset_is_unaltered_whatever_it_is_asked_of(task: str, name: str) -> None:
    presets = PRESETS[task]
    asked = dataclasses.replace(presets[name], model="resnet8", data="d", out="o", seed=4, workers=2, random=True)
    assert altered(asked, presets) == {}
    other = asked.optimizer.at_lr(0.7)
    changed = altered(dataclasses.replace(asked, optimizer=other), presets)
    assert ("optimizer.lr" in changed) == (name != "voc_fcn_d8")
    assert "data" in altered(asked, presets, part=True)


def test_a_held_out_set_stays_that_of_the_whole_run(tmp_path: Path) -> None:
    rates = {"learning_rates": (0.001, 0.01), "choice_share": 0.3, "hold_out": 3}
    found = labelled_runs.run(finetune, small(finetune, "patch", divided(tmp_path / "d"), tmp_path / "out", **rates))
    parts = [labelled_runs.results_of(tmp_path / "out" / name) for name in ("lr_0.001", "lr_0.01", "chosen")]
    assert found["validation"]["images"] == 9
    assert all(part["selection"] == found["selection"] for part in parts)


def test_a_part_too_small_for_a_batch_is_refused_before_any_work(tmp_path: Path) -> None:
    rates = {"learning_rates": (0.001, 0.01), "choice_share": 0.8}
    run = small(finetune, "patch", divided(tmp_path / "d"), tmp_path / "out", **rates)
    with pytest.raises(ImageSourceError, match=r"kept for the choice .* 7 are fewer than the batch of 9: lower"):
        labelled_runs.run(finetune, run)
    assert not (tmp_path / "out").exists()


def test_a_finished_search_is_known_though_an_image_cannot_be_read(tmp_path: Path) -> None:
    data = divided(tmp_path / "d")
    (data / "red" / "broken.png").write_bytes(b"no image")
    rates = {"learning_rates": (0.001, 0.01), "choose_on": "validation", "unreadable_share": 0.5}
    run = small(linear, "patch", data, tmp_path / "out", **rates)
    found = labelled_runs.run(linear, run)
    assert labelled_runs.run(linear, run) == found
    (data / "red" / "red_00.png").unlink()
    with pytest.raises(ImageSourceError, match="the images are not those that the run in"):
        labelled_runs.run(linear, run)


def test_a_few_labels_are_those_that_were_learnt_from(tmp_path: Path) -> None:
    rates = {"learning_rates": (0.01, 0.1), "choice_share": 0.25, "share": 1.0}
    found = labelled_runs.run(semi, small(semi, "lewel_10pct", divided(tmp_path / "d"), tmp_path / "out", **rates))
    assert found["subset"]["images"] == 36
    assert len((tmp_path / "out" / "subset.txt").read_text().splitlines()) == 36
    assert labelled_runs.results_of(tmp_path / "out" / "lr_0.01")["subset"]["images"] == 27
    assert len((tmp_path / "out" / "lr_0.01" / "subset.txt").read_text().splitlines()) == 27


def test_parts_of_annotated_images_keep_what_belongs_to_each(tmp_path: Path) -> None:
    rows = np.array([3, 0])
    whole = open_scenes(str(scenes.voc_folder(tmp_path / "voc")), "mask", ["train"])
    part = pickle.loads(pickle.dumps(ScenesAt(whole, rows)))
    assert list(part.keys) == [whole.keys[3], whole.keys[0]]
    assert all(np.array_equal(part.mask(at), whole.mask(int(row))) for at, row in enumerate(rows))
    assert all(part[at].tobytes() == whole[int(row)].tobytes() for at, row in enumerate(rows))
    assert part.mask_place(0) == whole.mask_place(3)
    drawn = open_annotated(str(drawn_objects.coco(tmp_path / "coco")))
    before = drawn.fingerprint
    some = pickle.loads(pickle.dumps(drawn.at(rows)))
    assert len({before, some.fingerprint, drawn.at(rows[::-1]).fingerprint}) == 3
    assert (drawn.fingerprint, len(drawn), len(some)) == (before, 4, 2)
    for at, row in enumerate(rows.tolist()):
        assert np.array_equal(some.objects[at].boxes, drawn.objects[row].boxes)
        assert np.array_equal(some.all_masks(at), drawn.all_masks(row))
        assert some[at].tobytes() == drawn[row].tobytes()


def test_the_division_is_the_same_for_every_seed() -> None:
    division = Division.of(50, 0.1)
    assert len(division.kept) == 5
    assert sorted([*division.kept, *division.learnt]) == list(range(50))
    assert Division.of(3, 0.01).kept.size == 1


def test_a_card_tells_every_rate() -> None:
    tried = [{"lr": 0.8, "value": 0.451, "low": 0.44, "high": 0.46}, {"lr": 6.4, "value": None}]
    search = {"chosen": 0.8, "by": "miou", "chosen_on": "9 of the 90 training images", "tried": tried}
    results = {"protocol": "segmentation (small)", "model": "m", "data": {"source": "private/voc"}, "settings": {}}
    (line,) = searches([results, results | {"learning_rates": search}])
    assert line == (
        "segmentation (small), voc: Learning rates by miou on 9 of the 90 training images: "
        "0.8 (0.451 [0.44, 0.46], the best), 6.4 (not finite)."
    )


@pytest.mark.parametrize("part", ["lr_0.3", "chosen"])
def test_no_part_is_trained_in_a_folder_behind_a_link(part: str, transferred: Command, tmp_path: Path) -> None:
    words = ("--learning_rates", "0.01", "0.3")
    transferred("finetune", "out", *words)
    outside, place = tmp_path / "outside", tmp_path / "out" / part
    place.rename(outside)
    place.symlink_to(outside)
    for results in (tmp_path / "out" / "results.json", outside / "results.json"):
        results.unlink()
    left = sorted(outside.rglob("*"))
    with pytest.raises(OSError, match="nothing is written through links"):
        transferred("finetune", "out", *words)
    assert sorted(outside.rglob("*")) == left


def test_a_damaged_part_is_made_anew(transferred: Command, tmp_path: Path) -> None:
    words = ("--learning_rates", "0.01", "0.3", "--choose_on", "validation")
    before = transferred("finetune", "out", *words)
    os.truncate(tmp_path / "out" / "results.json", 50)
    (tmp_path / "out" / "lr_0.3" / "results.json").write_text("{")
    assert transferred("finetune", "out", *words) | {"command": ""} == before | {"command": ""}
