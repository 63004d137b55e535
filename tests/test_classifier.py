"""The classifier that fine-tuning and a linear probe leave is the one that was tested, and tells classes of images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import labelled_runs
import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from labelled_runs import COLOURS, divided, results_of, small
from runs import after, killed, state

import ssl_backbones
from ssl_backbones.commands import main
from ssl_backbones.data import open_images
from ssl_backbones.evaluate.classification.finetune import FinetuneConfig
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.hub import save_backbone, save_classifier
from ssl_backbones.registry.errors import PretrainedWeightsError

TUNED = FinetuneConfig(views=LabelledViews(augment=False, test_crop_pct=0.75, test_interpolation="bilinear"))
CASES: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "finetune": (finetune, "patch", {"task": TUNED}, "method/head.0."),
    "semi": (semi, "lewel_10pct", {"share": 1.0}, "method/head.0."),
    "views": (linear, "lewel_b", {}, "method/head."),
    "features": (linear, "patch", {}, "module/"),
}
"""A protocol, a preset, choices, and the name of the layer in the state that the run saves."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with a licence and a preparation of its own."""
    torch.manual_seed(9)
    model = ssl_backbones.create_model("resnet8", num_classes=0)
    about = {"mean": (0.5, 0.4, 0.3), "interpolation": "bicubic", "crop_pct": 1.0, "license": "cc-by-nc-4.0"}
    return save_backbone(model, tmp_path_factory.mktemp("private") / "begun", "resnet8", **about)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("tinted"))


