"""A card tells what its run was given: the start beside random weights, its terms, and no claim that it belies."""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from evaluations import labelled_images
from published import evaluate_run
from runs import image_folder, run, tiny
from small_methods import small_config

from ssl_backbones import __main__
from ssl_backbones.commands.publish import check_known, check_licence
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.given import GivenError, Terms, base_model, bound_to, givens, settled
from ssl_backbones.hub.publishing.files import without_places
from ssl_backbones.hub.publishing.material import MaterialError
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.models.provenance import Provenance, of_timms
from ssl_backbones.registry.licences import is_non_commercial
from ssl_backbones.typed.values import to_plain
from ssl_backbones.visualizers.run_section import facts

SHIPPED = "resnet8_byol.imagenette32_60ep"
START = Provenance(
    name=SHIPPED,
    architecture="resnet8",
    sha256="ab" * 32,
    licence="apache-2.0",
    source="https://huggingface.co/org/name",
    images="Imagenette",
    images_terms="non-commercial research",
    labels="none",
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    interpolation="bicubic",
    crop_pct=1.0,
)


def share(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "of": 100, "k": 20}


def results_with(part: str = "start", gain: float = 0.1, **fields: Any) -> dict[str, Any]:
    """The results of a run that was given a network."""
    numbers = {"knn random": share(0.2), "knn before": share(0.4), "knn": share(0.5)}
    numbers |= {"knn gain": share(gain), "knn gain over random": share(0.3)}
    numbers |= {f"{name}{end}": {"value": 1.0} for name in ("rank", "std") for end in (" random", " before", "")}
    return {
        "numbers": numbers,
        "data": {"images": 40},
        "kind": "held-out queries",
        "chance": 0.1,
        "queries": {"images": 100},
        "bank": {"images": 40},
        part: to_plain(dataclasses.replace(START, **fields)),
    }


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    data = image_folder(tmp_path / "photos")
    return tiny(BYOLConfig, data, tmp_path / "run", init=SHIPPED, name="resnet8_tiny.photos").to_dict()


def card_of(recipe: dict[str, Any], results: dict[str, Any], **said: Any) -> tuple[str, dict[str, Any]]:
    card = model_card(recipe, results, {}, **said)
    return card, yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize(
    ("fields", "said", "refused"),
    [
        ({"licence": None}, None, True),
        ({"licence": "unknown"}, None, True),
        ({"licence": None}, "mit", False),
        ({"licence": "unknown"}, "unknown", True),
        ({"licence": None, "source": "a run of this package, before"}, None, False),
        ({"licence": None, "source": "a run of this package, before", "unknown": ("theirs",)}, None, True),
        ({"licence": "mit", "unknown": ("theirs",)}, None, True),
        ({"licence": "mit", "unknown": ("theirs",)}, "mit", False),
        ({}, None, False),
    ],
)
def test_what_was_made_of_a_network_of_unknown_licence_is_published_by_a_stated_one(
    fields: dict[str, Any], said: str | None, refused: bool
):
    given = {"start": dataclasses.replace(START, **fields)}
    with pytest.raises(MaterialError, match="state the licence of these weights") if refused else nullcontext():
        check_known(given, said)


def test_random_weights_start_and_result_stand_side_by_side(recipe: dict[str, Any]):
    card, _ = card_of(recipe, results_with())
    head, rule, *rows = [line for line in card.splitlines() if line.startswith("|")][-5:]
    assert head == (
        "|  | random weights | the start | this backbone | gain over random weights | gain over the start |"
    )
    assert rule.count("---") == 6
    cells = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert [cell.partition(" ")[0] for cell in cells[1:]] == ["20.0", "40.0", "50.0", "+30.0", "+10.0"]
    assert "It beats the start, by +10.0 points [+5.0, +15.0] of k-NN accuracy in training." in card


def test_a_start_that_is_not_beaten_is_said(recipe: dict[str, Any]):
    card, _ = card_of(recipe, results_with(gain=0.01))
    assert "**It is not surely better than the start**: +1.0 points [-4.0, +6.0]" in card
    results = results_with()
    for name in ("knn", "knn before", "knn random", "knn gain", "knn gain over random"):
        del results["numbers"][name]
    assert "Whether it beats the start: not measured." in card_of(recipe, results)[0]


@pytest.mark.parametrize("part", ["start", "teacher"])
def test_a_card_tells_what_was_given(part: str, recipe: dict[str, Any]):
    card, front = card_of(recipe, results_with(part))
    words = {"start": "It began with the weights of", "teacher": "It learnt from the features of"}[part]
    assert f"{words} {START}." in card
    assert f"Of the {part}, {SHIPPED}: apache-2.0; of its images (Imagenette): non-commercial research." in card
    assert front.get("base_model") == ("org/name" if part == "start" else None)


