"""The provenance of given networks: licence, source, images and labels, as far as each is recorded anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import ssl_backbones
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.models.provenance import Provenance, of_timms, provenance_of
from ssl_backbones.models.records_behind import shown
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.registry.licences import HUB_LICENCES, PERMISSIVE, binds, is_non_commercial
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.registry.tags import TAGS
from ssl_backbones.typed.values import from_plain, to_plain
from ssl_backbones.weightless import weightless

TIMMS = {
    "resnet50.a1_in1k": ("apache-2.0", "ImageNet-1k", "classes"),
    "resnet50.fb_swsl_ig1b_ft_in1k": (
        "cc-by-nc-4.0",
        "ImageNet-1k and a billion images of Instagram (not public)",
        "classes",
    ),
    "vit_small_patch14_dinov2.lvd142m": ("apache-2.0", "LVD-142M (not public)", "none"),
    "convnext_tiny.dinov3_lvd1689m": ("dinov3-license", "LVD-1689M (not public)", "none"),
    "resnet50_clip.openai": ("mit", "400 million images with captions, of OpenAI (not public)", "captions"),
    "vit_small_patch16_224.dino": ("apache-2.0", None, "none"),
    "convnextv2_atto.fcmae_ft_in1k": ("cc-by-nc-4.0", "ImageNet-1k", "classes"),
}
"""Licence, images and labels of weights of timm's."""


def blank(name: str, create: Callable[..., Any] = timm.create_model) -> torch.nn.Module:
    """A network with its description and without weights worth reading, which would be long in the drawing."""
    with weightless():
        network: torch.nn.Module = create(name)
    return network.to_empty(device="cpu")


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.name)
def test_of_every_tag_the_table_is_told(tag: Any):
    create = ssl_backbones.create_model
    model = create(tag.name, pretrained=True) if tag.file else blank(tag.name, create)
    found = provenance_of(tag.name, model)
    behind = [tag.taught_on] if tag.taught_on else []
    assert (found.architecture, found.licence) == (tag.backbone, tag.licence)
    assert found.images == ", and before that ".join(data.name for data in (tag.data, *behind))
    assert found.images_terms == ", and before that ".join(dict.fromkeys(data.terms for data in (tag.data, *behind)))
    assert found.labels == ("classes" if behind or PAPERS[tag.method].labels else "none")
    assert found.sha256 == weights_sha256(model)
    assert found.non_commercial == ("-nc-" in tag.licence)


@pytest.mark.parametrize("name", TIMMS)
def test_of_timms_weights_their_description_and_the_words_of_their_tag(name: str):
    found = provenance_of(name, blank(name))
    assert (found.licence, found.images, found.labels) == TIMMS[name]
    assert found.architecture == name.partition(".")[0]
    assert found.source
    assert name.rpartition("/")[2] in str(found)
    assert found.sha256 in str(found)
    assert from_plain(Provenance, json.loads(json.dumps(to_plain(found)))) == found


def test_networks_that_learnt_with_captions_are_not_said_to_have_learnt_with_labels():
    told: dict[str, str] = {}
    for name in timm.list_models(pretrained=True):
        cfg = timm.get_pretrained_cfg(name).to_dict()
        if "ft" not in name.partition(".")[2].split("_"):
            told[name] = of_timms(name, cfg)["labels"]
    captioned = {name for name in told if "clip" in name or "_pe_" in name or "_laion2b" in name}
    assert len(captioned) > 100
    assert {told[name] for name in captioned} == {"captions"}
    assert {told[name] for name in ("resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k")} == {"classes"}


def test_weights_that_a_network_with_labels_taught_are_not_said_to_have_learnt_without():
    taught = [tag.name for tag in TAGS if Name.parse(tag.name).method == "distilled"]
    assert taught
    for name in taught:
        assert provenance_of(name, ssl_backbones.create_model(name, pretrained=True)).labels == "classes"


def test_a_classifier_of_somebody_else_s_counts_classes_whatever_its_network():
    cfg = timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai").to_dict() | {"num_classes": 37, "tag": ""}
    assert of_timms("hf-hub:somebody/pets", cfg)["labels"] == "classes"


def folder(path: Path, **about: Any) -> Path:
    """A backbone as others keep it."""
    torch.manual_seed(0)
    save_backbone(ssl_backbones.create_model("resnet8", num_classes=0), path, "resnet8", **about)
    return path


def test_of_a_folder_what_its_description_says_and_no_more(tmp_path: Path):
    folder(tmp_path / "mine", license="mit", origin_url="https://example.org/a", mean=[0.5] * 3, std=[0.25] * 3)
    found = provenance_of(tmp_path / "mine", timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True))
    assert (found.licence, found.source, found.images) == ("mit", "https://example.org/a", None)
    assert (found.labels, found.mean, found.std) == ("not recorded", (0.5,) * 3, (0.25,) * 3)
    assert "images not recorded, whether with labels is not recorded" in str(found)


def run_folder(path: Path, model: str, method: dict[str, Any] | None = None, **results: Any) -> Provenance:
    """The provenance of the backbone in a folder of a run with these records."""
    folder(path / "backbone")
    recipe = {"name": "mine", "model": model, "method": method or {}}
    told = {"protocol": "pretraining", "model": model, "data": {"source": "photos/cats", "images": 40}}
    for name, content in (("recipe", recipe), ("results", told | results)):
        (path / f"{name}.json").write_text(json.dumps(content))
    return provenance_of(path, timm.create_model(f"local-dir:{path / 'backbone'}", pretrained=True))


