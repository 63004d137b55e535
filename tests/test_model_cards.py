"""The cards of what is published or ships: one for each name, no number without a results file, snippets that run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from card_numbers import unfounded
from conftest import ROOT, drawn_image
from published import NAMED, Made, make, snippets
from scripts import script
from written_cards import CARDS, RESULTS, written

from ssl_backbones import recipes
from ssl_backbones.catalogue.lookup import list_models
from ssl_backbones.commands import publish
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.evaluation_section import verdict
from ssl_backbones.hub.evaluations import (
    OWN,
    beside_random,
    commands,
    copies,
    headlines,
    index,
    linear,
    not_above_random,
    over_random,
    rows,
    same_question,
    stands_for,
)
from ssl_backbones.hub.export import KEPT
from ssl_backbones.hub.given import Terms
from ssl_backbones.hub.publishing.material import MaterialError
from ssl_backbones.hub.publishing.shipping import check_worth
from ssl_backbones.recipes.recipe import FREE
from ssl_backbones.registry.image_sets import IMAGENETTE

EVALUATIONS = ROOT / "tests" / "fixtures" / "formats_0_1" / "evaluations"


def ours() -> dict[str, Any]:
    """The names whose weights ship or are published by this project, with timm's description of each."""
    known = {name: timm.get_pretrained_cfg(name) for name in list_models(pretrained=True)}
    return {name: cfg for name, cfg in known.items() if cfg and (cfg.file or cfg.hf_hub_id)}


def test_data_is_the_images_that_a_split_was_kept_beside() -> None:
    kept = {"data": {"source": "/x/photos"}, "validation": {"source": "the split kept beside /x/photos"}}
    assert stands_for([kept, kept | {"validation": None}]) == "DATA is photos"


def test_a_recipe_names_the_card_of_its_weights_and_no_other() -> None:
    told = {name: recipes.get(name).promise.result.partition("our own, in ")[2] for name in recipes.names()}
    cards = {card for card in told.values() if card.endswith(".md")}
    assert {card for card in cards if not (ROOT / card).is_file()} == set()
    assert {path.parent.name for path in (ROOT / "weights").glob("*/README.md")} <= {
        name for name, card in told.items() if card == f"weights/{name}/README.md"
    }


