"""From a folder of images to a file of pairs, and from the file to training steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import drawn_image
from scripts import script
from small_methods import small_method

import ssl_backbones
from ssl_backbones.data import Batches, ImageSourceError, open_images
from ssl_backbones.evaluate.model import PooledLayer
from ssl_backbones.methods import FlagsConfig
from ssl_backbones.mining import Pairs, PairsError
from ssl_backbones.train.embed import embed
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import CenterCrop

CLASSES = {"bag": 12, "hat": 9, "shoe": 8}


def image_folder(path: Path, classes: dict[str, int] = CLASSES) -> Path:
    for number, (name, count) in enumerate(classes.items()):
        (path / name).mkdir(parents=True)
        for index in range(count):
            drawn_image(100 * number + index, 24 + index % 3, 26).save(path / name / f"{index:02}.png")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("mine") / "photos")


@pytest.fixture(scope="module")
def mined(data: Path) -> Path:
    out = data.parent / "pairs.parquet"
    mine(data, out)
    return out


def mine(data: Path, out: Path, *more: str, model: str = "resnet8") -> None:
    words = [model, "--data", str(data), "--out", str(out), "--random", "--workers", "0", "--batch_size", "10"]
    script("mine_pairs", [*words, *more])


def refusal(capsys: pytest.CaptureFixture[str], *words: Any, **more: Any) -> str:
    """The one sentence that ends a call."""
    with pytest.raises(SystemExit) as end:
        mine(*words, **more)
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("mine_pairs.py: ")
    assert "\n" not in said
    return said


def test_partners_are_the_nearest_and_the_middle_of_their_class(data: Path, mined: Path) -> None:
    images = open_images(str(data))
    rows = Pairs.read(mined, images).rows
    torch.manual_seed(0)
    layer = PooledLayer(ssl_backbones.create_model("resnet8", num_classes=0), "layer3")
    features, _ = embed(layer, Batches(images, CenterCrop(32, 1.0), 0), np.arange(len(images)), torch.device("cpu"))
    unit = torch.nn.functional.normalize(features, dim=1).double().numpy()
    assert images.labels is not None
    for row in range(len(images)):
        others = [i for i in np.flatnonzero(images.labels == images.labels[row]) if i != row]
        ranked = sorted(others, key=lambda i: -float(unit[row] @ unit[i]))
        middle = len(others) // 2
        assert list(rows[row]) == [ranked[0], ranked[1], ranked[middle - 1], ranked[middle]]


def test_the_file_says_what_it_holds(data: Path, mined: Path) -> None:
    table = pq.read_table(mined)
    assert table.column_names == ["key", "global_1", "global_2", "local_1", "local_2"]
    assert table["key"][0].as_py() == "bag/00.png"
    assert table["local_2"][28].as_py().startswith("shoe/")
    about = json.loads(table.schema.metadata[b"ssl_backbones.pairs"])
    assert about["fingerprint"] == open_images(str(data)).fingerprint
    assert (about["model"], about["layer"], about["width"], about["size"]) == ("resnet8", "layer3", 64, 32)
    assert (about["sampled_classes"], about["tiny_classes"]) == ({}, [])
    assert set(about["versions"]) == {"ssl_backbones", "torch", "timm"}
    assert [path.name for path in mined.parent.iterdir() if path.name.startswith(".tmp")] == []


def test_the_rows_may_stand_in_any_order(data: Path, mined: Path, tmp_path: Path) -> None:
    images = open_images(str(data))
    table = pq.read_table(mined)
    order = np.random.default_rng(0).permutation(table.num_rows)
    pq.write_table(table.take(order), tmp_path / "shuffled.parquet")
    rows = Pairs.read(mined, images).rows
    np.testing.assert_array_equal(Pairs.read(tmp_path / "shuffled.parquet", images).rows, rows)
    pq.write_table(table.slice(1), tmp_path / "short.parquet")
    with pytest.raises(PairsError, match="do not name every image"):
        Pairs.read(tmp_path / "short.parquet", images)


def test_sampled_and_tiny_classes_are_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = image_folder(tmp_path / "photos", {"one": 1, "few": 3, "many": 12})
    mine(folder, tmp_path / "pairs.parquet", "--exact_up_to", "5", "--sample", "9", "--layer", "layer2")
    assert "2 of 3 classes have fewer than 7 images" in caplog.text
    pairs = Pairs.read(tmp_path / "pairs.parquet", open_images(str(folder)))
    assert pairs.about["sampled_classes"] == {"many": pytest.approx(0.5 / 3)}
    assert pairs.about["tiny_classes"] == ["few", "one"]
    assert pairs.about["width"] == 32
    assert list(pairs.rows[-1]) == [15] * 4
    assert "sampled in 1 classes (rank +- 16.7%)" in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 3])
def test_an_image_that_cannot_be_read_is_nobodys_partner(number: int, tmp_path: Path) -> None:
    """It would have the features of another, and be that one's nearest."""
    folder = image_folder(tmp_path / "photos", {"one": 12, "two": 12})
    torn = sorted((folder / "one").iterdir())[number]
    torn.write_bytes(b"no image")
    picture = tmp_path / "pairs.png"
    mine(folder, tmp_path / "pairs.parquet", "--unreadable_share", "0.1", "--picture", str(picture))
    assert picture.is_file()
    images = open_images(str(folder))
    rows = Pairs.read(tmp_path / "pairs.parquet", images).rows
    (row,) = (at for at, key in enumerate(images.keys) if str(key).endswith(torn.name) and "one" in str(key))
    assert list(rows[row]) == [row] * 4
    assert row not in np.delete(rows, row, axis=0)