@pytest.mark.parametrize(
    ("fields", "repository"),
    [
        (of_timms("resnet18.a1_in1k", timm.get_pretrained_cfg("resnet18.a1_in1k").to_dict()), "timm/resnet18.a1_in1k"),
        ({"name": "hf-hub:org/start@main", "source": "https://example.org/paper"}, "org/start"),
        ({"source": "https://huggingface.co/org/name/blob/main/net.pth"}, None),
        ({"source": "https://huggingface.co/papers/2203.14898"}, None),
        ({"source": "https://example.org/name"}, None),
        ({"source": "a/file"}, None),
    ],
)
def test_the_base_model_is_a_repository_of_the_hub_or_none(fields: dict[str, Any], repository: str | None):
    given = {"start": dataclasses.replace(START, **fields)}
    assert base_model(given) == repository
    assert base_model(givens({"start": to_plain(given["start"])})) == repository


@pytest.mark.parametrize("part", ["start", "teacher"])
def test_what_was_given_is_measured_by_itself_in_rows_of_its_own(part: str, recipe: dict[str, Any]):
    about = {"protocol": "knn", "settings": {"size": 64}, "validation": {"source": "photos", "images": 100}}
    itself = about | {"numbers": {"k=20": share(0.9)}, "weights_sha256": START.sha256, "model": "theirs"}
    itself["command"] = "ssl-backbones evaluate knn theirs --data photos"
    own = about | {"numbers": {"k=20": share(0.6)}, "weights_sha256": "ours", "model": "run"}
    card, front = card_of(recipe, results_with(part), evaluations=[itself, own], source="org/name")
    assert "| what it was given | itself |" in card
    assert f"| the {part}, {SHIPPED}, knn, k=20, photos, at 64 px | 90.0 % [85.0, 95.0] |" in card
    assert "ssl-backbones evaluate knn theirs --data DATA" in card
    (index,) = front["model-index"]
    values = [metric["value"] for result in index["results"] for metric in result["metrics"]]
    assert 60.0 in values
    assert 90.0 not in values
    assert "what it was given" not in card_of(recipe, results_with(part), evaluations=[own], source="org/name")[0]


@pytest.mark.parametrize("part", ["start", "teacher"])
@pytest.mark.parametrize("labels", ["none", "classes", "captions", "not recorded"])
def test_self_supervision_is_claimed_only_where_nothing_behind_it_belies_it(
    part: str, labels: str, recipe: dict[str, Any]
):
    card, front = card_of(recipe, results_with(part, labels=labels))
    assert ("self-supervised-learning" in front["tags"]) == (labels == "none")
    assert ("pretrained without labels by BYOL" in card) == (labels == "none")
    told = {"classes": "trained with labels", "captions": "trained with captions"}
    if labels != "none":
        words = told.get(labels, "of which it is not recorded whether labels made them")
        assert words in card.partition("## How to load")[0]


@pytest.mark.parametrize("part", ["start", "teacher"])
@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "dinov3-license", "gpl-3.0", "other"])
def test_what_is_given_binds_the_card_to_its_licence(part: str, licence: str, recipe: dict[str, Any]):
    card, front = card_of(recipe, results_with(part, licence=licence))
    listed = licence not in {"dinov3-license", "other"}
    assert front["license"] == (licence if listed else "other")
    assert front.get("license_name") == (None if listed else licence)
    assert ("NON-COMMERCIAL" in card.partition("## Licence")[2]) == (licence == "cc-by-nc-4.0")
    given = givens(results_with(part, licence=licence))
    for looser in ("apache-2.0", "mit", "cc-by-4.0"):
        with pytest.raises(GivenError, match=f"the licence {looser} is not that of {SHIPPED}, {licence}"):
            settled(Terms(looser), given)
    assert settled(Terms(licence), given).licence == licence