def test_every_name_with_weights_of_ours_has_a_card() -> None:
    assert {name for name in ours() if "." in name} <= {card.stem for card in CARDS}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_is_what_the_code_writes_from_the_records(card: Path) -> None:
    assert card.read_text(encoding="utf-8") == written(card.stem), "python tests/written_cards.py writes it anew"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_holds_no_number_that_no_results_file_holds(card: Path) -> None:
    assert unfounded(card.read_text(encoding="utf-8"), card.stem, RESULTS / card.stem) == []


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_says_what_it_has_to(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert {"license", "library_name", "pipeline_tag", "tags"} <= front.keys()
    for heading in ("How to load", "Input", "Training", "Evaluation", "Limits", "Licence"):
        assert f"## {heading}" in text
    assert len(snippets(text)) == 3


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_the_files_that_a_card_names_are_there(card: Path) -> None:
    named = NAMED.findall(card.read_text(encoding="utf-8"))
    assert len(named) >= 2
    assert all((ROOT / path).is_file() for path in named)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_names_no_folder_of_somebodys(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    assert "runs/" not in text
    assert not re.search(r"--data (?!DATA)", text)
    assert card.stem in text.partition("Measured by these commands")[2]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_images_are_prepared_as_the_card_says(card: Path) -> None:
    cfg = ours().get(card.stem)
    told = json.loads((RESULTS / card.stem / "config.json").read_bytes())["pretrained_cfg"]
    if cfg is None:
        pytest.skip("its weights are loaded from their repository")
    assert {name: told[name] for name in KEPT} == {
        name: list(value) if isinstance(value := getattr(cfg, name), tuple) else value for name in KEPT
    }


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_the_snippets_of_a_card_run(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = ours().get(card.stem)
    if cfg is None or not cfg.file:
        pytest.skip("its weights are on the Hub alone")
    drawn_image(1, 120, 90).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for snippet in snippets(card.read_text(encoding="utf-8")):
        exec(snippet, {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("cards"))


@pytest.fixture(scope="module")
def entered(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A card that was entered into a repository, and the results beside it."""
    root = tmp_path_factory.mktemp("repository")
    (root / "model_cards").mkdir()
    words = [str(made.run), "--enter", "--data_name", "drawn images", "--data_terms", "CC0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "ROOT", root)
        script("publish", [*words, "--evaluation", str(made.knn), str(made.random)])
        script("publish", [*words, "--evaluation", str(made.knn), str(made.random)])  # and once more, in its place
    name = "resnet8_tiny.photos"
    return (root / "model_cards" / f"{name}.md").read_text(encoding="utf-8"), root / "benchmarks" / "results" / name


def test_a_card_is_entered_with_what_it_is_written_from(entered: tuple[str, Path]) -> None:
    card, records = entered
    found = {path.relative_to(records).as_posix() for path in records.rglob("*.json")}
    assert found == {
        "config.json",
        "recipe.json",
        "results.json",
        "evaluations/knn.json",
        "evaluations/knn_random.json",
    }
    assert unfounded(card, "resnet8_tiny.photos", records) == []
    assert 'create_model("resnet8_tiny.photos", pretrained=True)' in card
    assert "Of the images (drawn images): CC0." in card
    assert {f"benchmarks/results/resnet8_tiny.photos/{name}.json" for name in ("config", "recipe")} == {
        *NAMED.findall(card)
    }


@pytest.mark.parametrize("invented", ["It reaches 93.71 %.", "Trained for 7777 epochs.", "Rank: 61.7."])
def test_an_invented_number_is_seen(invented: str, entered: tuple[str, Path]) -> None:
    card, records = entered
    assert len(unfounded(f"{card}\n{invented}", "resnet8_tiny.photos", records)) == 1


def evaluation(protocol: str, correct: int, *, random: bool = False, images: str = "a", **more: Any) -> dict[str, Any]:
    """Results of 100 images."""
    share = correct / 100
    number = {"value": share, "low": share - 0.05, "high": share + 0.05, "correct": correct, "of": 100}
    about = {"source": "photos/val", "fingerprint": images}
    weights = {"random_weights": random, "weights_sha256": "r" if random else "w", "command": f"evaluate.py {protocol}"}
    return {"protocol": protocol, "data": about, "validation": about, "numbers": {"top-1": number}, **weights, **more}


def altered_once(settings: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each setting but `random`, and the settings with it, or one value in it, altered."""
    for key, value in settings.items():
        for changed in [value | {part: "other"} for part in value] if isinstance(value, dict) else ["other"]:
            if key != "random":
                yield key, settings | {key: changed}


class TestEvaluations:
    def test_each_stands_beside_random_weights_on_the_same_images(self) -> None:
        knn, linear_one = evaluation("knn", 60), evaluation("linear (moco_v2)", 70)
        random = evaluation("knn", 40, random=True)
        elsewhere = evaluation("linear (moco_v2)", 10, random=True, images="b")
        everything = [random, knn, elsewhere, linear_one]
        assert list(beside_random(everything)) == [(knn, random), (linear_one, None)]
        assert list(rows(everything)) == [
            ("knn, top-1, val", "40.0 % [35.0, 45.0]", "60.0 % [55.0, 65.0]", "+20.0 points [+12.9, +27.1]"),
            ("linear (moco_v2), top-1, val", "not measured", "70.0 % [65.0, 75.0]", "not measured"),
        ]
        assert linear(everything) == "70.0 % [65.0, 75.0] (linear (moco_v2), top-1, on val)"
        assert [(found.metric_name, found.metric_value) for found in index(everything)] == [
            ("knn, top-1", 60.0),
            ("linear (moco_v2), top-1", 70.0),
        ]

    def test_images_that_were_learnt_from_are_told_once(self) -> None:
        both = [evaluation("knn", 60), evaluation("knn", 40, random=True)]
        assert copies(both) == []
        about = both[0]["validation"] | {"images": 100, "copies": 7}
        assert copies([results | {"validation": about} for results in both]) == [
            "knn, val: 7 of the 100 images asked about were learnt from, which flatters the numbers."
        ]

    @pytest.mark.parametrize(
        ("correct", "equal"), [(60, []), (48, []), (47, ["knn, top-1, val"]), (30, ["knn, top-1, val"])]
    )
    def test_what_is_not_above_random_weights_is_named(self, correct: int, equal: list[str]) -> None:
        assert not_above_random([evaluation("knn", correct), evaluation("knn", 40, random=True)]) == equal

    @pytest.mark.parametrize("apart", [{"images": "b"}, {"settings": {"size": 96}}], ids=["images", "size"])
    def test_each_comparison_counts_though_another_has_its_name(self, apart: dict[str, Any]) -> None:
        weak = [evaluation("knn", correct, random=random, **apart) for correct, random in ((41, False), (40, True))]
        strong = [evaluation("knn", 60), evaluation("knn", 40, random=True)]
        for everything in ([*weak, *strong], [*strong, *weak]):
            assert len(over_random(everything)) == len([one for _, one in beside_random(everything) if one]) == 2
            assert verdict({"numbers": {}}, everything).startswith("**It is not surely better than the same network")
            with pytest.raises(MaterialError, match="beat random weights"):
                check_worth(everything)

    @pytest.mark.parametrize("name", ["detect", "finetune", "knn", "segment"])
    def test_random_weights_by_another_setting_or_of_another_network_are_no_baseline(self, name: str) -> None:
        made = json.loads((EVALUATIONS / name / "results.json").read_text()) | {"architecture": "resnet8"}
        settings = made["settings"] | {"random": False}
        made |= {"settings": settings, "random_weights": False}
        random = made | {"random_weights": True, "settings": settings | {"random": True, "out": "r", "model": "r"}}
        assert same_question(made, random)
        assert same_question(made, {key: value for key, value in random.items() if key != "architecture"})
        assert not same_question(made, random | {"architecture": "resnet50"})
        for key, changed in altered_once(settings):
            assert same_question(made, random | {"settings": changed | {"random": True}}) == (key in FREE | OWN), key

    def test_a_searched_learning_rate_may_differ_and_the_rates_that_were_tried_may_not(self) -> None:
        def searched(best: float, *rates: float) -> dict[str, Any]:
            told = {"learning_rates": {"tried": [{"lr": rate} for rate in rates]}}
            return evaluation("linear", 50, **told, settings={"optimizer": {"kind": "sgd", "lr": best}})

        assert same_question(searched(1, 1, 2), searched(2, 1, 2))
        assert not same_question(searched(1, 1, 2), searched(1, 1, 4))
        assert not same_question(searched(1, 1, 2), {**searched(1, 1, 2), "learning_rates": {}})

    def test_what_features_are_like_is_no_comparison_and_what_is_found_is_one(self) -> None:
        rank = {"value": 3.0, "low": 2.9, "high": 3.1}
        alone = [evaluation("diagnose", 50, random=random) | {"numbers": {"rank": rank}} for random in (False, True)]
        assert over_random(alone) == []
        assert verdict({"numbers": {}}, alone).endswith("random weights: not measured.")
        precision = {"AP": {"value": 0.2, "low": 0.18, "high": 0.22}}
        found = [evaluation("detection (x)", 50, random=random) | {"numbers": precision} for random in (False, True)]
        assert verdict({"numbers": {}}, found).startswith("**It is not surely better than the same network")

    def test_a_gain_over_the_start_is_none_over_random_weights(self) -> None:
        gain = {"value": 0.2, "low": 0.1, "high": 0.3, "of": 100}
        assert verdict({"numbers": {"knn gain": gain}}, []).startswith("It beats the same network with random weights")
        begun = {"numbers": {"knn gain": gain}, "start": {}}
        assert verdict(begun, []) == "Whether it beats the same network with random weights: not measured."

    def test_of_a_sweep_the_standard_cells_and_never_each_class(self) -> None:
        numbers = {name: {"value": 0.5} for name in ("k=1", "k=20", "k=200", "chosen", "iou/dog")}
        sweep = {"numbers": numbers, "standard": {"paper": "k=200", "training": "k=20"}}
        assert list(headlines(sweep)) == ["k=20", "k=200", "chosen"]
        assert list(headlines({"numbers": numbers})) == ["k=1", "k=20", "k=200", "chosen"]

    @pytest.mark.parametrize(
        ("command", "told"),
        [
            (
                "evaluate.py knn runs/x --data my/photos --out o/knn",
                "ssl-backbones evaluate knn org_x.tag --data DATA --out o/knn",
            ),
            ("evaluate.py knn runs/x --data=photos", "ssl-backbones evaluate knn org_x.tag --data=DATA"),
            ("ssl-backbones evaluate mlp runs/x --data d", "ssl-backbones evaluate mlp org_x.tag --data DATA"),
            ("__main__.py evaluate mlp runs/x --data d", "ssl-backbones evaluate mlp org_x.tag --data DATA"),
            (
                "transfer.py --model runs/x --validation 'my val' --data d --layer runs/y",
                "ssl-backbones transfer --model org_x.tag --validation VALIDATION --data DATA --layer runs/y",
            ),
        ],
    )
    def test_a_command_names_what_everybody_has(self, command: str, told: str) -> None:
        asked = evaluation("knn", 60) | {"model": "runs/x", "command": command}
        assert commands([asked, asked], "org_x.tag") == [told]
        assert "runs/x" in commands([asked], "runs/x")[0]

    def test_random_weights_keep_the_name_of_their_network(self) -> None:
        words = "evaluate.py knn resnet8 --random --data photos"
        asked = evaluation("knn", 40, random=True) | {"model": "resnet8", "command": words}
        assert commands([asked], "org_x.tag") == ["ssl-backbones evaluate knn resnet8 --random --data DATA"]

    def test_where_the_images_come_from_is_told_where_it_is_known(self) -> None:
        unknown, known = evaluation("knn", 60), evaluation("knn", 60, images=IMAGENETTE.fingerprints[0])
        assert stands_for([unknown, unknown]) == "DATA is val"
        assert stands_for([known]) == f"DATA is val ({IMAGENETTE.origin})"

    @pytest.mark.parametrize(
        ("evaluations", "said"),
        [
            ([], "Whether it beats the same network with random weights: not measured."),
            ([evaluation("knn", 60)], "Whether it beats the same network with random weights: not measured."),
            ([evaluation("knn", 60), evaluation("knn", 40, random=True)], "It beats the same network with random"),
            ([evaluation("knn", 41), evaluation("knn", 40, random=True)], "**It is not surely better than the same"),
        ],
    )
    def test_the_card_says_whether_it_is_worth_anything(self, evaluations: list[dict[str, Any]], said: str) -> None:
        recipe = {"name": "mine", "model": "resnet18_byol", "size": 64}
        card = model_card(recipe, {}, {}, name="x", source="hf-hub:o/x", terms=Terms(), evaluations=evaluations)
        assert said in card
        assert "| linear evaluation, top-1 | not measured | not measured |" in card
        assert "Of the images: not stated." in card
        assert card.count("import ssl_backbones") == 1  # plain timm knows a ResNet-18
