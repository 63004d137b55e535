"""evaluate.py from its words to results.json: what each protocol finds, says and refuses."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import runs
import torch
from evaluations import ASKED, QUICK, TRAIN, VALIDATION, evaluated, labelled_images, parquet, refusal
from two_processes import run_two_processes

from ssl_backbones.commands import evaluate
from ssl_backbones.data import Batches, open_images
from ssl_backbones.distributed import world_size
from ssl_backbones.evaluate import features
from ssl_backbones.evaluate.classification.head_training import logits_of
from ssl_backbones.evaluate.features import Extraction, features_of
from ssl_backbones.evaluate.labelled import Labelled
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.evaluate.options import FREE, EvaluationOptions
from ssl_backbones.evaluate.protocols import knn, logistic, mlp
from ssl_backbones.metrics import wilson_interval
from ssl_backbones.recipes.sample import IMAGES
from ssl_backbones.views import MultiView


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_images(tmp_path_factory.mktemp("evaluate") / "photos")


def test_what_may_differ_in_a_folder_are_options() -> None:
    assert {field.name for field in fields(EvaluationOptions)} >= FREE


@pytest.mark.parametrize("protocol", ["knn", "logistic", "mlp", "diagnose"])
def test_a_protocol_leaves_its_results(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    results = evaluated(protocol, data, tmp_path / "out")
    assert results["data"]["fingerprint"] == open_images(str(data / "train")).fingerprint
    assert results["data"]["images"] == TRAIN
    assert (results["model"], results["seed"], results["settings"]["size"]) == ("resnet8", 0, 16)
    assert results["compute"] == {"device": "cpu", "processes": 1, "precision": "fp32"}
    assert (len(results["weights_sha256"]), results["architecture"]) == (64, "resnet8")
    for number in results["numbers"].values():
        assert number["low"] <= number["value"] <= number["high"]
        if "correct" in number:
            interval = wilson_interval(number["correct"], VALIDATION)
            assert (number["value"], number["low"], number["high"]) == (interval.value, interval.low, interval.high)
    if protocol != "diagnose":
        assert results["validation"]["images"] == VALIDATION
        assert sum(number["of"] for number in results["per_class"]["classes"].values()) == VALIDATION
        right = sum(number["correct"] for number in results["per_class"]["classes"].values())
        assert right == results["numbers"][results["per_class"]["of"]]["correct"]
        assert results["chance"] == 11 / 31
    before = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    assert evaluated(protocol, data, tmp_path / "out") == results
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == before
    assert "holds the finished evaluation" in capsys.readouterr().out
    assert "options.seed is 0 there and 1 here" in refusal(capsys, protocol, data, tmp_path / "out", "--seed", "1")
    assert (tmp_path / "features").is_dir()


def test_views_are_drawn_by_the_seed_and_kept_middle_crops_serve_every_seed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[bool, int]] = []

    def noting(images: Any, transform: Any, seed: int) -> Batches:
        drawn.append((isinstance(transform, MultiView), seed))
        return Batches(images, transform, seed)

    monkeypatch.setattr(features, "Batches", noting)
    evaluated("diagnose", data, tmp_path / "out", "--seed", "5")
    assert set(drawn) == {(True, 5), (False, 0)}


@pytest.mark.parametrize("left", [0, 100])
def test_results_that_were_cut_short_are_measured_again(left: int, data: Path, tmp_path: Path) -> None:
    results = evaluated("knn", data, tmp_path / "out")
    os.truncate(tmp_path / "out" / "results.json", left)
    assert evaluated("knn", data, tmp_path / "out") == results


def features_and_labels(data: Path) -> list[np.ndarray]:
    """The input of the protocols: features and labels to learn from, and to test on."""
    model = open_model("resnet8", torch.device("cpu"), size=16, random=True)
    found = []
    for part in ("train", "val"):
        images = open_images(str(data / part))
        found += [features_of(model, images, Extraction()).rows.double().numpy(), np.asarray(images.labels)]
    return found


def test_every_cell_of_the_sweep_is_scikit_learns(data: Path, tmp_path: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    results = evaluated("knn", data, tmp_path / "out", "--ks", "1", "7", "--temperatures", "0.5")
    rows, labels, asked, truth = features_and_labels(data)
    cells = {(number["k"], number["temperature"]) for number in results["numbers"].values()}
    assert cells == {(k, temperature) for k in (1, 7, 20, 200) for temperature in (0.07, 0.5)}
    for k, temperature in cells:
        oracle = KNeighborsClassifier(
            min(k, TRAIN), metric="cosine", weights=lambda distance, t=temperature: np.exp(-distance / t)
        )
        right = int((oracle.fit(rows, labels).predict(asked) == truth).sum())
        assert results["numbers"][knn.name_of(k, temperature)]["correct"] == right


def test_what_is_chosen_is_best_on_the_bank(data: Path, tmp_path: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    results = evaluated("knn", data, tmp_path / "out", "--ks", "3", "--temperatures", "0.5")
    rows, labels, _, _ = features_and_labels(data)
    alone: dict[str, int] = {}
    for number in (number for name, number in results["numbers"].items() if name != "chosen"):
        right = 0
        for row in range(TRAIN):
            others = np.arange(TRAIN) != row
            oracle = KNeighborsClassifier(
                min(number["k"], TRAIN - 1),
                metric="cosine",
                weights=lambda distance, t=number["temperature"]: np.exp(-distance / t),
            )
            right += int(oracle.fit(rows[others], labels[others]).predict(rows[row : row + 1])[0] == labels[row])
        alone[knn.name_of(number["k"], number["temperature"])] = right
    chosen = results["chosen"]
    assert chosen["there"]["correct"] == max(alone.values()) == alone[chosen["name"]]
    assert results["numbers"]["chosen"] == results["numbers"][chosen["name"]]
    assert evaluated("knn", data, tmp_path / "none", "--choose_by", "0")["chosen"] is None


def test_without_images_to_ask_about_each_is_held_against_the_others(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "train", tmp_path / "photos")
    results = evaluated("knn", tmp_path / "photos", tmp_path / "out")
    assert (results["kind"], results["chosen"], results["validation"]) == ("each image against the others", None, None)
    assert results["numbers"]["k=1, T=0.07"]["of"] == TRAIN
    assert results["numbers"]["k=1, T=0.07"]["value"] < 1
    assert max(number["k"] for number in results["numbers"].values()) == 10
    assert results["standard"] == {"largest": results["per_class"]["of"]} == {"largest": "k=10, T=0.07"}
    for protocol in ("mlp", "logistic"):
        sentence = refusal(capsys, protocol, tmp_path / "photos", tmp_path / protocol)
        assert "needs validation images, and" in sentence
        assert "--validation" in sentence
    with_val = evaluated("mlp", tmp_path / "photos", tmp_path / "mlp", "--validation", str(data / "val"))
    assert with_val["numbers"]["top-1"]["of"] == VALIDATION


@pytest.mark.parametrize(("classes", "each"), [(2, 4), (2, 50), (2, 150), (8, 8), (2, 500), (50, 8)])
def test_features_without_information_score_chance_by_every_k_against_each_other(classes: int, each: int) -> None:
    labels = torch.arange(classes).repeat(each)
    options = knn.Options(model="", data="", out="")
    asked: Any = SimpleNamespace(images=SimpleNamespace(classes=range(classes)), model=SimpleNamespace(device="cpu"))
    values: dict[str, list[float]] = {}
    for seed in range(4):
        rows = torch.randn(len(labels), 16, generator=torch.Generator().manual_seed(seed))
        grid = knn.Grid(options, asked, Labelled(rows, labels, 0, ()), among_themselves=True)
        numbers, told = knn.results(grid, grid.among_themselves(np.arange(len(labels))), labels)
        assert told["per_class"]["of"] in told["standard"].values()
        for name, number in numbers.items():
            values.setdefault(name, []).append(number["value"])
    sigma = (1 / classes * (1 - 1 / classes) / len(labels)) ** 0.5
    assert {name: found for name, found in values.items() if abs(np.mean(found) - told["chance"]) > 3 * sigma} == {}


def test_one_layer_is_no_mlp(data: Path, tmp_path: Path) -> None:
    assert evaluated("mlp", data, tmp_path / "two")["protocol"] == "mlp"
    assert evaluated("mlp", data, tmp_path / "one", "--layers", "1")["protocol"] == "linear probe on cached features"
    options = mlp.Options(model="", data="", out="")
    assert [tuple(value.shape) for value in mlp.head_of(64, 10, options).state_dict().values()] == [
        (256, 64), (256,), (10, 256), (10,),
    ]  # fmt: skip
    assert (options.epochs, options.train_batch_size, options.lr, options.weight_decay) == (100, 32, 1e-3, 0)


def test_a_head_learns_what_is_there_and_nothing_else() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (600,), generator=stream)
    rows = torch.nn.functional.one_hot(labels, 4) + 0.1 * torch.randn(600, 4, generator=stream)
    for layers in (1, 2):
        options = mlp.Options(model="", data="", out="", layers=layers, epochs=10, lr=0.05)
        head = mlp.train(rows[:400], labels[:400], 4, options)
        assert (logits_of(head, rows[400:]).argmax(1) == labels[400:]).all()
        shuffled = labels[torch.randperm(600, generator=stream)]
        head = mlp.train(rows[:400], shuffled[:400], 4, options)
        right = logits_of(head, rows[400:]).argmax(1) == shuffled[400:]
        assert abs(right.double().mean().item() - 0.25) < 3 * (0.25 * 0.75 / 200) ** 0.5


@pytest.mark.parametrize("protocol", ["knn", "logistic", "mlp"])
def test_images_without_a_label_are_left_out_and_counted(tmp_path: Path, protocol: str) -> None:
    train = [None if number % 5 == 0 else "ab"[number % 2] for number in range(40)]
    parquet(tmp_path / "train.parquet", train)
    parquet(tmp_path / "validation.parquet", ["b", None, "a", "a", None, "b"])
    results = evaluated(protocol, tmp_path, tmp_path / "out")
    first, second = ("bank", "queries") if protocol == "knn" else ("learnt_from", "asked_about")
    assert results[first] == {"images": 32, "unlabelled": 8, "unreadable": []}
    assert results[second] == {"images": 4, "unlabelled": 2, "unreadable": []}
    assert next(iter(results["numbers"].values()))["of"] == 4


def test_a_weight_decay_that_is_given_is_not_said_to_be_chosen(data: Path, tmp_path: Path) -> None:
    given = evaluated("logistic", data, tmp_path / "given", "--weight_decays", "0.01")
    assert given["weight_decay"] == {"chosen": 0.01, "by": "given", "tried": {}}
    chosen = evaluated("logistic", data, tmp_path / "chosen", "--weight_decays", "0.01", "0.1")["weight_decay"]
    assert (len(chosen["tried"]), chosen["by"]) == (2, "0.2 of each class, held out")


def test_an_image_that_cannot_be_read_is_left_out(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "photos")
    (tmp_path / "photos" / "train" / "hat" / "01.jpg").write_bytes(b"no image")
    results = evaluated("knn", tmp_path / "photos", tmp_path / "out")
    assert results["bank"] == {"images": TRAIN - 1, "unlabelled": 0, "unreadable": ["hat/01.jpg"]}


def on_a_rank(rank: int, data: str, out: str) -> dict[str, Any]:
    """The numbers of every protocol in this process, one of two or the only one."""
    found = {}
    for protocol, more in QUICK.items():
        runs.forget()
        words = [protocol, *ASKED, "--batch_size", "7", "--data", data, "--out", f"{out}/{protocol}", *more]
        options = evaluate.parse(words, "evaluate.py")
        results = options.protocol.run(options.asked)
        found[protocol] = (results["numbers"], results.get("near_copies"))
        assert results["compute"]["processes"] == world_size()
    return found


def test_two_processes_find_what_one_does(data: Path, tmp_path: Path) -> None:
    alone = on_a_rank(0, str(data), str(tmp_path / "one"))
    assert run_two_processes(on_a_rank, str(data), str(tmp_path / "two")) == [alone, alone]


def test_on_real_images_the_numbers_are_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = open_model("resnet8_byol", torch.device("cpu"), size=32, random=True)
    parts = []
    for name, count in (("train", 1500), ("validation", 700)):
        images = open_images(IMAGES / f"{name}.parquet")
        found = features_of(model, images, Extraction(), only=np.arange(count))
        parts += [found.rows, torch.from_numpy(np.asarray(images.labels)[:count])]
    rows, labels, asked, truth = parts
    oracle = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    expected = oracle.fit(rows.double().numpy(), labels.numpy()).predict(asked.double().numpy())
    named = knn.knn_sweep(rows, labels, asked, ks=[20], temperatures=[0.07])[0, 0]
    assert (named.numpy() == expected).mean() > 0.998  # a tie may fall either way
    weight_decay = 1e-3
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (weight_decay * len(rows)), max_iter=3000))
    theirs = (regression.fit(rows.double().numpy(), labels).predict(asked.double().numpy()) == truth.numpy()).mean()
    ours = (logistic.fit_classifier(rows, labels, 10, weight_decay).predict(asked) == truth).double().mean().item()
    assert ours == pytest.approx(theirs, abs=0.01)
    assert ours > 0.25
