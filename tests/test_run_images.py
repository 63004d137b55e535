"""Runs on images as people have them: without labels, in parquet files, of every kind, and broken."""

from __future__ import annotations

import json
from pathlib import Path

import hostile
import pytest
import runs
from runs import image_folder, outcome, run, run_whole, stop, tiny
from whole_runs import data

from ssl_backbones.data import TooManyUnreadableError
from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.methods import BYOLConfig, LewelMConfig
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.log import read_log

__all__ = ["data"]


def test_unlabelled_images_are_enough(tmp_path: Path) -> None:
    recipe = tiny(LewelMConfig, image_folder(tmp_path / "data", classes=()), tmp_path / "run")
    results = json.loads(run_whole(recipe).results.read_text())
    assert "knn" not in results["numbers"]
    assert results["numbers"]["rank"]["value"] > 1
    assert "without labels" in results["verdict"][1]
    assert "Nearest neighbours" in (tmp_path / "run" / "gallery.html").read_text()
    assert all("knn" not in line for line in read_log(tmp_path / "run" / "log.jsonl"))


def test_labels_can_be_left_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = outcome(run(tiny(BYOLConfig, data, tmp_path / "labelled", max_steps=1)).path)["results"]
    assert "2 classes, from the folders bag, hat: --labels none to leave them out." in capsys.readouterr().out
    cache = str(tmp_path / "cache")
    for folder, fields in (("plain", {}), ("cached", {"cache": cache})):
        recipe = tiny(BYOLConfig, data, tmp_path / folder, max_steps=1, labels="none", **fields)
        results = outcome(run(recipe).path)["results"]
        assert "--labels" not in capsys.readouterr().out
        assert "knn" in labelled["numbers"]
        assert "knn" not in results["numbers"]
        assert results["data"]["fingerprint"] == labelled["data"]["fingerprint"]


def test_validation_images_are_the_queries(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = image_folder(tmp_path / "held_out", 10)
    results = outcome(run(tiny(BYOLConfig, data, tmp_path / "run", validation=str(held_out))).path)["results"]
    assert (results["queries"], results["bank"]) == ({"images": 10}, {"images": runs.IMAGES})
    assert results["kind"] == "held-out queries"
    assert results["validation"]["images"] == 10
    assert "all 10 validation images are training images" in capsys.readouterr().out


def test_a_parquet_file_will_do(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": {"bytes": hostile.jpeg(seed=n), "path": None}, "label": n % 3 - 1} for n in range(18)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    results = outcome(run(tiny(BYOLConfig, tmp_path / "train.parquet", tmp_path / "run")).path)["results"]
    assert results["queries"]["images"] == 12  # a label of -1 is none


def test_images_of_every_kind_are_seen(data: Path, tmp_path: Path) -> None:
    mixed = image_folder(tmp_path / "data", 20)
    odd = {"grey.png": hostile.encode(hostile.ramp()), "cmyk.jpg": hostile.cmyk("JPEG")}
    odd |= {"deep.png": hostile.sixteen_bits("PNG"), "palette.png": hostile.palette(), "turned.jpg": hostile.turned(6)}
    for name, file in odd.items():
        (mixed / "bag" / name).write_bytes(file)
    results = outcome(run(tiny(BYOLConfig, mixed, tmp_path / "run")).path)["results"]
    assert (results["unreadable"], results["data"]["images"]) == ([], 25)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_left_out(workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = image_folder(tmp_path / "data")
    (broken / "bag" / "torn.jpg").write_bytes(hostile.jpeg()[:300])
    path = run(tiny(BYOLConfig, broken, tmp_path / "run", workers=workers)).path
    assert outcome(path)["results"]["unreadable"] == ["bag/torn.jpg"]
    assert [record for record in caplog.records if "torn.jpg" in record.getMessage()]
    assert "torn.jpg" in json.dumps(checkpoint.load_latest(path / "checkpoints").scalars["unreadable"])


def test_a_broken_image_is_remembered_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = image_folder(tmp_path / "data")
    (broken / "bag" / "torn.jpg").write_bytes(hostile.jpeg()[:300])
    recipe = tiny(BYOLConfig, broken, tmp_path / "run")
    stop(recipe, 4)
    monkeypatch.setattr(Unreadable, "add", lambda *_: None)
    assert outcome(run(recipe).path)["results"]["unreadable"] == ["bag/torn.jpg"]


def test_too_many_broken_images_end_the_run(tmp_path: Path) -> None:
    broken = image_folder(tmp_path / "data")
    for number in range(3):
        (broken / "hat" / f"torn{number}.jpg").write_bytes(b"")
    with pytest.raises(TooManyUnreadableError, match=r"3 of 29 images cannot be read(.|\n)*torn0(.|\n)*torn2"):
        run(tiny(BYOLConfig, broken, tmp_path / "run"))
    run(tiny(BYOLConfig, broken, tmp_path / "run", unreadable_share=0.2))
