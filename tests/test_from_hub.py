"""Files on the Hub that are larger than allowed, as the Hub states: refused in a sentence before they are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from loopback_hub import Answers, loopback_hub
from published import point_at

import ssl_backbones
from ssl_backbones.convert import ConversionError
from ssl_backbones.fetch import from_hub
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import from_run
from ssl_backbones.models.provenance import records
from ssl_backbones.registry.errors import PretrainedWeightsError

NAME = "hf-hub:org/kind"
TOO_LARGE = r"^'org/kind' on the Hub has [\d,]+ bytes of {}, and {:,} are allowed: name another, or download it by hand"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    folder = save_backbone(ssl_backbones.create_model("resnet8", num_classes=0), tmp_path / "files", "resnet8")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"recipe.json": b"{}"}
    with loopback_hub(files) as (address, kind):
        point_at(address, monkeypatch, None)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield kind


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_allowed_is_fetched(hub: type[Answers], tmp_path: Path) -> None:
    ssl_backbones.create_model(NAME, pretrained=True, cache_dir=str(tmp_path / "cache"))
    assert kept(tmp_path)


def test_weights_that_are_too_large(hub: type[Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = len(hub.files["model.safetensors"]) - 1
    monkeypatch.setattr(from_hub, "LARGEST_WEIGHTS", most)
    with pytest.raises(PretrainedWeightsError, match=TOO_LARGE.format("weights", most)):
        ssl_backbones.create_model(NAME, pretrained=True, cache_dir=str(tmp_path / "cache"))
    assert max(path.stat().st_size for path in kept(tmp_path)) <= len(hub.files["config.json"])
    ssl_backbones.create_model(NAME, cache_dir=str(tmp_path / "cache"))  # which needs none


@pytest.mark.parametrize("fetched", [False, True])
def test_an_older_torch_takes_safetensors_of_the_hub_and_no_pickle(
    fetched: bool, hub: type[Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what was fetched before, where the Hub is asked nothing."""
    cache = str(tmp_path / "cache")
    if fetched:
        ssl_backbones.create_model(NAME, pretrained=True, cache_dir=cache)
        monkeypatch.setattr(from_hub, "stated_size", lambda repository, names, revision: 0)
    monkeypatch.setattr(from_hub, "is_safe_with_pickles", lambda: False)
    monkeypatch.setattr(from_hub, "require_safe_torch", lambda place: refuse(place))
    ssl_backbones.create_model(NAME, pretrained=True, cache_dir=cache)
    hub.files = {name: content for name, content in hub.files.items() if name != "model.safetensors"}
    with pytest.raises(ValueError, match="org/kind is a pickle"):
        ssl_backbones.create_model(NAME, pretrained=True, cache_dir=str(tmp_path / "empty"))


def refuse(place: str) -> None:
    raise ConversionError(f"{place} is a pickle")


def test_a_description_that_is_too_large(hub: type[Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_hub, "LARGEST", 1)
    for name, ask in (("config.json", ssl_backbones.describe), ("recipe.json", records)):
        with pytest.raises(PretrainedWeightsError, match=TOO_LARGE.format(name, 1)):
            ask(NAME)
    assert not kept(tmp_path)


def test_a_state_that_is_too_large(hub: type[Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over the files that would be fetched."""
    half = from_hub.LARGEST_WEIGHTS // 2
    names = ("recipe.json", "checkpoints/step-1/method.safetensors", "model.safetensors", "checkpoints/step-1/x")
    sizes = [SimpleNamespace(rfilename=name, size=half) for name in names]
    for count, refused in ((3, False), (4, True)):
        told = SimpleNamespace(siblings=sizes[:count])
        monkeypatch.setattr(from_hub.HfApi, "model_info", lambda *_, told=told, **__: told)
        monkeypatch.setattr(from_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "fetched"))
        if refused:
            with pytest.raises(PretrainedWeightsError, match="are allowed: name another"):
                from_run.state_folder(NAME)
        else:
            assert from_run.state_folder(NAME) == tmp_path / "fetched"
