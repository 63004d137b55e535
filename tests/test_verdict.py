"""The verdict on a backbone: the comparison against slow literal versions, and its words for whatever was found."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import TRAIN, evaluate_as, labelled_images
from runs import image_folder, run_whole, stop, tiny
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from unusual_start import network as some_network
from whole_runs import data

from ssl_backbones.commands import evaluate
from ssl_backbones.data import by_content, open_images
from ssl_backbones.evaluate.evaluation import identity
from ssl_backbones.files import read_object
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.metrics import effective_rank, knn_predict, wilson_interval
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.runs.trend import late_trend
from ssl_backbones.runs.verdict import FEW_STEPS, opening, sentences
from ssl_backbones.train import baselines
from ssl_backbones.train.baselines import FEWEST, MOST, WEIGHT_DECAY, Question, Seen, compared, images_asked
from ssl_backbones.typed.words import CommandLineError
from ssl_backbones.views import permutation

__all__ = ["data"]

TRAINED_WITH = "This backbone was trained with the labels that are asked about"


def seen(name: str, strength: float, labels: Tensor, seed: int) -> Seen:
    """Features of a network that tells classes apart as strongly as is said, and its views not much worse."""
    stream = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 8, generator=stream)
    rows = strength * centres[labels.clamp_min(0)] + torch.randn(len(labels), 8, generator=stream)
    return Seen(name, f"sha of {name}", rows, rows + 0.5 * torch.randn(rows.shape, generator=stream))


def labels_of(count: int) -> Tensor:
    return torch.randint(-1, 3, (count,), generator=torch.Generator().manual_seed(4))


def test_the_comparison_is_what_each_measure_says_by_hand() -> None:
    labels = labels_of(150)
    own, other = seen("this backbone", 3.0, labels, 0), seen("random weights", 0.3, labels, 1)
    told = compared(own, [other], Question(labels, seed=6), {"of": 900})
    known = labels >= 0
    assert (told["images"], told["of"], told["labelled"]) == (150, 900, int(known.sum()))
    right: dict[str, dict[str, np.ndarray]] = {}
    for network, of in zip(told["networks"], (own, other), strict=True):
        rows, answers = of.rows[known], labels[known]
        knn = knn_predict(rows, answers, rows, k=20, exclude_self=True) == answers
        halves = np.array_split(permutation(6, 2, len(rows)), 2)
        probe = np.zeros(len(rows), bool)
        for learnt, asked in (halves, halves[::-1]):
            model = make_pipeline(
                StandardScaler(), LogisticRegression(C=1 / (WEIGHT_DECAY * len(learnt)), max_iter=999)
            )
            model.fit(rows[learnt].double().numpy(), answers[learnt].numpy())
            probe[asked] = model.predict(rows[asked].double().numpy()) == answers[asked].numpy()
        unit = torch.nn.functional.normalize(of.views, dim=1) @ torch.nn.functional.normalize(of.rows, dim=1).T
        found = unit.argmax(dim=1) == torch.arange(150)
        right[network["name"]] = {"knn": knn.numpy(), "probe": probe, "retrieval": found.numpy()}
        for name, answered in right[network["name"]].items():
            interval = wilson_interval(int(answered.sum()), len(answered))
            number = network["numbers"][name]
            assert (number["value"], number["low"], number["high"]) == (interval.value, interval.low, interval.high)
        assert network["numbers"]["rank"]["value"] == effective_rank(of.rows)
    for name, gain in told["networks"][1]["gain"].items():
        means = [answers[name].mean() for answers in right.values()]
        assert gain["value"] == pytest.approx(means[0] - means[1])
        assert gain["low"] <= gain["value"] <= gain["high"]
    assert told["networks"][0]["gain"] == {}
    (opening, on, beside) = sentences({"baselines": told})
    assert opening == "This backbone has learned: it is better than random weights."
    assert on.startswith(f"On 150 images, {int(known.sum())} of them labelled (95 % intervals): k-NN ")
    assert "Against random weights, of which this is one draw, on the same images: k-NN +" in beside


@pytest.mark.parametrize("labels", [None, torch.full((60,), -1), torch.zeros(60, dtype=torch.long), labels_of(12)])
def test_without_labels_to_tell_apart_nothing_asks_for_them(labels: Tensor | None) -> None:
    count = 60 if labels is None else len(labels)
    networks = [seen(name, 1.0, torch.zeros(count, dtype=torch.long), seed) for seed, name in enumerate("ab")]
    told = compared(networks[0], networks[1:], Question(labels, 0), {})
    assert told["labelled"] == 0
    assert all(network["numbers"].keys() == {"retrieval", "rank"} for network in told["networks"])
    assert ("low" in told["networks"][0]["numbers"]["rank"]) == (count >= 20)
    assert "without labels" in sentences({"baselines": told})[1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_are_compared_all_the_same(count: int) -> None:
    one = seen("this backbone", 1.0, torch.zeros(count, dtype=torch.long), 0)
    told = compared(one, [], Question(torch.arange(count), 0), {})
    assert told["networks"][0]["numbers"]["retrieval"]["of"] == count
    assert len(sentences({"baselines": told})) == 2


def test_the_comparison_costs_a_few_percent() -> None:
    assert images_asked(10**6, 24 * 128) == FEWEST
    assert images_asked(10, 10**9) == 10
    assert images_asked(10**6, 10**9) == MOST
    assert 4 * images_asked(3000, 100_000) <= 0.03 * 100_000


MEASURES = ("knn", "probe", "retrieval")


def words(steps: int | None = None, trend: dict[str, Any] | None = None, **gains: tuple[float, float]) -> list[str]:
    """The verdict on a network with these gains over random weights."""
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "of": 100}
    numbers = dict.fromkeys(gains, share) | {"rank": {"value": 9.0, "low": 8.0, "high": 10.0}}
    gain = {name: {"value": (low + high) / 2, "low": low, "high": high} for name, (low, high) in gains.items()}
    networks = [
        {"name": "this backbone", "features": 8, "numbers": numbers, "gain": {}},
        {"name": "random weights", "features": 8, "numbers": numbers, "gain": gain},
    ]
    told: dict[str, Any] = {"baselines": {"images": 100, "labelled": 100 * ("knn" in gains), "networks": networks}}
    told |= {} if steps is None else {"steps": steps, "data": {"images": 302}}
    return sentences(told | ({} if trend is None else {"trend": trend}))


UP, FLAT, DOWN = (0.02, 0.1), (-0.05, 0.06), (-0.2, -0.01)


@pytest.mark.parametrize("measure", ["knn", "retrieval"])
@pytest.mark.parametrize("random", [UP, DOWN])
@pytest.mark.parametrize(
    ("start", "said"),
    [(UP, "has learned: it "), (FLAT, "is not shown to be better than its start"), (DOWN, "is worse than its start")],
)
def test_a_run_with_a_start_is_judged_by_what_it_added_to_it(
    start: tuple[float, float], said: str, random: tuple[float, float], measure: str
) -> None:
    def gain(ends: tuple[float, float]) -> dict[str, Any]:
        return {measure: {"value": sum(ends) / 2, "low": ends[0], "high": ends[1]}}

    names = {"this backbone": {}, "random weights": gain(random), "its start, theirs": gain(start)}
    baselines = {
        "labelled": measure == "knn",
        "networks": [{"name": name, "gain": gain} for name, gain in names.items()],
    }
    told = opening({}, baselines)
    assert said in told
    assert "its start" in told
    assert "random" not in told


@pytest.mark.parametrize(("knn", "probe"), list(product((UP, FLAT, DOWN), repeat=2)))
def test_the_outcome_is_said_only_where_its_interval_shows_it(
    knn: tuple[float, float], probe: tuple[float, float]
) -> None:
    first, _, beside = words(knn=knn, probe=probe, retrieval=DOWN)
    better, worse = UP in (knn, probe), DOWN in (knn, probe)
    assert ("has learned" in first) == (better and not worse)
    assert ("is worse than random" in first) == (worse and not better)
    assert ("not shown to be better" in first) == ("no difference is shown" in beside) == (not better and not worse)
    assert ("by one measure and worse by another" in first) == (better and worse)


@pytest.mark.parametrize(("gain", "said"), [(UP, "has learned"), (FLAT, "not shown"), (DOWN, "is worse")])
def test_without_labels_retrieval_decides(gain: tuple[float, float], said: str) -> None:
    assert said in words(retrieval=gain)[0]


@pytest.mark.parametrize("steps", [1, 24, FEW_STEPS - 1, FEW_STEPS, 100_000])
def test_few_steps_are_next_to_nothing_whatever_was_measured(steps: int) -> None:
    opening = words(steps, knn=UP)[0]
    assert ("too few to judge" in opening) == (steps < FEW_STEPS)
    assert ("has learned" in opening) == (steps >= FEW_STEPS)
    if steps == 24:
        assert opening.startswith("This run had only 24 steps on 302 images, too few to judge")


def log(*shares: float, name: str = "retrieval", every: int = 100, kept: float = 0.5) -> list[dict[str, Any]]:
    """The lines of a run that was measured so many times, with those of its steps between."""
    lines: list[dict[str, Any]] = []
    for number, share in enumerate(shares):
        lines.append({"step": every * number + 10, "loss": 1.0, "lr": 0.1})
        lines.append({"step": every * number, "rank": 3.0, name: share} | ({"kept": kept} if number else {}))
    return lines


def test_a_trend_is_of_the_second_half_alone() -> None:
    trend = late_trend(log(0.1, 0.9, 0.5, 0.6, 0.7), {"knn": 50, "retrieval": 500})
    assert (trend["of"], trend["steps"], trend["shares"], trend["kept"]) == (
        *("retrieval", [200, 300, 400], [0.5, 0.6, 0.7]),
        [0.5] * 3,
    )
    assert trend["change"]["value"] == pytest.approx(0.2, abs=0.005)
    assert trend["change"]["low"] < 0.2 < trend["change"]["high"]
    both = [line | {"knn": 0.4} if "rank" in line else line for line in log(0.1, 0.2, 0.3)]
    assert late_trend(both, {"knn": 50, "retrieval": 500})["of"] == "knn"
    assert late_trend([], {"knn": 5}) == late_trend(log(0.1, name="std"), {"knn": 5}) == {}
    assert "change" not in late_trend(log(0.1, 0.2, 0.3), {"retrieval": 500})


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5), "it rose, while the learning rate fell. A longer run may end higher"),
        ((0.5, 0.5, 0.5, 0.4, 0.3), "it fell. A shorter run may end higher"),
        ((0.5, 0.5, 0.5, 0.5, 0.5), ": no significant change."),
        ((0.5, 0.9, 0.985, 0.99, 1.0), "this figure can tell no more"),
        ((0.1, 0.2, 0.3), "Measured twice in the second half of the run: too seldom to tell"),
        ((0.1,), "Measured never in the second half"),
    ],
)
def test_the_second_half_of_a_run_rose_or_fell_or_nobody_knows(shares: tuple[float, ...], said: str) -> None:
    told = words(500, late_trend(log(*shares), {"retrieval": 500}), retrieval=UP)
    assert said in told[3]
    assert len(told) == (5 if "From step" in told[3] else 4)


def test_nothing_is_said_of_what_was_not_compared() -> None:
    assert sentences({"numbers": {}, "steps": 3}) == []


def test_a_run_ends_with_its_verdict(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_whole(tiny(BYOLConfig, data, tmp_path / "run")).path
    results, said = read_object(folder / "results.json", ""), capsys.readouterr().out
    names = [network["name"] for network in results["baselines"]["networks"]]
    assert names == ["this backbone", "random weights", "resnet8_byol.imagenette32_60ep"]
    own, random, _ = results["baselines"]["networks"]
    assert own["weights_sha256"] == results["weights_sha256"]
    assert own["numbers"]["rank"]["value"] == pytest.approx(results["numbers"]["rank"]["value"])
    assert random["numbers"]["rank"]["value"] == pytest.approx(results["numbers"]["rank before"]["value"], rel=1e-4)
    assert results["verdict"] == sentences(results)
    assert "only 6 steps on 26 images" in results["verdict"][0]
    page = (folder / "gallery.html").read_text()
    for sentence in results["verdict"]:
        assert f"Verdict: {sentence}" in said
        assert sentence.split(",")[0] in page
    assert "Verdict: 26 of 26 images, seen by random weights." in said


def test_a_comparison_that_fails_costs_no_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*asked: object) -> None:
        raise AssertionError("no such network")

    monkeypatch.setattr(baselines, "weights_at_hand", broken)
    results = read_object(run_whole(tiny(BYOLConfig, data, tmp_path / "run", epochs=1)).results, "")
    assert "the comparison with other networks failed (AssertionError: no such network)" in capsys.readouterr().out
    assert "baselines" not in results
    assert results["verdict"] == []


def test_a_run_is_held_against_no_other_start(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither at its end, where it is cut after another start took the place, nor when it is evaluated."""
    monkeypatch.setattr(baselines, "weights_at_hand", lambda *asked: None)
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=str(tmp_path / "start"))
    save_backbone(some_network(1), tmp_path / "start", "resnet8")
    stop(recipe, 1)
    shutil.rmtree(tmp_path / "start")
    save_backbone(some_network(2), tmp_path / "start", "resnet8")
    run_whole(replace(recipe, max_steps=1))
    results = read_object(tmp_path / "run" / "results.json", "")
    assert results["start"]["sha256"] == weights_sha256(some_network(1))
    words = ["--data", str(data), "--size", "16", "--workers", "0", "--out", str(tmp_path / "out")]
    capsys.readouterr()
    for told in (results, evaluate_as("diagnose", str(tmp_path / "run" / "backbone"), *words)):
        assert [other["name"] for other in told["baselines"]["networks"][1:]] == ["random weights"]
    assert "Skipped the comparison with its start" in capsys.readouterr().out


