"""The card says what the run recorded: every number has a source, every snippet runs, nothing tells of a machine."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from card_numbers import CONFIDENCE, NUMBER, spellings
from PIL import Image

from ssl_backbones.catalogue.lookup import describe
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.hub.given import Terms
from ssl_backbones.recipes import RECIPES
from ssl_backbones.registry.image_sets import IMAGENETTE
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.runs.results import upgraded

RESULTS: dict[str, Any] = {
    "recipe": "sample",
    "date": "2031-07-19",
    "seed": 8317,
    "steps": 47123,
    "epochs": 613,
    "data": {"images": 90211, "fingerprint": "7f3c" * 16},
    "unreadable": [f"{i}.jpg" for i in range(37)],
    "knn": {
        "k": 59,
        "bank": 41777,
        "queries": 5303,
        "protocol": "held-out queries",
        "chance": 0.1871,
        "before": 0.3019,
        "after": 0.3617,
        "after_95": [0.3271, 0.3979],
        "gain": 0.0598,
        "gain_95": [0.0313, 0.0883],
    },
    "std": {"before": 0.5171, "after": 0.9113},
    "rank": {"before": 5.317, "after": 31.234},
    "compute": {"device": "cpu", "processes": 19, "precision": "fp32", "layout": "contiguous"},
    "versions": {"torch": "2.15.0", "timm": "1.0.31"},
}
CONFIG = {"pretrained_cfg": {"input_size": [3, 52, 52], "mean": [0.481, 0.457, 0.408], "crop_pct": 0.871}}


ONE_EACH = {recipe.method.name: name for name, recipe in RECIPES.items()}
"""A recipe of every method."""


@pytest.mark.parametrize(
    ("name", "results"),
    [*((name, RESULTS) for name in RECIPES), *((name, {}) for name in ONE_EACH.values())],
    ids=lambda value: value if isinstance(value, str) else "measured" if value else "nothing measured",
)
def test_every_number_comes_from_the_inputs(name: str, results: dict[str, Any]) -> None:
    recipe = RECIPES[name].to_dict()
    card = model_card(recipe, results, CONFIG)
    registered = vars(describe(name)) if "." in name else {}
    papers = [str(paper) for paper in PAPERS.values()]
    known = (
        spellings(recipe, upgraded(results), CONFIG, registered, papers)
        | CONFIDENCE
        | {str(len(RESULTS["unreadable"]))}
    )
    snippets = re.compile(r"```.*?```", re.DOTALL)
    assert set(NUMBER.findall(snippets.sub("", card))) <= known | {"2.0"}  # of apache-2.0
    front = yaml.safe_load(card.split("---")[1])
    assert ("model-index" in front) == bool(results)


def test_what_was_measured_is_in_the_card_and_changes_with_it() -> None:
    recipe = RECIPES["sample"].to_dict()
    card = model_card(recipe, RESULTS, CONFIG)
    for told in (
        "36.2 % [32.7, 39.8]",
        "+6.0 points [+3.1, +8.8]",
        "30.2 % [29.0, 31.4]",
        "18.7 %",
        "90211",
        "7f3c" * 16,
        "31.2",
        "0.408",
        "| 37 |",
    ):
        assert told in card
    better = json.loads(json.dumps(RESULTS))
    better["knn"]["after"] = 0.7777
    assert "77.8 % [32.7, 39.8]" in model_card(recipe, better)
    assert yaml.safe_load(model_card(recipe, better).split("---")[1])["model-index"][0]["results"][0]["metrics"] == [
        {"type": "accuracy", "value": 77.8, "name": "k-NN accuracy, k=59"}
    ]


@pytest.mark.parametrize(
    ("terms", "fingerprint", "named"),
    [
        (Terms(images="Photos", dataset="org/photos"), "0" * 64, {"name": "Photos", "type": "org/photos"}),
        (Terms(images="Photos"), "0" * 64, {"name": "Photos", "type": "train"}),
        (Terms(), IMAGENETTE.fingerprints[0], {"name": "Imagenette", "type": "train"}),
        (Terms(), "0" * 64, {"name": "train", "type": "train"}),
    ],
)
def test_the_model_index_names_data_sets_as_they_are_called(
    terms: Terms, fingerprint: str, named: dict[str, str]
) -> None:
    recipe = RECIPES["sample"].to_dict() | {"data": "/x/train"}
    data = {"images": 40, "fingerprint": fingerprint, "source": "/x/train"}
    about = {"protocol": "knn", "data": data, "numbers": {"k=20": {"value": 0.5, "low": 0.2, "high": 0.8, "of": 10}}}
    kept, other = ({"source": source, "images": 10} for source in ("the split kept beside /x/train", "/y/test"))
    evaluations = [about | {"validation": validation} for validation in (kept, other)]
    card = model_card(recipe, RESULTS | {"data": RESULTS["data"] | data}, CONFIG, terms=terms, evaluations=evaluations)
    (index,) = yaml.safe_load(card.split("---")[1])["model-index"]
    elsewhere = {"name": "test", "type": "test"}
    assert [each["dataset"] for each in index["results"]] == [named, named | {"split": "validation"}, elsewhere]


def test_what_was_not_measured_says_so() -> None:
    card = model_card(RECIPES["resnet50_lewel_b.in1k_400ep"].to_dict(), {})
    assert "| k-NN in training | not measured | not measured | not measured |" in card
    assert "Whether it beats the same network with random weights: not measured." in card
    assert "Other evaluations: not measured." in card
    assert re.search(r"\| linear evaluation, top-1, ImageNet-1k, 400 epochs \| 73\.8 % \| not measured \|", card)
    assert "| images | not recorded |" in card
    assert "non-commercial research" in card


def test_the_library_is_timm_only_where_plain_timm_knows_the_network() -> None:
    fronts = {
        name: yaml.safe_load(model_card(RECIPES[name].to_dict(), {}).split("---")[1])
        for name in ("sample", "resnet50_lewel_b.in1k_400ep")
    }
    assert fronts["sample"]["library_name"] == "ssl-backbones"
    assert fronts["resnet50_lewel_b.in1k_400ep"]["library_name"] == "timm"
    for front in fronts.values():
        assert front["pipeline_tag"] == "image-feature-extraction"
        assert "arxiv:2203.14898" in front["tags"]
        assert front["license"] == "apache-2.0"


def test_an_unregistered_recipe_claims_nothing_of_a_registered_one() -> None:
    recipe = RECIPES["sample"].to_dict() | {"name": "mine", "model": "resnet18_lewel_b", "data": "/data/me/cats"}
    card = model_card(recipe, {})
    assert "pretrained without labels by LEWEL_B" in card
    assert "Imagenette" not in card
    assert "| data | cats |" in card
    assert "/data/me" not in card
    assert "by my_method, as in the recipe mine." in model_card(recipe | {"model": "resnet18_my_method"}, {})


@pytest.mark.parametrize(("model", "backbone"), [("resnet8_lewel_b", "resnet8"), ("resnet18_byol", "resnet18")])
def test_the_snippets_run(
    model: str, backbone: str, small_images: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(timm.create_model(backbone, num_classes=0), tmp_path / "backbone", backbone, input_size=(3, 48, 48))
    small_images[0].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    card = model_card(RECIPES["sample"].to_dict() | {"model": model}, {})
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 3
    spaces: list[dict[str, Any]] = [{}, {}, {}]
    for snippet, space in zip(snippets, spaces, strict=True):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(snippet, space)
    turned = Image.Exif()
    turned[274] = 6
    small_images[0].transpose(Image.Transpose.ROTATE_90).save("photo.png", exif=turned)
    sideways: dict[str, Any] = {}
    upright: dict[str, Any] = {}
    exec(snippets[1].replace("photo.jpg", "photo.png"), sideways)
    small_images[0].save("photo.png")
    exec(snippets[1].replace("photo.jpg", "photo.png"), upright)
    torch.testing.assert_close(sideways["embedding"], upright["embedding"])
    assert spaces[0]["model"].num_features == spaces[1]["embedding"].shape[1]
    assert spaces[1]["image"].shape == (3, 48, 48)
    assert len(spaces[2]["model"](spaces[1]["image"][None])) >= 4