def test_a_picture_that_cannot_be_written_leaves_the_command_to_be_started_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no more space")

    with monkeypatch.context() as patched:
        patched.setattr("ssl_backbones.commands.mine_pairs.save_image", fail)
        with pytest.raises((SystemExit, OSError)):
            mine(data, tmp_path / "pairs.parquet", "--picture", str(tmp_path / "pairs.png"))
    mine(data, tmp_path / "pairs.parquet", "--picture", str(tmp_path / "pairs.png"))
    assert len(Pairs.read(tmp_path / "pairs.parquet", open_images(str(data))).rows) == sum(CLASSES.values())


def test_two_training_steps_from_the_file(data: Path, mined: Path) -> None:
    method = small_method(FlagsConfig, pairs=str(mined))
    dataset = method.dataset(open_images(str(data)), 16, seed=1)
    optimizer = torch.optim.SGD([value for value in method.parameters() if value.requires_grad], lr=0.05)
    before = method.queues["local"].keys.clone()
    for number, (batch,) in enumerate(Loader(dataset, batch_size=8, seed=1).steps(0, 2)):
        loss = method(dataset.on_device(batch.content))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.on_step_end(number / 2)
        assert torch.isfinite(loss)
    assert int(method.queues["local"].pointer) == 2 * 16 % len(method.queues["local"])
    assert not torch.equal(method.queues["local"].keys, before)


class TestRefusals:
    def test_pairs_of_other_images(self, mined: Path, tmp_path: Path) -> None:
        other = image_folder(tmp_path / "other", {"bag": 4, "hat": 4})
        method = small_method(FlagsConfig, pairs=str(mined))
        with pytest.raises(ImageSourceError, match=r"mined from other images \(29 with fingerprint .* not 8 with"):
            method.dataset(open_images(str(other)), 16, seed=1)

    def test_pairs_of_images_that_have_changed(self, data: Path, mined: Path, tmp_path: Path) -> None:
        shutil.copytree(data, tmp_path / "photos")
        Pairs.read(mined, open_images(str(tmp_path / "photos")))  # a copy is the same data
        drawn_image(7, 30, 30).save(tmp_path / "photos" / "hat" / "03.png")
        with pytest.raises(PairsError, match="other images"):
            Pairs.read(mined, open_images(str(tmp_path / "photos")))

    def test_no_pairs_and_no_labels(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(ImageSourceError, match=r"none are named: mine them with ssl-backbones mine-pairs"):
            small_method(FlagsConfig, pairs="").dataset(open_images(str(data)), 16, seed=1)
        images = open_images(str(data / "bag"))
        with pytest.raises(ImageSourceError, match=r"^FLAGS needs labels, and these 12 images have none"):
            small_method(FlagsConfig).dataset(images, 16, seed=1)

    def test_files_that_hold_no_pairs(self, data: Path, tmp_path: Path) -> None:
        images = open_images(str(data))
        with pytest.raises(PairsError, match="do not exist"):
            Pairs.read(tmp_path / "none.parquet", images)
        (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(PairsError, match="not a file of pairs, or is damaged"):
            Pairs.read(tmp_path / "torn.parquet", images)

    def test_mining_without_labels(self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "mining pairs needs labels" in refusal(capsys, data / "bag", tmp_path / "pairs.parquet")
        assert not (tmp_path / "pairs.parquet").exists()

    def test_a_file_that_exists(self, data: Path, mined: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before, table = mined.read_bytes(), pq.read_table(mined)
        assert "exists: name another file with --out, or replace it with --overwrite" in refusal(capsys, data, mined)
        assert mined.read_bytes() == before
        mine(data, mined, "--overwrite")
        assert pq.read_table(mined).equals(table)

    def test_other_mistakes(self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "pairs.parquet"
        assert "no layer 'layer9': choose one of act1, layer1, layer2, layer3" in refusal(
            capsys, data, out, "--layer", "layer9"
        )
        assert "near it are" in refusal(capsys, data, out, model="resnet8_moc_v2")
        assert "has no folder" in refusal(capsys, data, tmp_path / "no" / "pairs.parquet")
        assert "batch_size is 0, but must be at least 1" in refusal(capsys, data, out, "--batch_size", "0")
        assert "sample is 6, but must be at least 7" in refusal(capsys, data, out, "--sample", "6")
        with pytest.raises(SystemExit, match="2"):
            script("mine_pairs", ["resnet20_moco_v2", "--data", str(data), "--out", str(out)])
        assert "no weights are published for 'resnet20_moco_v2" in capsys.readouterr().err
