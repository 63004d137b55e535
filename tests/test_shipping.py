"""Weights that ship: small, registered, above random weights; and found by their name once they are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, in_repository
from published import refused
from torch import nn

import ssl_backbones
from ssl_backbones.catalogue.lookup import list_models
from ssl_backbones.hub.publishing.material import Material, MaterialError
from ssl_backbones.hub.publishing.shipping import LARGEST, ship
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.registry.image_sets import CLOTHING, IMAGENETTE
from ssl_backbones.registry.tags import TAGS, WEIGHTS

NAME = "resnet8_byol.imagenette32_60ep"
FILES = sorted(WEIGHTS.glob("*.safetensors"))


def evaluation(protocol: str, correct: int, random: bool = False) -> dict[str, Any]:
    """Results of 100 images, good to five points."""
    share = correct / 100
    number = {"value": share, "low": share - 0.05, "high": share + 0.05, "correct": correct, "of": 100}
    return {"protocol": protocol, "numbers": {"top-1": number}, "random_weights": random}


PROTOCOLS = ("knn", "logistic regression on cached features")
WORTH = [evaluation(name, 60) for name in PROTOCOLS]
RANDOM = [evaluation(name, 40, random=True) for name in PROTOCOLS]


def material(
    evaluations: list[dict[str, Any]], name: str = NAME, fingerprint: str = IMAGENETTE.fingerprints[0], **more: Any
) -> Material:
    results = {"data": {"fingerprint": fingerprint}, **more}
    return Material(Path("run"), {"name": name}, results, tuple(evaluations), nn.Identity(), None)


def test_what_is_worth_it_is_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    placed = ship(material([*WORTH, *RANDOM]), tmp_path / "model.safetensors", tmp_path / "_weights")
    assert placed.read_bytes() == b"weights"
    assert placed.name == f"{NAME}.safetensors"


@pytest.mark.parametrize(
    ("evaluations", "name", "size", "told"),
    [
        ([*WORTH, *RANDOM], "resnet8_byol.mine", 7, "no registered name"),
        ([*WORTH, *RANDOM], NAME, LARGEST + 1, "2,000,001 bytes, but 2,000,000 may ship"),
        (WORTH, NAME, 7, "evaluate it by knn"),
        ([*WORTH, RANDOM[0]], NAME, 7, "evaluate it by logistic"),
        (
            [WORTH[0], evaluation(PROTOCOLS[1], 47), *RANDOM],
            NAME,
            7,
            "does not surely in logistic regression on cached features, top-1",
        ),
    ],
)
def test_what_may_not_ship_is_refused(
    evaluations: list[dict[str, Any]], name: str, size: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(size))
    with pytest.raises(MaterialError, match=told):
        ship(material(evaluations, name), tmp_path / "model.safetensors", tmp_path / "_weights")
    assert not list((tmp_path / "_weights").glob("*"))


@pytest.mark.parametrize("fingerprint", ["mine", CLOTHING.fingerprints[0]])
def test_weights_of_other_images_than_their_name_says_do_not_ship(fingerprint: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(MaterialError, match="says Imagenette, and the images are not known to be those"):
        ship(
            material([*WORTH, *RANDOM], fingerprint=fingerprint), tmp_path / "model.safetensors", tmp_path / "_weights"
        )
    assert not (tmp_path / "_weights").exists()


def test_weights_of_fewer_epochs_than_their_name_says_do_not_ship(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    altered = {"epochs": [60, 5], "precision": ["auto", "fp32"]}
    with pytest.raises(MaterialError, match=f"was altered from its recipe in epochs, so it is not {NAME}: train by"):
        ship(material([*WORTH, *RANDOM], altered=altered), tmp_path / "model.safetensors", tmp_path / "_weights")
    ship(material([*WORTH, *RANDOM], altered={"precision": []}), tmp_path / "model.safetensors", tmp_path / "_weights")


def test_nothing_is_written_for_what_may_not_ship(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run's folder" in refused(capsys, tmp_path, "--ship")


def test_what_ships_has_a_tag_and_is_small() -> None:
    assert {path.stem for path in FILES} <= {tag.name for tag in TAGS}
    assert all(path.stat().st_size <= LARGEST for path in FILES)
    assert sum(path.stat().st_size for path in FILES) <= 4 * LARGEST


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_name_that_ships_is_loaded_without_a_network(name: str) -> None:
    model = ssl_backbones.create_model(name, pretrained=True).eval()
    features = model(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, 64)
    assert features.std() > 0
    assert name in list_models(pretrained=True)
    assert ssl_backbones.describe(name).source == "ships with the package"


def row_of(name: str, page: Path) -> list[str]:
    """The row of a page's table that shows weights."""
    (row,) = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}`")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def measured(name: str, evaluation: str, number: str = "top-1") -> str:
    """A number of an evaluation in percent, as tables show it."""
    path = ROOT / "benchmarks" / "results" / name / "evaluations" / f"{evaluation}.json"
    return f"{100 * json.loads(path.read_bytes())['numbers'][number]['value']:.1f}"


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_every_table_shows_what_was_measured(name: str) -> None:
    by_classifier, near = "logistic_regression_on_cached_features", "k=20, T=0.07"
    linear, random = measured(name, by_classifier), measured(name, f"{by_classifier}_random")
    assert row_of(name, ROOT / "docs" / "weights.md")[-2:] == [linear, random]
    shown = [measured(name, "knn", near), linear, measured(name, "mlp")]
    assert row_of(name, ROOT / "benchmarks" / "README.md")[1:] == shown
    assert next(tag.our_number for tag in TAGS if tag.name == name) == float(linear)


@pytest.mark.parametrize("name", [path.stem for path in FILES if "distilled" in path.stem])
def test_what_was_taught_stands_between_random_weights_and_its_teacher(name: str) -> None:
    lines = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith(f"| `{name}`"))
    before, after = ([cell.strip() for cell in lines[at].strip("|").split("|")] for at in (place - 1, place + 1))
    by_classifier, near = "logistic_regression_on_cached_features", "k=20, T=0.07"
    assert before[1:] == [
        measured(name, "knn_random", near),
        measured(name, f"{by_classifier}_random"),
        measured(name, "mlp_random"),
    ]
    assert after[1] == measured(name, "knn_teacher", near)
    if after[2] != "not measured":
        assert after[2] == measured(name, f"{by_classifier}_teacher")
    seconds = json.loads((ROOT / "benchmarks" / "results" / name / "results.json").read_bytes())["seconds"]
    assert f" {round(seconds / 60)}" in "\n".join(lines[place + 1 : place + 10])


def test_the_readme_names_what_learned_from_images_that_anybody_may_use() -> None:
    (told,) = re.findall(r"Of the weights that ship, (.*?);", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    free = {tag.name for tag in TAGS if tag.file and "non-commercial" not in tag.data.terms}
    assert set(re.findall(r"`(\S+)`", told)) == free


def test_the_readme_names_whose_weights_may_be_fetched_for_any_use() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Weights by name")[2].partition("## Why")[0]
    fetched = {tag for tag in TAGS if tag.origin and tag.source and "-nc" not in tag.licence}
    told = re.findall(r"`(resnet50_\S+)` \((\S+), ([\d.]+) %", page)
    assert {(name, licence.lower(), float(number)) for name, licence, number in told} == {
        (tag.name, tag.licence, tag.origin.number) for tag in fetched if tag.origin
    }


KEPT = sorted(path.parent for path in (ROOT / "weights").glob("*/model.safetensors"))
"""Folders of weights that are in the repository alone."""


@in_repository
def test_what_the_repository_keeps_is_small_and_in_no_wheel() -> None:
    assert KEPT
    assert sum(path.stat().st_size for folder in KEPT for path in folder.rglob("*") if path.is_file()) <= 25_000_000
    included = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.hatch.build.targets.sdist]")[2]
    assert "weights" not in included.partition("\n\n")[0]


@in_repository
@pytest.mark.parametrize("folder", KEPT or [ROOT / "weights"], ids=lambda folder: folder.name)
def test_a_folder_of_weights_is_loaded_and_its_row_shows_what_was_measured(folder: Path) -> None:
    model = ssl_backbones.create_model(folder, pretrained=True).eval()
    features = model(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, model.num_features)
    assert features.std() > 0
    results = json.loads((folder / "results.json").read_bytes())
    assert weights_sha256(model) == json.loads((folder / "evaluations" / "knn.json").read_bytes())["weights_sha256"]
    assert results["altered"].keys() <= {"layout", "precision", "method.kept", "method.teacher"}

    def shown(evaluation: str, number: str) -> str:
        found = json.loads((folder / "evaluations" / f"{evaluation}.json").read_bytes())["numbers"][number]
        return f"{100 * found['value']:.1f}"

    linear = shown("logistic_regression_on_cached_features", "top-1")
    assert row_of(folder.name, ROOT / "benchmarks" / "README.md")[1:3] == [shown("knn", "k=20, T=0.07"), linear]
    random = shown("logistic_regression_on_cached_features_random", "top-1")
    assert row_of(f"weights/{folder.name}", ROOT / "docs" / "weights.md")[-2:] == [linear, random]
