"""`--verify` holds what is kept of images against every one of them, and tells each kind of change in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import evaluated
from image_sources import raw, write
from runs import image_folder, run, tiny
from test_tar import entry, shard, shards

from ssl_backbones.data import (
    digest_index,
    kept_arrays,
    open_images,
    opened_once,
    parquet_in_place,
    source,
    tar,
    tar_index,
    threads,
)
from ssl_backbones.methods import BYOLConfig

COUNT = 12


@pytest.fixture(autouse=True)
def _remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder in which an index of anything is kept, however small or new it is, and no sample is looked at."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(digest_index, "KEPT_FROM", 1)
    monkeypatch.setattr(tar_index, "KEPT_FROM", 0)
    monkeypatch.setattr(kept_arrays, "SETTLED", -60_000_000_000)
    monkeypatch.setattr(digest_index, "COMPARED", 0)
    monkeypatch.setattr(parquet_in_place, "COMPARED", 0)
    monkeypatch.setattr(tar, "COMPARED", 0)


def folder(root: Path) -> Path:
    return image_folder(root / "images", COUNT, ())


def tars(root: Path) -> Path:
    return shards(root / "tars", [5, 7])


def parquet(root: Path) -> Path:
    return write(root / "table.parquet", image=raw(COUNT))


FORMS: dict[str, Callable[[Path], Path]] = {"folder": folder, "tar": tars, "parquet": parquet}


def told(data: Path, capsys: pytest.CaptureFixture[str], verify: bool = True) -> list[str]:
    """The sentences on images that are opened, and verified."""
    capsys.readouterr()
    images = opened_once(lambda: open_images(data), verify)
    assert len(images.fingerprint) == 64
    return [line.removeprefix("--verify: ") for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("held", [0, 2**29])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_as_it_was_is_said(
    form: str, held: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "HELD_IN_MEMORY", held)
    data = FORMS[form](tmp_path)
    first = told(data, capsys)
    assert all("not known from an earlier start" in sentence for sentence in first)
    assert len(first) == (2 if form == "tar" else 1)
    assert told(data, capsys) == [f"All {COUNT} images are as their index says."]
    assert told(data, capsys, verify=False) == []


@pytest.mark.parametrize("form", FORMS)
def test_content_that_changed_behind_the_same_times_is_found(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an index says that is wrong in one place, which no sample hits."""
    data = FORMS[form](tmp_path)
    told(data, capsys)
    right = open_images(data).fingerprint
    place = max((tmp_path / "home").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    room = tar_index if form == "tar" else digest_index
    index = tar_index.kept(place) if form == "tar" else digest_index.read(place)
    assert index is not None
    index.digests[3] += 1
    room.keep(place, index)  # type: ignore[arg-type]
    assert open_images(data).fingerprint != right, "it is believed"
    (sentence,) = told(data, capsys)
    assert "changed in content although size and times did not" in sentence
    assert ("'03.jpg'" if form == "folder" else "part-001.tar" if form == "tar" else "table.parquet") in sentence
    assert open_images(data).fingerprint == right
    assert told(data, capsys) == [f"All {COUNT} images are as their index says."]


def test_each_kind_of_change_in_a_folder_has_its_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path)
    told(data, capsys)
    for at in range(5):
        (data / f"new-{at}.jpg").write_bytes((data / "00.jpg").read_bytes())
    (data / "01.jpg").unlink()
    (data / "02.jpg").write_bytes((data / "00.jpg").read_bytes())
    came, touched, went = told(data, capsys)
    assert came.startswith("'new-0.jpg', 'new-1.jpg', 'new-2.jpg' and 2 more added since the index was made")
    assert went == "'01.jpg' removed since the index was made."
    assert touched.startswith("'02.jpg' changed in size, times or inode")
    assert told(data, capsys) == [f"All {COUNT + 4} images are as their index says."]
    (data / "03.jpg").write_bytes((data / "00.jpg").read_bytes())
    assert [sentence.split()[:2] for sentence in told(data, capsys)] == [["'03.jpg'", "changed"]]


@pytest.mark.parametrize("form", FORMS)
def test_what_was_too_new_for_its_index_is_not_said_to_have_changed(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FORMS[form](tmp_path)
    with monkeypatch.context() as new:
        new.setattr(kept_arrays, "SETTLED", 60_000_000_000)
        told(data, capsys)
    found = told(data, capsys)
    assert len(found) == (2 if form == "tar" else 1)
    assert all("changed just before the index was made" in sentence for sentence in found)
    assert told(data, capsys) == [f"All {COUNT} images are as their index says."]


def test_what_could_never_be_read_has_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, target = folder(tmp_path), tmp_path / "target"
    (data / "00.jpg").rename(target)
    (data / "00.jpg").symlink_to(target)
    (data / "lost.jpg").symlink_to(tmp_path / "nowhere")
    told(data, capsys)
    assert told(data, capsys) == [f"All {COUNT + 1} images are as their index says."]
    target.unlink()
    assert told(data, capsys) == ["'00.jpg' cannot be read any more."]
    assert told(data, capsys) == [f"All {COUNT + 1} images are as their index says."]


def test_an_index_of_other_rows_is_not_that_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = parquet(tmp_path)
    told(data, capsys)
    (place,) = (tmp_path / "home").rglob("*.safetensors")
    index = digest_index.read(place)
    digest_index.keep(place, replace(index, digests=index.digests[1:]))
    (sentence,) = told(data, capsys)
    assert "not known from an earlier start" in sentence


@pytest.mark.parametrize("form", FORMS)
def test_whole_digests_are_verified_where_they_are_kept(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, home = FORMS[form](tmp_path), tmp_path / "home"
    told(data, capsys)
    told(data, capsys)
    before = {*home.rglob("*.safetensors")}
    right = open_images(data).content_digest
    (place,) = {*home.rglob("*.safetensors")} - before
    assert told(data, capsys) == [f"All {COUNT} images are as their index says."]
    index = digest_index.read(place)
    index.digests[3] += 1
    digest_index.keep(place, index)
    assert open_images(data).content_digest != right, "it is believed"
    (sentence,) = told(data, capsys)
    assert "changed in content although size and times did not" in sentence
    assert open_images(data).content_digest == right


@pytest.mark.parametrize("form", FORMS)
def test_progress_is_told(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FORMS[form](tmp_path)
    told(data, capsys)
    monkeypatch.setattr(threads, "PATIENCE", 0)
    assert any("held against" in line for line in told(data, capsys))


def test_packed_files_that_changed_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (tars(tmp_path), parquet(tmp_path)):
        told(data, capsys)
    shard(tmp_path / "tars" / "part-001.tar", entry(70))
    write(tmp_path / "table.parquet", image=raw(COUNT + 1)[1:])
    for data, name in ((tmp_path / "tars", "part-001.tar"), (tmp_path / "table.parquet", "table.parquet")):
        (sentence,) = told(data, capsys)
        assert name in sentence
        assert "changed in size, times or inode" in sentence


def test_runs_and_evaluations_verify_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = image_folder(tmp_path / "images")
    recipe = tiny(BYOLConfig, data, tmp_path / "run", max_steps=1)
    run(recipe)
    assert "--verify" not in capsys.readouterr().out
    run(replace(recipe, verify=True))
    assert "--verify: All 26 images are as their index says." in capsys.readouterr().out
    evaluated("knn", data, tmp_path / "knn", "--verify")
    assert "--verify: All 26 images" in capsys.readouterr().out
