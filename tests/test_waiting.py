"""The share of the time that goes by waiting for images: counted, logged, said once, and on the page."""

from __future__ import annotations

import io
import json
import re
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from test_loader import loader

from ssl_backbones.recipes.recipe import FREE
from ssl_backbones.runs.log import RunLog, read_log
from ssl_backbones.runs.waiting import SOON, Spent, WaitingAdvice, in_words, share_of
from ssl_backbones.views import Engine
from ssl_backbones.visualizers.run_section import waiting

PILLOW = {"engine": "pillow", "cache": "", "workers": None, "resident": False}


def test_a_loader_counts_the_time_in_which_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, now = loader(), [0.0]
    made = type(batches.dataset).__getitem__

    def slowly(self: Any, request: Any) -> Any:
        now[0] += 3
        return made(self, request)

    monkeypatch.setattr("ssl_backbones.train.loader.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(type(batches.dataset), "__getitem__", slowly)
    for _ in batches.steps(0, 2):
        now[0] += 100  # which is the network's time
    assert batches.spent.waiting == 6


def test_the_share_is_in_the_file_of_speeds_and_on_the_terminal(tmp_path: Path) -> None:
    ticks, spent, stream = count(0.0, 10.0), Spent(), io.StringIO()
    log = RunLog(tmp_path, 6, 8, stream=stream, clock=lambda: next(ticks), spent=spent)
    for _ in range(3):
        log.advance()
        log.advance()
        spent.waiting += 4.0
        log.write(0, {"loss": 1.0})
    spent.measurements += 3.0
    log.write(1, {"knn": 0.5})
    log.close()
    *steps, measurement = read_log(tmp_path / "speed.jsonl")
    assert [line["waiting"] for line in steps] == [0.4, 0.2, 0.2]
    assert "measuring" not in steps[-1]
    assert measurement.keys() == {"step", "seconds", "measuring"}
    assert measurement["measuring"] == 3
    assert "20% of it waiting for images" in stream.getvalue()
    assert "knn 0.5, measured in 3 s" in stream.getvalue()


def test_a_run_that_waits_much_is_told_once_what_is_faster() -> None:
    said: list[str] = []
    advice = WaitingAdvice(PILLOW, said.append)
    for line in range(6):
        advice({"seconds": line * SOON / 3, "images_per_second": 100.0, "waiting": 0.4}, line)
        assert len(said) == (line >= 3)
    assert said[0].startswith("Waiting for images takes 40% of the steps' time: sooner with --cache FOLDER")
    quick: list[str] = []
    advice = WaitingAdvice(PILLOW, quick.append)
    for line in range(6):
        advice({"seconds": line * SOON, "waiting": 0.09}, line)
        advice({"seconds": line * SOON}, line)  # a measurement
    assert quick == []


@pytest.mark.parametrize(
    ("recipe", "ways"),
    [
        (PILLOW | {"engine": "opencv", "cache": "folder"}, ["device"]),
        (PILLOW | {"engine": "device", "cache": "folder"}, ["resident"]),
        (PILLOW | {"workers": 0}, ["opencv", "device", "cache", "workers"]),
        (PILLOW | {"engine": "device", "cache": "folder", "resident": True}, ["more cores"]),
        ({"workers": None}, ["more cores"]),  # of training with labels, which has neither engine nor cache
    ],
)
def test_what_is_faster_is_what_the_run_does_not_use_yet(recipe: dict[str, Any], ways: list[str]) -> None:
    told = in_words(0.5, recipe)
    everything = {"opencv", "device,", "FOLDER", "workers", "resident", "more cores"}
    assert {way for way in everything if way in told} == {
        {"device": "device,", "cache": "FOLDER"}.get(w, w) for w in ways
    }


@pytest.mark.parametrize("engine", get_args(Engine))
def test_a_run_under_way_is_not_told_to_take_what_it_would_be_refused(engine: str) -> None:
    """Whatever may not differ when a run goes on is for another run."""
    now, _, elsewhere = in_words(0.5, PILLOW | {"engine": engine, "workers": 0}).partition("in another run (--out), ")
    assert all(word in FREE for word in re.findall(r"--(\w+)", now))
    assert all(word not in FREE for word in re.findall(r"--(\w+)", elsewhere))
    assert bool(elsewhere) == (engine != "device")


def test_the_page_tells_the_share_of_all_steps(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "seconds": 1.0},
        {"step": 10, "seconds": 12.0, "images_per_second": 10.0, "waiting": 0.5},
        {"step": 10, "seconds": 20.0},
        {"step": 30, "seconds": 41.0, "images_per_second": 20.0, "waiting": 0.1},
    ]
    assert share_of(lines) == pytest.approx(0.3)
    assert share_of(lines[:1]) is None
    (tmp_path / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert waiting(tmp_path) == {"Waiting for images": f"30% of the steps' time: {in_words(0.3, {}).split(': ')[1]}"}
    assert waiting(tmp_path / "elsewhere") == {}