def test_what_finds_its_own_images_is_not_told_to_know_classes() -> None:
    told = words(500, {}, retrieval=UP)
    assert "finds its own images better than random weights do" in told[0]
    assert "not measured, as there are no labels" in told[0]


def test_random_weights_have_no_trend(data: Path, tmp_path: Path) -> None:
    folder = run_whole(tiny(BYOLConfig, data, tmp_path / "run", epochs=1)).path
    assert read_object(folder / "results.json", "")["trend"]
    words = ["--data", str(data), "--size", "16", "--workers", "0"]
    for random, out in ((True, "random"), (False, "trained")):
        found = evaluate_as(
            "diagnose", str(folder / "backbone"), *words, *(["--random"] * random), "--out", str(tmp_path / out)
        )
        assert ("trend" in found) is not random


def test_diagnose_gives_the_verdict_on_any_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = labelled_images(tmp_path / "photos")
    words = ["--data", str(images / "train"), "--size", "16", "--workers", "0"]
    results = evaluate_as("diagnose", "resnet8_moco_v2.clothing10_32_200ep", *words, "--out", str(tmp_path / "d"))
    names = [network["name"] for network in results["baselines"]["networks"]]
    assert names[1:] == ["random weights", "resnet8_byol.imagenette32_60ep"]
    assert results["verdict"] == sentences(results)
    assert results["baselines"]["labelled"] == TRAIN
    assert f"Verdict: {results['verdict'][0]}" in capsys.readouterr().out
    none = evaluate_as("diagnose", "resnet8_byol", "--random", *words, "--out", str(tmp_path / "n"), "--compared", "0")
    assert "verdict" not in none


