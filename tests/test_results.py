"""results.json has one shape, whichever command wrote it and whenever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from tinted import Tints

from ssl_backbones.files import UnreadableError
from ssl_backbones.metrics import wilson_interval
from ssl_backbones.runs.results import (
    PRETRAINING,
    as_points,
    in_words,
    proportion,
    read_results,
    results_of,
    upgraded,
    write_results,
)

RECORDS = [
    path for path in sorted((ROOT / "benchmarks" / "results").rglob("*.json")) if '"after_95"' in path.read_text()
]
"""Results of runs in the shape that they once had."""


def written(path: Path, **more: Any) -> dict[str, Any]:
    """Results of ten images."""
    told: dict[str, Any] = {"protocol": "knn", "model": "net", "weights_sha256": "0", "data": Tints(10), "seed": 0}
    return write_results(
        path,
        results_of(**told | {"numbers": {"top-1": proportion(7, 10)}, "device": "cpu", "precision": "fp32"} | more),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = written(tmp_path, settings={"k": 3}, validation=Tints(5), sources=("there", "here"), more={"chance": 0.5})
    assert read_results(tmp_path / "results.json", "write it anew") == results
    assert results["numbers"] == {"top-1": proportion(7, 10)}
    assert (results["data"]["source"], results["validation"]["images"], results["chance"]) == ("there", 5, 0.5)
    assert results["settings"] == {"k": 3}
    assert {"command", "date", "versions"} <= results.keys()
    assert not {"command", "settings"} & written(tmp_path).keys()


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the number 'top-1' is \{'low': 0\}, which holds no value"):
        written(tmp_path, numbers={"top-1": {"low": 0}})
    with pytest.raises(ValueError, match="results have 'seed' already"):
        written(tmp_path, more={"seed": 1})
    assert not list(tmp_path.iterdir())
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UnreadableError, match=r"results.json cannot be read \(it holds no object\): write it anew"):
        read_results(tmp_path / "results.json", "write it anew")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.relative_to(ROOT / "benchmarks" / "results")))
def test_results_of_the_older_shape_are_read_without_loss(path: Path) -> None:
    old, new = json.loads(path.read_text()), read_results(path, "write it anew")
    numbers, knn = new["numbers"], old["knn"]
    after = numbers["knn"]
    assert (numbers["knn before"]["value"], after["value"], after["k"]) == (knn["before"], knn["after"], knn["k"])
    assert [after["low"], after["high"]] == knn["after_95"]
    assert after["correct"] / after["of"] == knn["after"]
    assert numbers["knn gain"] == {
        "value": knn["gain"],
        "low": knn["gain_95"][0],
        "high": knn["gain_95"][1],
        "of": knn["queries"],
    }
    for name in ("std", "rank"):
        if name in old:
            assert (numbers[f"{name} before"]["value"], numbers[name]["value"]) == tuple(old[name].values())
    assert (new["chance"], new["kind"]) == (knn["chance"], knn["protocol"])
    assert (new["bank"], new["queries"]) == ({"images": knn["bank"]}, {"images": knn["queries"]})
    kept = old.keys() - {"knn", "std", "rank"}
    assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    assert upgraded(new) == new


def test_the_interval_that_the_older_shape_left_out_is_wilsons() -> None:
    old = json.loads(RECORDS[0].read_text())
    before = upgraded(old)["numbers"]["knn before"]
    interval = wilson_interval(before["correct"], before["of"])
    assert (before["value"], before["low"], before["high"]) == (interval.value, interval.low, interval.high)


@pytest.mark.parametrize("old", [{}, {"model": "resnet8_byol", "epochs": 3}])
def test_a_run_that_measured_nothing_has_no_numbers(old: dict[str, Any]) -> None:
    assert upgraded(old) == {"protocol": PRETRAINING, "validation": None, "numbers": {}} | old


@pytest.mark.parametrize(
    ("number", "told"),
    [
        ({"value": 0.61284, "low": 0.59, "high": 0.63}, "0.613 [0.59, 0.63]"),
        ({"value": 12.3456}, "12.3"),
        ({"value": 0.5777126, "low": 0.52470844, "high": 0.62898536, "of": 341}, "57.8 % [52.5, 62.9]"),
        (None, "not measured"),
    ],
)
def test_a_number_is_told_in_words(number: dict[str, float] | None, told: str) -> None:
    assert in_words(number) == told


def test_a_gain_is_told_in_points() -> None:
    assert as_points({"value": 0.211, "low": -0.0004, "high": 0.263}) == "+21.1 points [-0.0, +26.3]"
