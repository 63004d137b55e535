"""Damaged JSON files, handed to every reader and command: each does its work or refuses in one sentence."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fuzz_json
import pytest
from fuzz_json import ACTIONS, Scene
from json_damage import LEAVES

from ssl_backbones.evaluate.classification import labelled_run
from ssl_backbones.runs.log import read_log, seconds_in
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.runs.trend import late_trend
from ssl_backbones.runs.waiting import share_of
from ssl_backbones.train.cost import seconds_before
from ssl_backbones.visualizers.run_section import run_section


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):  # maps of few places
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield fuzz_json.make_scene(tmp_path_factory.mktemp("scene"))


def test_every_json_file_is_read_by_something(scene: Scene) -> None:
    found = {path.relative_to(scene.root) for path in scene.root.rglob("*.json*")}
    read = {
        path.relative_to(scene.root)
        for _, names in ACTIONS.values()
        for name in names
        for path in scene.root.glob(name)
    }
    copies = {path for path in found if path.parts[0] == "state"}  # as in the run's folder
    assert {path.as_posix() for path in found - read - copies} <= {"random/recipe.json"}


def test_any_value_may_stand_at_any_place_of_a_log(scene: Scene, tmp_path: Path) -> None:
    """Its readers are the page, the trend, the waiting, the seconds so far and the forecast of a run that goes on."""
    shutil.copytree(scene.root / "stopped", tmp_path / "run")
    folder, recipe = RunFolder(tmp_path / "run"), scene.of(tmp_path / "run")
    loop: Any = SimpleNamespace(step=4, folder=folder, run=recipe, loader=SimpleNamespace(steps_per_epoch=4))
    for path in (folder.log, folder.speed):
        whole = path.read_text().splitlines(keepends=True)
        for number, line in enumerate(whole):
            for name in json.loads(line):
                for leaf in LEAVES:
                    changed = json.dumps(json.loads(line) | {name: leaf}) + "\n"
                    path.write_text("".join([*whole[:number], changed, *whole[number + 1 :]]))
                    lines = read_log(folder.log)
                    run_section(folder.path)
                    told = (share_of(read_log(folder.speed)), seconds_in(folder.speed), seconds_before(loop) or 1.0)
                    assert all(one is None or math.isfinite(one) for one in told)
                    late_trend(lines, {"knn": 10, "retrieval": 10})
                    labelled_run.tested(folder)
        path.write_text("".join(whole))


def test_damaged_json_is_read_or_refused(scene: Scene, tmp_path: Path) -> None:
    found = fuzz_json.fuzz(40, 7, tmp_path / "found", scene)
    assert found["wrong"] == 0
    assert found["answers"].keys() == {"done", "refused"}
    assert found["memory_grew_mb"] < 1000


@pytest.mark.slow
def test_two_thousand_damaged_files_are_read_or_refused(scene: Scene, tmp_path: Path) -> None:
    found = fuzz_json.fuzz(2000, 0, tmp_path / "found", scene)
    assert found["wrong"] == 0
    assert found["by_action"].keys() == ACTIONS.keys()


def test_the_fuzzer_sees_what_is_wrong(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that trusts its file, in place of all."""

    def trusting(_: Scene, root: Path) -> object:
        return json.loads((root / "knn" / "results.json").read_text())["numbers"]["chosen"]["value"] + 1

    monkeypatch.setattr(fuzz_json, "ACTIONS", {"trusting": (trusting, ("knn/results.json",))})
    found = fuzz_json.fuzz(60, 7, tmp_path / "found", scene)
    assert found["wrong"] > 2
    assert len(list((tmp_path / "found").iterdir())) == found["wrong"]
