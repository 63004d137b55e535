"""Weights that ship: small, registered, above random weights; and found by their name once they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published import refused
from torch import nn

import ssl_backbones
from ssl_backbones.catalogue.lookup import list_models
from ssl_backbones.hub.publishing.material import Material, MaterialError
from ssl_backbones.hub.publishing.shipping import LARGEST, ship
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
    evaluations: list[dict[str, Any]], name: str = NAME, fingerprint: str = IMAGENETTE.fingerprints[0]
) -> Material:
    results = {"data": {"fingerprint": fingerprint}}
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
            "features, top-1 it does not surely",
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