@pytest.mark.parametrize(
    ("start", "teacher", "licence"),
    [
        ("cc-by-nc-4.0", "dinov3-license", None),
        ("dinov3-license", "gpl-3.0", None),
        ("gpl-3.0", "cc-by-nc-sa-4.0", None),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-4.0"),
        ("cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-4.0", "cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("cc-by-4.0", "gpl-3.0", None),
        ("gpl-3.0", "gpl-3.0", "gpl-3.0"),
        ("other", "dinov3-license", "dinov3-license"),
        ("mit", "gpl-3.0", "gpl-3.0"),
        (None, "gpl-3.0", "unknown"),
        ("mit", None, "unknown"),
        ("mit", "apache-2.0", None),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_licences_of_which_none_fits_both_bar_a_run_from_publishing_and_not_from_its_draft(
    start: str | None, teacher: str | None, licence: str | None, turned: bool, recipe: dict[str, Any]
):
    first, second = (teacher, start) if turned else (start, teacher)
    results = results_with("start", licence=first) | results_with("teacher", licence=second, name="seer")
    given, draft = givens(results), card_of(recipe, results)[0]
    if licence is None and "mit" not in (start, teacher):
        told = f"no licence is known that fits what is made of {SHIPPED} ({first}) and seer ({second})"
        told = re.escape(told)
        assert bound_to(given) is None
        assert "Of the weights: none, as no licence fits all that they were made of." in draft
        for stated in (None, first, "mit"):
            with pytest.raises(GivenError, match=f"{told}.*take another start or another teacher"):
                settled(Terms(stated), given)
        with pytest.raises(GivenError, match=told):
            card_of(recipe, results, source="org/name")
    else:
        either = {first, second} if is_non_commercial(licence) else {licence}
        assert bound_to(given) in either
        assert settled(Terms(), given).licence in (either if licence else {"apache-2.0"})
        assert "Of the weights: none" not in draft


@pytest.mark.parametrize("licence", ["CC BY-NC 4.0", "cc_by_nc_4.0", "Other", "GPL 3.0"])
def test_a_licence_in_other_letters_is_the_hubs(licence: str, recipe: dict[str, Any]):
    hubs = {"Other": "other", "GPL 3.0": "gpl-3.0"}.get(licence, "cc-by-nc-4.0")
    assert settled(Terms(), givens(results_with(licence=licence))).licence == hubs
    assert card_of(recipe, results_with(licence=licence))[1]["license"] == hubs


def test_a_licence_that_is_only_known_to_be_none_of_the_hubs_is_named_by_who_publishes():
    given = givens(results_with(licence="other"))
    with pytest.raises(MaterialError, match="name it with --licence, and give the address"):
        check_licence(settled(Terms(), given))
    named = Terms("Their Terms", "https://example.org/terms")
    check_licence(settled(named, given))
    assert settled(named, given).on_the_hub["license_name"] == "their-terms"


def test_another_non_commercial_licence_may_be_stated_and_a_free_start_binds_to_nothing():
    given = givens(results_with(licence="cc-by-nc-4.0"))
    assert settled(Terms("cc-by-nc-sa-4.0"), given).licence == "cc-by-nc-sa-4.0"
    for licence, told in (("mit", "apache-2.0"), (None, "unknown")):
        assert settled(Terms(), givens(results_with(licence=licence))).licence == told
        assert settled(Terms("gpl-3.0"), givens(results_with(licence=licence))).licence == "gpl-3.0"


@pytest.mark.parametrize("plain", [3, {}, {"name": 1}, [], {**to_plain(START), "labels": "some"}])
def test_a_record_that_no_run_writes_is_refused(plain: Any):
    with pytest.raises(GivenError, match=r"results.json does not tell what the run was given"):
        givens({"start": plain})


def test_the_page_tells_the_start_and_its_accuracy(recipe: dict[str, Any]):
    told = facts(recipe, results_with())
    assert told["Start"] == str(START)
    assert told["k-NN accuracy"].endswith("random weights 20.0 %, the start 40.0 %")


def test_no_place_of_a_machine_is_published():
    plain = {"init": "local-dir:/srv/mine/start", "start": {"name": "/srv/mine/start"}}
    assert "/srv" not in json.dumps(without_places(plain))


def test_publishing_takes_the_starts_licence_and_refuses_a_looser_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A run that began with non-commercial weights, from its end to what would be published."""
    import ssl_backbones
    from ssl_backbones.hub.export import save_backbone

    start = tmp_path / "start"
    model = ssl_backbones.create_model(SHIPPED, pretrained=True, num_classes=0)
    save_backbone(model, start, "resnet8", license="cc-by-nc-4.0", input_size=(3, 32, 32), crop_pct=1.0)
    data, folder = image_folder(tmp_path / "photos"), tmp_path / "run"
    run(dataclasses.replace(tiny(BYOLConfig, data, folder, init=str(start)), method=small_config(BYOLConfig)))
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-nc-4.0"
    assert "the start" in card
    evaluate_run(start, labelled_images(tmp_path / "labelled"), tmp_path / "itself")
    words = ["publish", str(folder), "--repo", "org/name", "--data_terms", "CC0", "--dry_run"]
    words += ["--evaluation", str(tmp_path / "itself")]
    assert __main__.main([*words, "--licence", "apache-2.0"]) == 2
    assert "which binds what is made of it" in capsys.readouterr().err
    assert __main__.main([*words, "--out", str(tmp_path / "preview")]) == 0
    assert "Licence of the weights: license: cc-by-nc-4.0" in capsys.readouterr().out
    evaluations = [path.name for path in (tmp_path / "preview" / "evaluations").iterdir()]
    assert evaluations == ["knn_start.json"]
    assert (
        "| the start, start, knn, chosen, the split kept beside labelled, at 16 px |"
        in (tmp_path / "preview" / "README.md").read_text()
    )
    config = json.loads((tmp_path / "preview" / "config.json").read_text())
    assert config["pretrained_cfg"]["license"] == "cc-by-nc-4.0"
    for path in (tmp_path / "preview").rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