@pytest.mark.parametrize("below", ["", "backbone"])
def test_of_a_run_its_records_are_read_and_no_path_is_told(below: str, tmp_path: Path):
    run_folder(tmp_path / "run", "resnet8_byol")
    name = tmp_path / "run" / below
    found = provenance_of(name, timm.create_model(f"local-dir:{tmp_path / 'run' / 'backbone'}", pretrained=True))
    assert (found.images, found.labels) == ("40 images of cats", "none")
    assert found.source == "a run of this package, run"
    assert str(tmp_path) not in str(found)


@pytest.mark.parametrize(
    ("model", "method", "results", "labels"),
    [
        ("resnet8_byol", {}, {}, "none"),
        ("resnet8_flags", {"pairs": ""}, {}, "none"),
        ("resnet8_flags", {"pairs": "pairs.parquet"}, {}, "classes"),
        ("resnet8_supervised", {}, {}, "classes"),
        ("resnet8_byol", {}, {"protocol": "finetune (patch)"}, "classes"),
        ("resnet8_byol", {}, {"start": {"labels": "classes", "images": "ImageNet-1k"}}, "classes"),
        ("resnet8_byol", {}, {"teacher": {"labels": "captions"}}, "captions"),
        ("resnet8_byol", {}, {"start": {"labels": "none"}}, "none"),
        ("resnet8_byol", {}, {"start": {}}, "not recorded"),
        ("resnet8_something", {}, {}, "not recorded"),
        ("resnet8_byol", [], {"data": 3}, "none"),
    ],
)
def test_labels_anywhere_before_a_run_count(
    model: str, method: Any, results: dict[str, Any], labels: str, tmp_path: Path
):
    found = run_folder(tmp_path, model, method, **results)
    assert found.labels == labels
    if results.get("start", {}).get("images"):
        assert found.images == "40 images of cats, and before that ImageNet-1k"


@pytest.mark.parametrize(
    ("given", "licence", "terms"),
    [
        ({}, None, None),
        ({"start": {"licence": "apache-2.0", "images_terms": "CC0"}}, None, "not recorded, and before that CC0"),
        ({"teacher": {"licence": "cc-by-nc-4.0"}}, "cc-by-nc-4.0", None),
        ({"start": {"licence": "unknown"}, "teacher": {"licence": "CC BY-NC 4.0"}}, "cc-by-nc-4.0", None),
        ({"start": {"licence": "gpl-3.0"}, "teacher": {"licence": "cc-by-nc-4.0"}}, "cc-by-nc-4.0", None),
        (
            {"start": {"images_terms": "a"}, "teacher": {"images_terms": "b"}},
            None,
            "not recorded, and before that a, and before that b",
        ),
    ],
)
def test_what_binds_a_run_binds_what_is_made_of_it(
    given: dict[str, Any], licence: str | None, terms: str | None, tmp_path: Path
):
    """Also where its backbone's description, as earlier versions wrote it, does not tell."""
    found = run_folder(tmp_path, "resnet8_byol", {}, **given)
    assert (found.licence, found.images_terms, found.is_own) == (licence, terms, True)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": NaN}'])
def test_records_that_cannot_be_read_are_refused(content: str, tmp_path: Path):
    run_folder(tmp_path, "resnet8_byol")
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(
        PretrainedWeightsError, match=r"results.json cannot be read .*: start the command that wrote it once more"
    ):
        provenance_of(tmp_path, timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True))


def test_a_name_is_shown_without_the_folders_it_lies_in(tmp_path: Path):
    (tmp_path / "run" / "backbone").mkdir(parents=True)
    assert shown(str(tmp_path / "run" / "backbone")) == "run"
    assert shown(str(tmp_path / "run")) == "run"
    assert shown("../elsewhere/run") == "run"
    assert shown("hf-hub:org/name") == "hf-hub:org/name"
    assert shown("resnet50.a1_in1k") == "resnet50.a1_in1k"


@pytest.mark.parametrize(
    ("stated", "recorded"),
    [("unknown", None), ("", None), (None, None), ("MIT", "mit"), ("Their Terms", "Their Terms"), ("Other", "other")],
)
def test_a_licence_is_recorded_by_the_hubs_name_and_an_unknown_one_not_at_all(
    stated: str | None, recorded: str | None, tmp_path: Path
):
    place = folder(tmp_path, license=stated)
    assert provenance_of(place, timm.create_model(f"local-dir:{place}", pretrained=True)).licence == recorded


def test_licences_that_bind():
    assert PERMISSIVE < HUB_LICENCES
    assert not any(is_non_commercial(name) for name in PERMISSIVE)
    told = {name for name in HUB_LICENCES if is_non_commercial(name)}
    assert {name for name in HUB_LICENCES if "-nc-" in name} < told
    assert told - {name for name in HUB_LICENCES if "-nc-" in name} == {
        "apple-amlr",
        "fair-noncommercial-research-license",
        "h-research",
        "intel-research",
    }
    assert binds("cc-by-nc-4.0")
    assert binds("dinov3-license")
    assert binds("gpl-3.0")
    assert not binds("Apache-2.0")
    assert not binds(None)