@pytest.fixture(scope="module")
def finished(start: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a case's run, made once."""

    @cache
    def made(name: str) -> Path:
        protocol, preset, fields, _ = CASES[name]
        out = tmp_path_factory.mktemp(name) / "run"
        labelled_runs.run(protocol, small(protocol, preset, data, out, model=str(start), random=False, **fields))
        return out

    return made


def predicted(model: Path, images: Path, out: Path, *more: str) -> list[dict[str, str]]:
    """The rows that predict writes."""
    words = ["predict", str(model), "--data", str(images), "--out", str(out), "--workers", "0", *more]
    assert main(words) == 0
    with open(out, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", CASES)
def test_a_run_leaves_the_network_that_it_tested(name: str, start: Path, finished: Callable[[str], Path]) -> None:
    out, kept = finished(name), state(finished(name))
    loaded = timm.create_model(f"local-dir:{out / 'classifier'}", pretrained=True).state_dict()
    begun = ssl_backbones.create_model(start, pretrained=True).state_dict()
    for key, value in loaded.items():
        own = CASES[name][3] + key.removeprefix("fc.") if key.startswith("fc.") else f"method/backbone.{key}"
        assert torch.equal(value, kept[own] if own in kept else begun[key]), key
    again = ssl_backbones.create_model(out / "classifier", pretrained=True)
    assert all(torch.equal(value, loaded[key]) for key, value in again.state_dict().items())
    assert results_of(out)["classifier"] == {"folder": "classifier", "classes": 3, "as_after": "the last step"}


@pytest.mark.parametrize("name", CASES)
def test_its_description_tells_classes_licence_and_preparation(name: str, finished: Callable[[str], Path]) -> None:
    out = finished(name)
    config = json.loads((out / "classifier" / "config.json").read_text())
    assert (config["label_names"], config["num_classes"]) == (sorted(COLOURS), 3)
    cfg = config["pretrained_cfg"]
    assert (cfg["license"], cfg["input_size"], cfg["mean"]) == ("cc-by-nc-4.0", [3, 16, 16], [0.5, 0.4, 0.3])
    tested = (0.75, "bilinear") if name == "finetune" else (1.0, "bicubic")
    assert (cfg["crop_pct"], cfg["interpolation"]) == tested
    said = str(ssl_backbones.describe(out / "classifier"))
    assert "Tells classes apart: blue, green, red." in said
    assert f"then trained with labels: {results_of(out)['protocol']}" in said
    assert "cc-by-nc-4.0, NON-COMMERCIAL" in said


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_those_of_the_test(
    name: str, data: Path, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    out, val = finished(name), data.parent / "val"
    rows = predicted(out / "classifier" if name == "views" else out, val, tmp_path / "p.csv")
    images, results = open_images(str(val)), results_of(out)
    assert images.labels is not None
    with np.load(out / "per_image.npz") as answers:
        assert [row["key"] for row in rows] == answers["keys"].tolist() == list(images.keys)
        assert [images.classes.index(row["class"]) for row in rows] == answers["predicted"].tolist()
        assert (answers["predicted"] == images.labels).tolist() == answers["top-1"].tolist()
        right = answers["top-1"]
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    each = results["per_class"]["classes"]
    assert {label: number["correct"] for label, number in each.items()} == {
        label: right[images.labels == place].sum() for place, label in enumerate(images.classes)
    }
    assert sum(number["correct"] for number in each.values()) == results["numbers"]["top-1"]["correct"]


def test_a_head_with_a_hidden_layer_leaves_none_and_says_so(
    start: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    labelled_runs.run(finetune, small(finetune, "patch", data, out, model=str(start), random=False))
    told = results_of(out)["classifier"]
    assert told["folder"] is None
    assert "its head has a hidden layer" in told["reason"]
    assert f"It leaves no classifier: {told['reason']}" in capsys.readouterr().out
    assert not (out / "classifier").exists()
    assert main(["predict", str(out), "--data", str(data), "--out", str(tmp_path / "p.csv")]) == 2
    assert "tells no classes apart: name the folder `classifier`" in capsys.readouterr().err


def test_a_search_of_the_learning_rate_leaves_the_best_ones(data: Path, tmp_path: Path) -> None:
    rates = {"learning_rates": (0.001, 0.01), "choose_on": "validation"}
    labelled_runs.run(linear, small(linear, "patch", data, tmp_path / "out", **rates))
    best = tmp_path / "out" / f"lr_{results_of(tmp_path / 'out')['learning_rates']['chosen']!r}"
    for file in ("model.safetensors", "config.json"):
        found = [(folder / "classifier" / file).read_bytes() for folder in (tmp_path / "out", best)]
        assert found[0] == found[1]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_one_that_was_lost_is_made_anew_without_training(
    file: str, start: Path, data: Path, finished: Callable[[str], Path]
) -> None:
    place = finished("views") / "classifier" / file
    before = place.read_bytes()
    place.unlink()
    with after(1, killed):
        labelled_runs.run(linear, small(linear, "lewel_b", data, finished("views"), model=str(start), random=False))
    assert place.read_bytes() == before


@pytest.mark.parametrize("names", [["a bag", "hat"], {"1": "hat", "0": "a bag"}, []], ids=str)
def test_any_classifier_predicts_by_name_or_by_number(
    names: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet8", num_classes=0).eval()
    layer = torch.nn.Linear(64, 3)
    torch.nn.init.normal_(layer.weight, std=20)
    place = save_classifier(model, layer, [], tmp_path / "model", "resnet8", input_size=(3, 16, 16))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "label_names": names}))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, file in enumerate(sorted(data.rglob("*_00.png"))):
        (photos / f"{number}.png").write_bytes(file.read_bytes())
    (photos / "3.png").write_bytes(b"no image")
    rows = predicted(place, photos, tmp_path / "p.csv", "--unreadable_share", "0.5")
    assert "of each of 3 images" in (said := capsys.readouterr().out)
    assert "1 that cannot be read left out" in said
    assert [row["key"] for row in rows] == ["0.png", "1.png", "2.png"]
    known = {"0": "a bag", "1": "hat", "2": "2"} if names else dict(zip("012", "012", strict=True))
    numbers = [next(number for number, name in known.items() if name == row["class"]) for row in rows]
    words = ["--data", str(photos), "--out", str(tmp_path / "p.parquet"), "--workers", "0", "--unreadable_share", "1"]
    assert main(["predict", str(place), *words]) == 0
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["key", "class", "probability"]
    assert table["class"].to_pylist() == [known[number] for number in numbers]
    assert main(["predict", str(place), *words]) == 2
    assert "p.parquet' exists" in capsys.readouterr().err


@pytest.mark.parametrize("names", [3, "bag", [1], {"x": "bag"}, {"0": 1}], ids=str)
def test_names_that_are_none_are_refused(names: Any, tmp_path: Path) -> None:
    model = timm.create_model("resnet8", num_classes=0)
    place = save_classifier(model, torch.nn.Linear(64, 2), [], tmp_path / "model", "resnet8")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "label_names": names}))
    with pytest.raises(PretrainedWeightsError, match="label_names"):
        ssl_backbones.create_model(place, pretrained=True)
