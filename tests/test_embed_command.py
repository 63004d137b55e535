"""Features of a folder of images, in a file of each form, row by row those of the network."""

from __future__ import annotations

import csv
import json
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import drawn_image
from scripts import script

import ssl_backbones
from ssl_backbones.commands import run
from ssl_backbones.data import Batches, open_images
from ssl_backbones.evaluate import feature_store
from ssl_backbones.evaluate import features as features_module
from ssl_backbones.train.embed import embed
from ssl_backbones.views import CenterCrop


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("embed") / "images"
    for number in range(5):
        folder = root / ("bag", "hat")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        drawn_image(number, 40 + number, 36).save(folder / f"{number}, \u00e9.png")
    return root


def features(data: Path) -> np.ndarray:
    images = open_images(str(data))
    torch.manual_seed(0)
    network = ssl_backbones.create_model("resnet8", num_classes=0)
    rows, _ = embed(network, Batches(images, CenterCrop(32, 1.0), 0), np.arange(5), torch.device("cpu"))
    return rows.numpy()


def embed_images(data: Path, out: Path, *more: str) -> None:
    script("embed", ["resnet8", "--data", str(data), "--out", str(out), "--random", "--workers", "0", *more])


def refusal(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    with pytest.raises(SystemExit) as end:
        embed_images(*words)
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", ["f.parquet", "f.npy", "caf\udce9.npy"])
def test_names_that_are_no_unicode_are_written_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of Latin-1 in the name of a class and of the file, said on a terminal of UTF-8."""
    for number in range(4):
        folder = tmp_path / "images" / ("caf\udce9", "hat")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        drawn_image(number, 40, 36).save(folder / f"{number}.png")
    terminal = TextIOWrapper(BytesIO(), "utf-8", errors="strict", write_through=True)
    monkeypatch.setattr("sys.stdout", terminal)
    words = ["resnet8", "--data", str(tmp_path / "images"), "--out", str(tmp_path / name), "--random", "--workers", "0"]
    assert run("embed", words, "embed") == 0
    assert b"holds 64 features of each of 4 images" in terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert (tmp_path / name).is_file()
    if name == "f.parquet":
        assert set(pq.read_table(tmp_path / name)["class"].to_pylist()) == {r"caf\xe9", "hat"}


def test_parquet_holds_key_label_class_and_features(data: Path, tmp_path: Path) -> None:
    embed_images(data, tmp_path / "features.parquet")
    table, images = pq.read_table(tmp_path / "features.parquet"), open_images(str(data))
    assert table.column_names == ["key", "label", "class", "features"]
    assert table["key"].to_pylist() == list(images.keys)
    assert images.labels is not None
    assert table["label"].to_pylist() == images.labels.tolist()
    assert table["class"].to_pylist() == [images.classes[label] for label in images.labels]
    np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), features(data))
    note = json.loads(table.schema.metadata[b"ssl_backbones"])
    assert (note["size"], note["pretrained"], note["data"]["images"]) == (32, False, len(images))
    assert {images.fingerprint, images.fingerprint_by_sizes} <= set(note["data"].values())


def test_npy_has_its_keys_beside_it(data: Path, tmp_path: Path) -> None:
    embed_images(data, tmp_path / "features.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy", allow_pickle=False), features(data))
    with open(tmp_path / "features.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    images = open_images(str(data))
    assert rows[0] == ["key", "label", "class"]
    assert [row[0] for row in rows[1:]] == list(images.keys)


def test_unreadable_images_are_left_out_and_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        drawn_image(number, 40, 36).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    embed_images(folder, tmp_path / "features.parquet", "--unreadable_share", "0.5")
    table = pq.read_table(tmp_path / "features.parquet")
    assert table["key"].to_pylist() == ["0.png", "1.png", "3.png"]
    assert table["label"].to_pylist() == [None] * 3
    assert "1 that cannot be read left out" in capsys.readouterr().out


def test_an_embedding_goes_on_from_its_cache(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_images(data, tmp_path / "a.npy", "--cache", str(tmp_path / "kept"))
    monkeypatch.setattr("ssl_backbones.evaluate.features.embed_each", lambda network, dataset, parts, *_, **__: parts)
    embed_images(data, tmp_path / "b.npy", "--cache", str(tmp_path / "kept"))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_a_stopped_embedding_goes_on_without_being_asked_to_keep(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped once the first of three files is kept beside --out, as the sentence on an interrupt promises."""
    monkeypatch.setattr(features_module, "BLOCK", 2)
    words = ["resnet8", "--data", str(data), "--out", str(tmp_path / "f.npy"), "--random", "--workers", "0"]
    with monkeypatch.context() as patch:
        keep = feature_store.keep

        def stop(*block: Any) -> None:
            keep(*block)
            raise KeyboardInterrupt

        patch.setattr(feature_store, "keep", stop)
        assert run("embed", words, "embed") == 130
    assert "the same command goes on from what is kept" in capsys.readouterr().err
    assert len(list((tmp_path / "features").iterdir())) == 1
    seen: list[int] = []
    embed_each = features_module.embed_each

    def counting(network: Any, dataset: Any, parts: list[np.ndarray], *rest: Any, **more: Any) -> Any:
        seen.extend(row for part in parts for row in part.tolist())
        return embed_each(network, dataset, parts, *rest, **more)

    monkeypatch.setattr(features_module, "embed_each", counting)
    assert run("embed", words, "embed") == 0
    assert seen == [2, 3, 4]
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), features(data), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_projector(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    embed_images(data, tmp_path / "features.parquet", "--projector", str(tmp_path / "logs"))
    written = {path.name: path for path in (tmp_path / "logs").rglob("*") if path.is_file()}
    values = np.loadtxt(written["tensors.tsv"])
    np.testing.assert_allclose(values, features(data), rtol=1e-5)
    names = written["metadata.tsv"].read_text(encoding="utf-8").splitlines()
    assert names[0] == "key\tclass"
    assert len(names) == 6


def test_places_are_refused_before_any_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_backbones.commands.embed.open_images", None)
    (tmp_path / "features.csv").write_text("mine")
    assert "features.csv' exists" in refusal(capsys, data, tmp_path / "features.npy")
    assert "has no folder" in refusal(capsys, data, tmp_path / "none" / "features.npy")
    assert ".parquet or .npy" in refusal(capsys, data, tmp_path / "features.txt")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine").write_text("mine")
    said = refusal(capsys, data, tmp_path / "x.npy", "--projector", str(tmp_path / "logs"))
    assert "logs' is not empty" in said
    assert (tmp_path / "features.csv").read_text() == "mine"
