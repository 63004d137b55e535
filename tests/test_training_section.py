"""The training section of a card: the images and their owner, the labels, and the command of the same run."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from conftest import ROOT

from ssl_backbones import recipes
from ssl_backbones.data import open_images
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.given import Terms
from ssl_backbones.hub.training_section import alterations, command, training
from ssl_backbones.recipes import command_line, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.registry import image_sets
from ssl_backbones.registry.image_sets import CLOTHING, DATA, GOODS, IMAGENETTE, SAMPLE, are_those, known_by
from ssl_backbones.registry.papers import PAPERS, Paper
from ssl_backbones.train.results import altered, description, earned_tag

IMAGENETTE_RECIPE = recipes.get("resnet8_byol.imagenette96_100ep")
IMAGENET_RECIPE = recipes.get("resnet50_lewel_b.in1k_400ep")
IMAGE_SOURCES = {
    "imagenette_96": IMAGENETTE,
    "clothing10_cc0_160": CLOTHING,
    "goods_128": GOODS,
}


def results(recipe: Recipe, fingerprint: str | None = None) -> dict[str, Any]:
    """The record that a run of the recipe writes of itself, after JSON."""
    plain = {
        "altered": altered(recipe),
        "seed": recipe.seed,
        "data": {"images": 7, "fingerprint": fingerprint},
    }
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


# Whose images


def test_the_sample_images_are_known_by_their_fingerprint() -> None:
    images = open_images(str(ROOT / "training" / "sample_photos"))
    assert known_by(images.fingerprint) is SAMPLE
    assert are_those(recipes.get("sample").promise.data, images.fingerprint)


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_the_images_that_weights_here_were_trained_on_are_known(name: str) -> None:
    data = IMAGE_SOURCES[name]
    asked = 0
    for path in (*(ROOT / "benchmarks" / "results").glob("resnet*/results.json"), *ROOT.glob("weights/*/results.json")):
        recipe = json.loads((path.parent / "recipe.json").read_text())
        if recipe["data"] == name:
            asked += 1
            assert json.loads(path.read_text())["data"]["fingerprint"] in data.fingerprints
    assert asked
    here = ROOT.parent / "shared" / "data" / name
    if not here.is_dir():
        pytest.skip(f"{name} is not here")
    assert known_by(open_images(str(here)).fingerprint) is data


def test_no_copy_is_of_two_and_every_recipe_names_images_of_the_table() -> None:
    fingerprints = [known for data in DATA for known in data.fingerprints]
    assert len(fingerprints) == len(set(fingerprints))
    assert all(data.origin for data in DATA if data.fingerprints)
    assert {recipes.get(name).promise.data for name in recipes.names()} <= {data.name for data in DATA} | {own.DATA}
    assert are_those("no such images", fingerprints[0]) is None


@pytest.mark.parametrize(
    ("recipe", "fingerprint", "earned", "told"),
    [
        (
            IMAGENETTE_RECIPE,
            IMAGENETTE.fingerprints[0],
            "imagenette96_100ep",
            "the images are those, by their fingerpr",
        ),
        (IMAGENETTE_RECIPE, "mine", None, "the images are not the copy of those that is known, so the weights do not"),
        (IMAGENETTE_RECIPE, CLOTHING.fingerprints[0], None, f"the images are {CLOTHING.name} instead, so the weights"),
        (IMAGENET_RECIPE, "mine", None, "ImageNet-1k; whether the images are those is not recorded, so the weights do"),
        (IMAGENET_RECIPE, SAMPLE.fingerprints[0], None, f"the images are {SAMPLE.name} instead, so the weights do not"),
        (
            recipes.get("sample"),
            SAMPLE.fingerprints[0],
            "sample",
            "the images are those, by their fingerprint: github.",
        ),
    ],
)
def test_a_tag_is_borne_on_images_that_are_known_to_be_the_recipes(
    recipe: Recipe, fingerprint: str, earned: str | None, told: str
) -> None:
    recipe = replace(recipe, data="/mnt/photos", seed=recipe.seed + 1)
    found = results(recipe, fingerprint)
    assert not found["altered"]
    assert earned_tag(recipe, found) == earned
    assert told in training(recipe.to_dict(), found, "recipe.json")["images"]
    assert ("not known to be" in description(recipe, found)) == (earned is None)
    by_engine = replace(recipe, engine="opencv")
    assert earned_tag(by_engine, results(by_engine, fingerprint)) == earned
    changed = replace(recipe, epochs=recipe.epochs + 1)
    assert earned_tag(changed, results(changed, fingerprint)) is None


@pytest.mark.parametrize("recipe", [IMAGENETTE_RECIPE, IMAGENET_RECIPE], ids=["Imagenette", "ImageNet"])
def test_the_terms_are_those_of_the_images_and_not_of_the_recipes(recipe: Recipe) -> None:
    def licence(fingerprint: str, **said: str) -> str:
        about = results(recipe, fingerprint)
        card = model_card(recipe.to_dict(), about, {}, name="x", source="hf-hub:o/x", terms=Terms(**said))
        return card.partition("## Licence")[2]

    assert "Of the images: not stated." in licence("mine")
    assert "Of the images (cats): CC BY." in licence("mine", images="cats", images_terms="CC BY")
    assert f"Of the images, which are {SAMPLE.name}: CC0." in licence(SAMPLE.fingerprints[0])
    draft = model_card(recipe.to_dict(), results(recipe, "mine"))
    assert "Of the images: not stated." in draft
    assert "whose terms are" not in draft
    assert f"Of the images, which are {SAMPLE.name}: CC0." in model_card(
        recipe.to_dict(), results(recipe, SAMPLE.fingerprints[0])
    )


def test_a_fingerprint_that_is_recorded_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = replace(IMAGENETTE, fingerprints=("mine",))
    monkeypatch.setattr(image_sets, "DATA", (mine,))
    assert known_by("mine") is mine
    assert earned_tag(IMAGENETTE_RECIPE, results(IMAGENETTE_RECIPE, "mine")) == "imagenette96_100ep"


# Labels


@pytest.mark.parametrize(
    ("name", "pairs", "said", "alone"),
    [
        ("resnet50_flags.in1k_200ep_global", "pairs.parquet", "with pairs that labels chose (FLAGS)", False),
        ("resnet50_flags.in1k_200ep_moco", "", "without labels by FLAGS", True),
        ("resnet8_supervised.imagenette32_56ep", None, "with labels (supervised)", False),
        ("resnet50_byol.in1k_300ep", None, "without labels by BYOL", True),
    ],
)
def test_labels_are_told_of(name: str, pairs: str | None, said: str, alone: bool) -> None:
    recipe = recipes.get(name).to_dict()
    if pairs is not None:
        recipe["method"]["pairs"] = pairs
    published = model_card(recipe, {}, {}, name="x", source="hf-hub:o/x", terms=Terms())
    for card in (model_card(recipe, {}), published):
        assert f"image backbone, pretrained {said}" in card
        assert ("- self-supervised-learning\n" in card) == alone


def test_a_method_that_nobody_registered_is_not_said_to_do_without_labels() -> None:
    card = model_card({"name": "mine", "model": "resnet18_my_method", "size": 64}, {})
    assert "pretrained by my_method, as in the recipe mine." in card
    assert "self-supervised-learning" not in card


def test_a_paper_without_year_and_address_reads_as_a_sentence() -> None:
    assert str(Paper("X", "Fuse")) == "Fuse, authors not recorded"
    assert str(PAPERS["flags"]) == (
        "Yuchi Zhao and Yuhao Zhou. Fuse Local and Global Semantics in Representation Learning"
    )


# The command


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet8_flags.imagenette32_60ep", "--method.pairs pairs.parquet --engine opencv --precision bf16 --seed 3"),
        ("resnet8_flags.imagenette32_60ep", "--method.pairs 'my pairs.parquet' --optimizer.betas 0.5 0.9"),
        ("resnet8_byol.imagenette32_60ep", "--schedule.kind step --schedule.milestones 3 5 --optimizer.kind adam"),
        ("resnet8_moco_v2.imagenette32_60ep", "--method.views.0.area 0.3 0.9 --optimizer.no_exclude_norm_and_bias"),
        ("resnet50_byol.in1k_300ep", "--optimizer.norm_and_bias_lr 0.1 --method.views.1.solarize_p 0 --epochs 77"),
        ("resnet18_byol.own", "--turns 0.75"),
        ("resnet8_byol.imagenette96_100ep", "--reencode 96 --cache kept"),
        ("resnet8_byol.imagenette96_100ep", ""),
    ],
)
def test_the_command_makes_the_same_run_again(name: str, words: str) -> None:
    recipe = command_line.read_recipe([name, *shlex.split(words)], "pretrain", "")
    said = shlex.split(command(recipe.to_dict(), results(recipe)))
    assert said[:4] == ["ssl-backbones", "pretrain", name, "--data"]
    again = command_line.read_recipe(said[2:], "pretrain", "")
    assert again.data == "DATA"
    assert replace(again, data="", cache=recipe.cache) == replace(recipe, data="")
    assert again.cache in ("", "CACHE")


def test_what_was_altered_is_told_with_what_was_there_before() -> None:
    altered = {"engine": ["pillow", "opencv"], "method.pairs": ["", "p"], "views": [[], [{"a": 1}]]}
    told = alterations({"altered": altered}, "place/recipe.json")
    assert (
        "`engine` (was pillow), `method.pairs` (was empty), `views` (see `place/recipe.json`, no option says it)."
        in told
    )
    assert "--views" not in command({"name": "x"}, {"altered": altered})
    assert alterations({"altered": {}}, "recipe.json") == "No field of the recipe was altered."


# The recipe's source


def test_what_the_source_leaves_open_is_told_and_published_weights_by_their_name() -> None:
    recipe = recipes.get("resnet8_flags.imagenette32_60ep").to_dict()
    told = training(recipe, {}, "recipe.json")["left_open"]
    assert told.startswith("Pairs by the MoCo v2 of this family")
    assert f"What it leaves open: {told}" in model_card(recipe, {})
    assert "ssl-backbones mine-pairs resnet8_moco_v2.imagenette32_60ep --layer layer3." in told
    unpublished = recipes.get("resnet8_flags.imagenette96_100ep_global").to_dict()
    assert "runs/resnet8_moco_v2.imagenette96_100ep" in training(unpublished, {}, "recipe.json")["left_open"]
    assert "leaves open" not in model_card(recipes.get("sample").to_dict(), {})


def test_the_row_of_the_paper_is_there_where_there_is_a_paper() -> None:
    cards = [model_card(recipes.get(name).to_dict(), {}) for name in ("sample", "resnet50_lewel_b.in1k_400ep")]
    assert ["the paper |" in card for card in cards] == [False, True]
