"""Labels that a backbone was trained with: whatever asks about them says so, and no card counts what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluations import evaluate_as
from huggingface_hub.errors import LocalEntryNotFoundError
from runs import image_folder, run_whole, tiny
from whole_runs import data

from ssl_backbones import create_model
from ssl_backbones.data import open_images
from ssl_backbones.data.labels import unlabelled
from ssl_backbones.data.subset import HELD_OUT, Selection, hold_out
from ssl_backbones.evaluate.learned import learned_from
from ssl_backbones.files import read_object, write_json
from ssl_backbones.hub.evaluation_section import verdict as card_verdict
from ssl_backbones.hub.evaluations import index, remarks
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import BYOLConfig, MethodConfig, SupervisedConfig
from ssl_backbones.models import provenance
from ssl_backbones.models.provenance import records
from ssl_backbones.runs.results import about, proportion
from ssl_backbones.runs.verdict import sentences

__all__ = ["data"]

TRAINED_WITH = "This backbone was trained with the labels that are asked about"


@pytest.mark.parametrize("kind", [BYOLConfig, SupervisedConfig])
def test_labels_that_a_network_learned_from_say_nothing_of_others(
    kind: type[MethodConfig], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = kind is SupervisedConfig
    folder = run_whole(tiny(kind, data, tmp_path / "run", epochs=1)).path
    words = ["--data", str(data), "--size", "16", "--workers", "0", "--out", str(tmp_path / "out")]
    for told in (read_object(folder / "results.json", ""), evaluate_as("diagnose", str(folder / "backbone"), *words)):
        assert told.get("learned_from_these_labels", False) is learned
        opening = sentences({name: value for name, value in told.items() if name != "steps"})[0]
        assert opening.startswith(TRAINED_WITH) is learned
    front, _, card = (folder / "README.md").read_text().partition("license")
    assert ("the backbone was trained with these labels" in card) is learned
    assert ("k-NN accuracy" in front + card.partition("---")[0]) is not learned
    others = image_folder(tmp_path / "others", 20, ("cat", "dog"))
    words = ["--data", str(others), "--size", "16", "--workers", "0", "--out", str(tmp_path / "others_out")]
    assert "learned_from_these_labels" not in evaluate_as("diagnose", str(folder), *words)


@pytest.mark.parametrize(
    ("recipe", "learned"),
    [
        ({"name": "r", "model": "resnet8_supervised", "method": {}}, True),
        ({"name": "r", "model": "resnet8_byol", "method": {}}, False),
        ({"model": "resnet8", "task": {}}, True),
        ({}, False),
    ],
    ids=["with labels", "without", "finetuned", "no run"],
)
def test_labels_that_a_run_learned_from_are_known_in_every_part_of_the_source(
    recipe: dict[str, Any], learned: bool, data: Path, tmp_path: Path
) -> None:
    """Those that it held out are no such labels, and more of them than it held out are."""
    photos = open_images(str(data))
    trained, held_out = hold_out(photos, 3)
    write_json(tmp_path / "results.json", {"numbers": {}, "data": about(trained, "photos")})
    if recipe:
        write_json(tmp_path / "recipe.json", recipe)
    Selection(hold_out=3).save(tmp_path, held_out)
    for images in (photos, trained, *hold_out(photos, 5), hold_out(photos, 2)[0]):
        assert learned_from(str(tmp_path), images) is learned
    for images in (held_out, hold_out(photos, 2)[1], unlabelled(photos)):
        assert not learned_from(str(tmp_path), images)


@pytest.mark.parametrize(
    "spelling",
    [
        "{run}",
        "{run}/",
        "{run}/backbone",
        "{run}/backbone/model.safetensors",
        "local-dir:{run}/backbone",
        "backbone",
        ".",
        "hf-hub:org/run",
        "hf_hub:org/run@main",
    ],
)
def test_every_name_of_a_runs_weights_leads_to_its_records(
    spelling: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are published do not list the images held out, and tell their digest."""
    photos, selection, run = open_images(str(data)), Selection(hold_out=3), tmp_path / "run"
    trained, held_out = hold_out(photos, 3)
    (run / "backbone").mkdir(parents=True)
    recipe = {"name": "r", "model": "resnet8_supervised", "method": {}, "init": "a start"}
    results = {"numbers": {}, "data": about(trained, "photos"), **selection.account(trained, held_out)}
    write_json(run / "recipe.json", recipe)
    write_json(run / "results.json", results)
    selection.save(run, held_out)

    def published(repository: str, file: str, revision: str | None) -> Path:
        if file == HELD_OUT:
            raise LocalEntryNotFoundError("not published")
        return run / file

    monkeypatch.setattr(provenance, "small_file", published)
    monkeypatch.chdir(run)
    name = spelling.format(run=run)
    assert records(name) == (recipe, results)
    assert [learned_from(name, images) for images in (photos, trained, held_out)] == [True, True, False]


@pytest.mark.parametrize("random", [False, True])
def test_every_evaluation_says_that_its_labels_were_learned_from(
    random: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "run"
    save_backbone(create_model("resnet8", num_classes=0), model / "backbone", "resnet8", input_size=(3, 32, 32))
    write_json(model / "recipe.json", {"name": "r", "model": "resnet8_supervised", "method": {}})
    write_json(model / "results.json", {"numbers": {}, "data": about(open_images(str(data)), "photos")})
    words = ["--data", str(data), "--size", "16", "--workers", "0", "--out", str(tmp_path / "out")]
    results = evaluate_as("knn", str(model / "backbone"), *words, *(["--random"] * random))
    assert results.get("learned_from_these_labels", False) is not random
    assert (TRAINED_WITH in capsys.readouterr().out) is not random


def test_a_card_counts_no_number_by_labels_that_were_learned_from() -> None:
    found = proportion(90, 100)
    learned = {"protocol": "knn", "numbers": {"top-1": found}, "data": {"source": "photos", "images": 100}}
    random = learned | {"numbers": {"top-1": proportion(10, 100)}, "random_weights": True}
    marked = learned | {"learned_from_these_labels": True}
    assert card_verdict({"numbers": {}}, [learned, random]).startswith("It beats")
    assert card_verdict({"numbers": {}}, [marked, random]).endswith("random weights: not measured.")
    gain = {"numbers": {"knn gain": {"value": 0.2, "low": 0.1, "high": 0.3, "of": 100}}}
    assert card_verdict(gain, []).startswith("It beats")
    assert card_verdict(gain | {"learned_from_these_labels": True}, []).endswith("random weights: not measured.")
    assert index([marked]) == []
    assert remarks({"numbers": {}, "protocol": "pretraining"}, [marked]) == [
        "knn, photos: the backbone was trained with these labels, so what is measured by them says nothing of other "
        "images and is no comparison."
    ]
