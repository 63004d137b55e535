"""Features extracted once: what they are, what is kept of them, and what is not believed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import image_folder
from two_processes import run_two_processes

from ssl_backbones.data import Images, TooManyUnreadableError, open_images
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.data.subset import at
from ssl_backbones.evaluate import feature_store
from ssl_backbones.evaluate import features as features_module
from ssl_backbones.evaluate.feature_store import CacheError
from ssl_backbones.evaluate.features import Extraction, Features, FeaturesNotFiniteError, features_of, identity
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.train import embed as embed_module
from ssl_backbones.train.processes import meet
from ssl_backbones.views import MOCO_V2_SMALL_VIEWS, MultiView

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return open_images(str(image_folder(tmp_path_factory.mktemp("features") / "photos")))


@pytest.fixture(scope="module")
def model() -> EvaluatedModel:
    return open_model("resnet8", CPU, size=16, random=True)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of ten images each: three of them for the 26 images."""
    monkeypatch.setattr(features_module, "BLOCK", 10)


def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each block that is embedded, from here on."""
    counts: list[int] = []
    embed_each = features_module.embed_each

    def counting(network: Any, dataset: Any, parts: list[np.ndarray], *rest: Any, **more: Any) -> Any:
        counts.extend(len(np.unique(part)) for part in parts)
        return embed_each(network, dataset, parts, *rest, **more)

    monkeypatch.setattr(features_module, "embed_each", counting)
    return counts


def one_at_a_time(model: EvaluatedModel, images: Images) -> torch.Tensor:
    """The features (N, D) of images by themselves."""
    rows = []
    for image in (images[index] for index in range(len(images))):
        with torch.no_grad():
            rows.append(model.network(model.crop.on_device(model.crop.on_host([image], None))))
    return torch.cat(rows)


@pytest.mark.parametrize("batch_size", [4, 100])
@pytest.mark.usefixtures("small_blocks")
def test_each_row_is_its_own_images(images: Images, model: EvaluatedModel, batch_size: int) -> None:
    found = features_of(model, images, Extraction(batch_size=batch_size))
    torch.testing.assert_close(found.rows, one_at_a_time(model, images), atol=1e-5, rtol=1e-4)
    assert found.readable.all()
    some = features_of(model, images, Extraction(batch_size=batch_size), only=np.array([25, 3, 4]))
    torch.testing.assert_close(some.rows, found.rows[[25, 3, 4]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("small_blocks")
def test_convolutions_in_single_precision_are_exact(precision: Any, images: Images, model: EvaluatedModel) -> None:
    """Also on a GPU, whose features a CPU takes up."""
    allowed: list[bool] = []
    hook = model.network.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    features_of(model, images, Extraction(precision=precision))
    hook.remove()
    assert allowed == [precision != "fp32"] * 3
    assert torch.backends.cudnn.allow_tf32


def test_views_stand_side_by_side(images: Images, model: EvaluatedModel) -> None:
    views = MultiView(MOCO_V2_SMALL_VIEWS, 16)
    found = features_of(model, images, Extraction(), views=views, seed=3)
    shown = views.on_device(views.on_host([images[7]], views.draw(3, 0, np.array([7]))))
    with torch.no_grad():
        expected = torch.cat([model.network(view) for view in shown], dim=1)[0]
    torch.testing.assert_close(found.rows[7], expected, atol=1e-5, rtol=1e-4)
    others = features_of(model, images, Extraction(), views=views, seed=4)
    assert not torch.equal(found.rows, others.rows)


@pytest.mark.usefixtures("small_blocks")
def test_they_are_made_once(
    images: Images,
    model: EvaluatedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = embedded(monkeypatch)
    made = features_of(model, images, Extraction(tmp_path / "a" / "b"))
    assert counts == [10, 10, 6]
    again = features_of(model, images, Extraction(tmp_path / "a" / "b", batch_size=3))
    assert counts == [10, 10, 6]
    assert torch.equal(made.rows, again.rows)
    assert "were in" in capsys.readouterr().out
    features_of(model, images, Extraction(None))
    assert counts == [10, 10, 6] * 2


@pytest.mark.usefixtures("small_blocks")
def test_what_shows_in_the_values_tells_files_apart(
    images: Images, model: EvaluatedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Extraction(tmp_path / "cache")
    others = image_folder(tmp_path / "others", count=25)
    asked: list[tuple[EvaluatedModel, Images, Extraction, dict[str, Any]]] = [
        (model, images, how, {}),
        (open_model("resnet8", CPU, size=16, random=True, seed=1), images, how, {}),
        (open_model("resnet8", CPU, size=24, random=True), images, how, {}),
        (open_model("resnet8", CPU, size=16, random=True, layer="layer2"), images, how, {}),
        (model, open_images(str(others)), how, {}),
        (model, images, dataclasses.replace(how, precision="bf16"), {}),
        (model, images, how, {"only": np.arange(26)[::-1]}),
        (model, images, how, {"views": MultiView(MOCO_V2_SMALL_VIEWS, 16)}),
        (model, images, how, {"views": MultiView(MOCO_V2_SMALL_VIEWS, 16), "seed": 3}),
    ]
    counts = embedded(monkeypatch)
    for model_, images_, how_, more in asked:
        counts.clear()
        features_of(model_, images_, how_, **more)
        assert sum(counts) == len(images_)
    for model_, images_, how_, more in asked:
        counts.clear()
        features_of(model_, images_, how_, **more)
        assert counts == []


@pytest.mark.parametrize("opened", ["whole", "a part"])
@pytest.mark.parametrize("field", dataclasses.fields(DecodePolicy), ids=lambda field: field.name)
def test_every_rule_of_decoding_tells_files_apart(
    field: dataclasses.Field[Any], opened: str, images: Images, model: EvaluatedModel, tmp_path: Path
) -> None:
    rules = {"max_pixels": 10, "background": (0, 0, 0), "channels": 1, "depth": "uint8", "everyday": True}
    folder = image_folder(tmp_path / "images", count=3)

    def question(policy: DecodePolicy) -> dict[str, Any]:
        found = open_images(str(folder))
        found.policy = policy
        chosen = at(found, np.arange(3 if opened == "whole" else 2))
        return identity(model, chosen, Extraction(), model.crop, None)

    assert question(DecodePolicy()) != question(DecodePolicy(**{field.name: rules[field.name]}))


@pytest.mark.usefixtures("small_blocks")
def test_a_stopped_extraction_goes_on(
    images: Images, model: EvaluatedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features_of(model, images, Extraction(tmp_path / "whole"))
    keep, kept = feature_store.keep, []

    def stop(path: Path, *rest: Any) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(path)
        keep(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_store, "keep", stop)
        with pytest.raises(KeyboardInterrupt):
            features_of(model, images, Extraction(tmp_path / "stopped"))
    counts = embedded(monkeypatch)
    resumed = features_of(model, images, Extraction(tmp_path / "stopped"))
    assert counts == [6]
    assert torch.equal(resumed.rows, whole.rows)


@pytest.mark.usefixtures("small_blocks")
def test_images_of_the_next_block_are_read_without_a_new_start(
    images: Images, model: EvaluatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read_each = [], embed_module.read_each

    def counting(dataset: Any, requests: Any, workers: int) -> Any:
        asked.append([len(request.indices) for request in requests])
        return read_each(dataset, requests, workers)

    monkeypatch.setattr(embed_module, "read_each", counting)
    features_of(model, images, Extraction(batch_size=4))
    assert asked == [[4] * 3 + [4] * 3 + [4] * 2]


@pytest.mark.usefixtures("small_blocks")
def test_larger_files_of_an_older_version_are_said_and_made_anew(
    images: Images, model: EvaluatedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "BLOCK", 20)
        features_of(model, images, Extraction(tmp_path))
    capsys.readouterr()
    again = features_of(model, images, Extraction(tmp_path))
    assert capsys.readouterr().out.count("is not used (it holds the features of something else)") == 2
    torch.testing.assert_close(again.rows, one_at_a_time(model, images), atol=1e-5, rtol=1e-4)


def torn(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))


def foreign(file: Path, other: Path) -> None:
    file.write_bytes(other.read_bytes())


@pytest.mark.parametrize("spoil", [torn, empty, flipped, foreign])
@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_is_not_to_be_believed_is_said_and_made_anew(
    images: Images,
    model: EvaluatedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Any,
) -> None:
    made = features_of(model, images, Extraction(tmp_path))
    first, second, _ = sorted(tmp_path.iterdir())
    spoil(second, first)
    counts = embedded(monkeypatch)
    capsys.readouterr()
    again = features_of(model, images, Extraction(tmp_path))
    assert f"{second} is not used" in capsys.readouterr().out
    assert counts == [10]
    assert torch.equal(again.rows, made.rows)
    features_of(model, images, Extraction(tmp_path))
    assert counts == [10]


def test_an_unreadable_image_is_marked_and_remembered(model: EvaluatedModel, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos")
    (folder / "hat" / "03.jpg").write_bytes(b"no image")
    images = open_images(str(folder))
    row = list(images.keys).index("hat/03.jpg")
    for _ in range(2):
        found = features_of(model, images, Extraction(tmp_path / "cache"))
        assert found.unreadable == ("hat/03.jpg",)
        assert np.flatnonzero(~found.readable).tolist() == [row]
    with pytest.raises(TooManyUnreadableError, match="1 of 26 images cannot be read"):
        features_of(model, images, Extraction(tmp_path / "cache", unreadable_share=0.0))


def test_features_that_are_no_numbers_are_refused_in_a_sentence(images: Images) -> None:
    broken = open_model("resnet8", CPU, size=16, random=True)
    broken.network.conv1.weight.data[0] = torch.nan  # type: ignore[union-attr,operator]
    with pytest.raises(FeaturesNotFiniteError, match=r"^features of resnet8 in fp32 are not finite: where its"):
        features_of(broken, images, Extraction())


def test_networks_of_one_state_and_other_layers_are_told_apart(model: EvaluatedModel) -> None:
    other = dataclasses.replace(model, network=torch.nn.Sequential(model.network, torch.nn.ReLU()))
    assert other.identity != model.identity
    assert open_model("resnet8", CPU, size=16, random=True).identity == model.identity


def test_a_cache_that_cannot_be_is_refused(images: Images, model: EvaluatedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"features cannot be kept in .*file.*--cache"):
        features_of(model, images, Extraction(tmp_path / "file" / "below"))


def on_a_rank(rank: int, data: str, cache: str, kept: str) -> dict[str, Any]:
    """Features made by this process and another, and those read from what one process kept."""
    features_module.BLOCK = 10
    meet()
    model, images = open_model("resnet8", CPU, size=16, random=True), open_images(data)
    found = [
        features_of(model, images, Extraction(Path(at), batch_size=4, unreadable_share=0.1))
        for at in (cache, cache, kept)
    ]
    return {"rows": [features.rows for features in found], "unreadable": [list(f.unreadable) for f in found]}


def test_two_processes_make_the_same_to_the_last_bit(
    model: EvaluatedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "BLOCK", 10)
    folder = image_folder(tmp_path / "photos")
    for name in ("bag/00.jpg", "hat/25.jpg"):  # one in each process's share
        (folder / name).write_bytes(b"no image")
    share = Extraction(tmp_path / "one", batch_size=4, unreadable_share=0.1)
    alone: Features = features_of(model, open_images(str(folder)), share)
    ranks = run_two_processes(on_a_rank, str(folder), str(tmp_path / "two"), str(tmp_path / "one"))
    for rank in ranks:
        for rows, unreadable in zip(rank["rows"], rank["unreadable"], strict=True):
            assert torch.equal(rows, alone.rows)
            assert unreadable == ["bag/00.jpg", "hat/25.jpg"]


@pytest.mark.usefixtures("small_blocks")
def test_wanted_images_alone_have_rows(model: EvaluatedModel, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos")
    (folder / "hat" / "03.jpg").write_bytes(b"no image")
    images = open_images(str(folder))
    how = Extraction(tmp_path / "cache", unreadable_share=0.1)
    everything = features_of(model, images, how)
    wanted = np.arange(len(images)) % 3 != 1
    lost = list(images.keys).index("hat/03.jpg")
    wanted[lost] = True
    for cached in (how, dataclasses.replace(how, cache=None)):
        some = features_of(model, images, cached, wanted=wanted)
        kept = wanted & (np.arange(len(images)) != lost)
        assert torch.equal(some.rows, everything.rows[torch.from_numpy(kept)])
        assert np.flatnonzero(~some.readable).tolist() == [lost]
    assert len(features_of(model, images, how, wanted=np.zeros(len(images), bool)).rows) == 0