def test_folders_that_are_no_classes_are_said_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    albums = image_folder(tmp_path / "photos", 44, ("2019", "2020"))
    words = ["resnet8_byol.imagenette32_60ep", "--data", str(albums), "--size", "16", "--workers", "0"]
    by_album = evaluate_as("diagnose", *words, "--out", str(tmp_path / "by_album"))
    assert by_album["baselines"]["labelled"] == 44
    assert "2 classes, from the folders 2019, 2020: --labels none to leave them out." in capsys.readouterr().out
    found = evaluate_as("diagnose", *words, "--labels", "none", "--out", str(tmp_path / "by_image"))
    assert "2 classes" not in capsys.readouterr().out
    assert all(set(one["numbers"]) == {"retrieval", "rank"} for one in found["baselines"]["networks"])
    assert "without labels" in found["verdict"][1]
    with pytest.raises(CommandLineError, match="labels is 'none'"):
        evaluate.parse(["diagnose", *words, "--labels", "none", "--hold_out", "2", "--out", "x"], "evaluate")


def test_an_evaluation_that_an_older_version_began_is_the_same(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos", 24, ("2019", "2020"))
    words = ["resnet8", "--random", "--data", str(photos), "--size", "16", "--workers", "0", "--out", str(tmp_path)]
    asked = evaluate.parse(["diagnose", *words], "evaluate").asked
    one = identity("diagnose", asked, asked.open_model(), open_images(str(photos)), None, by_content)
    assert "labels" not in one["options"]
