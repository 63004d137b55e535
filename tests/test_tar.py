"""Tar shards give what a folder and parquet give; what is wrong with one is said, and nothing half is kept of it."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import drawn_image
from image_sources import write
from runs import killed, outcome, run, stop, tiny
from whole_runs import NoisyConfig

from ssl_backbones.data import (
    Batches,
    Images,
    ImageSourceError,
    UnreadableImageError,
    kept_arrays,
    open_images,
    source,
    tar,
    tar_index,
    validation_of,
)
from ssl_backbones.data.stored import AsFile
from ssl_backbones.data.subset import Subset
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import MultiView
from ssl_backbones.views.presets import MOCO_V2_VIEWS

File = tuple[str, bytes]


def shard(path: Path, files: Sequence[File]) -> Path:
    """A tar of files in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def entry(number: int, label: str | None = None) -> list[File]:
    """An image and its label file."""
    image = (f"{number:06d}.jpg", hostile.jpeg(seed=number))
    return [image] if label is None else [image, (f"{number:06d}.cls", label.encode())]


def shards(folder: Path, counts: Sequence[int], labels: Callable[[int], str | None] = lambda number: None) -> Path:
    """A folder of shards of so many images each, numbered through."""
    for at in range(len(counts)):
        numbers = range(sum(counts[:at]), sum(counts[: at + 1]))
        shard(folder / f"part-{at:03d}.tar", [file for number in numbers for file in entry(number, labels(number))])
    return folder


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, in which the index of any shard is kept, however small or new it is."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(tar_index, "KEPT_FROM", 0)
    monkeypatch.setattr(kept_arrays, "SETTLED", -60_000_000_000)
    return tmp_path / "home" / "shards"


def tensors(images: Images, workers: int = 0, first: int = 0, rank: int = 0, ranks: int = 1) -> list[torch.Tensor]:
    """The views of two epochs, from a step on, as a rank gets them."""
    dataset = Batches(images, MultiView(MOCO_V2_VIEWS, 16), seed=3)
    loader = Loader(dataset, 4, 3, workers=workers, rank=rank, world_size=ranks)
    steps = loader.steps(first, 2 * loader.steps_per_epoch)
    return [view for (batch,) in steps for view in batch.content]


def same_tensors(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_folder_parquet_and_tar_give_the_same_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [hostile.encode(drawn_image(at, 24 + at % 5, 28), "JPEG") for at in range(13)]
    for at, content in enumerate(encoded):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / f"{at:03d}.jpg").write_bytes(content)
    write(tmp_path / "table.parquet", image=pa.array(encoded, pa.binary()))
    for at in range(3):
        files = [(f"{row:03d}.jpg", encoded[row]) for row in range(5 * at, min(13, 5 * at + 5))]
        shard(tmp_path / "tars" / f"{at}.tar", files)
    sources = [open_images(tmp_path / name) for name in ("folder", "table.parquet", "tars")]
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    sources.append(open_images(tmp_path / "table.parquet"))
    kinds = ["ImageFolder", "ParquetImages", "TarImages", "RowGroupImages"]
    assert [type(each).__name__ for each in sources] == kinds
    first, *others = sources
    for other in others:
        assert other.digests is not None
        assert other.digests.tolist() == np.asarray(first.digests).tolist()
        assert same_tensors(tensors(other), tensors(first))


@pytest.fixture
def windowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    """Nine shards in windows of a few each."""
    monkeypatch.setattr(tar, "WINDOW", 6)
    return open_images(shards(tmp_path / "tars", [3, 1, 4, 2, 5, 3, 1, 2, 4]))


@pytest.mark.parametrize("first", [0, 1, 5, 6, 11])
def test_steps_are_the_same_from_any_step_on_and_with_any_workers(windowed: Images, first: int) -> None:
    whole = tensors(windowed)
    assert same_tensors(tensors(windowed, workers=first % 3, first=first), whole[2 * first :])


def test_processes_share_the_steps_of_one(windowed: Images) -> None:
    parts = [tensors(windowed, rank=rank, ranks=2) for rank in range(2)]
    assert same_tensors([torch.cat(pair) for pair in zip(*parts, strict=True)], tensors(windowed))


def test_labels_are_what_label_files_say(tmp_path: Path) -> None:
    named = open_images(shards(tmp_path / "named", [3, 3], lambda at: ["hat", "bag", None][at % 3]))
    assert list(named.classes) == ["bag", "hat"]
    assert named.labels is not None
    assert named.labels.tolist() == [1, 0, -1, 1, 0, -1]
    numbered = open_images(shards(tmp_path / "numbered", [2, 2], lambda at: str(3 * (at % 2)) + "\n"))
    assert list(numbered.classes) == ["0", "1", "2", "3"]
    assert numbered.labels is not None
    assert numbered.labels.tolist() == [0, 3, 0, 3]
    assert open_images(shards(tmp_path / "none", [2])).labels is None
    assert numbered.keys[2] == "part-001.tar/000002.jpg"


def test_shards_are_named_by_ranges_patterns_folders_and_splits(tmp_path: Path) -> None:
    shards(tmp_path, [1, 2, 1, 1])
    assert len(open_images(str(tmp_path / "part-{001..002}.tar"))) == 3
    assert len(open_images(str(tmp_path / "part-00*.tar"))) == 5
    assert len(open_images([tmp_path / "part-000.tar", tmp_path / "part-002.tar"])) == 2
    with pytest.raises(ImageSourceError, match=r"part-004\.tar' does not exist: give \.tar files that do$"):
        open_images(str(tmp_path / "part-{001..999}.tar"))
    with pytest.raises(ImageSourceError, match=r"part-\{003\.\.000\}\.tar' means no file: let its ranges rise"):
        open_images(str(tmp_path / "part-{003..000}.tar"))
    shards(tmp_path / "divided", [2], lambda at: str(at))
    for name in ("train-0.tar", "val-0.tar"):
        (tmp_path / "divided" / name).write_bytes((tmp_path / "divided" / "part-000.tar").read_bytes())
    (tmp_path / "divided" / "part-000.tar").unlink()
    trained_on = open_images(tmp_path / "divided")
    assert [Path(file).name for file in getattr(trained_on, "files", ())] == ["train-0.tar"]
    beside = validation_of(str(tmp_path / "divided"), trained_on)
    assert beside is not None
    assert list(beside.keys) == ["val-0.tar/000000.jpg", "val-0.tar/000001.jpg"]
    (tmp_path / "divided" / "x.jpg").write_bytes(hostile.jpeg())  # images count, as a download may lie beside them
    assert list(open_images(tmp_path / "divided").keys) == ["x.jpg"]


def test_hidden_files_notes_and_other_fields_are_left_alone(tmp_path: Path) -> None:
    files = [("./._1.jpg", b"mac"), ("__index__.json", b"{}"), ("./a/1.JPG", hostile.jpeg()), ("a/1.seg.png", b"mask")]
    images = open_images(shard(tmp_path / "x.tar", [*files, ("a/1.json", b"{}")]))
    assert list(images.keys) == ["x.tar/a/1.JPG"]


@pytest.mark.parametrize("name", ["__x.jpg", "_.jpg", "__.jpg", "__a/b.jpg", "a__/__b_.jpg", "____x.jpg"])
def test_a_name_may_begin_with_underscores(name: str, tmp_path: Path) -> None:
    notes = [("__index__.json", b"{}"), ("__MACOSX/._x.jpg", b"mac"), ("a/__meta__/b.jpg", b"note"), ("____", b"")]
    assert list(open_images(shard(tmp_path / "x.tar", [*notes, (name, hostile.jpeg())])).keys) == [f"x.tar/{name}"]


def second(path: Path) -> int:
    """The place of the second file's header."""
    with tarfile.open(path) as archive:
        archive.next()
        return archive.getmembers()[1].offset


def again(*files: File) -> Callable[[Path], Path]:
    return lambda path: shard(path, [*entry(1), *files])


def linked(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("2.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "1.jpg"
        archive.addfile(member)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut in an image": (
        lambda path: os.truncate(path, 700),
        r"cannot be read as a tar \(unexpected end of data\): write it anew, or leave it out$",
    ),
    "cut between entries": (
        lambda path: os.truncate(path, second(path)),
        r"cannot be read as a tar \(it does not go on after [\d,]+ bytes as a tar does, nor end as one",
    ),
    "empty": (lambda path: path.write_bytes(b""), r"cannot be read as a tar \(empty file\)"),
    "no tar": (lambda path: path.write_bytes(b"<html>" * 999), r"cannot be read as a tar \(invalid header\)"),
    "compressed": (lambda path: path.write_bytes(b"\x1f\x8b" * 999), r"cannot be read as a tar \(invalid header\)"),
    "noise inside": (
        lambda path: path.write_bytes(path.read_bytes()[: second(path)] + b"\7" * 9999),
        r"bytes as a tar does",
    ),
    "zeros behind what was fetched": (
        lambda path: path.write_bytes(path.read_bytes()[: second(path)] + bytes(2**21)),
        r"nor end as one",
    ),
    "another tar behind it": (lambda path: path.write_bytes(2 * path.read_bytes()), r"nor end as one"),
    "nothing": (lambda path: shard(path, []), r"holds no image: write the shard anew, with one image"),
    "no image": (again(("2.cls", b"1")), r"has an entry without an image, '2\.cls': write"),
    "another kind": (again(("2.txt", b"1")), r"has an entry without an image, '2\.txt': write"),
    "one name twice": (lambda path: shard(path, entry(1) + entry(1)), r"has two images of one key, '000001\.jpg' and"),
    "two images": (again(("000001.png", b"")), r"has two images of one key, '000001\.jpg' and '000001\.png'"),
    "two labels": (again(("000001.cls", b"1"), ("000001.cls", b"2")), r"has two entries of one key, '000001\.cls'"),
    "a long label": (again(("000001.cls", b"1" * 2000)), r"has a label of 2,000 bytes, '000001\.cls', more than 1,024"),
    "a label of bytes": (again(("000001.cls", b"\xff")), r"has a label that is no text, '000001\.cls'"),
    "a link": (linked, r"holds '2\.jpg' as a link, or with holes"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_shard_is_said_in_a_sentence_and_not_kept(case: str, tmp_path: Path, remembered: Path) -> None:
    folder = shards(tmp_path / "tars", [2, 2, 2])
    spoil, sentence = BAD[case]
    spoil(folder / "part-001.tar")
    with pytest.raises(ImageSourceError, match=sentence) as refused:
        open_images(folder)
    assert str(refused.value).startswith(f"{str(folder / 'part-001.tar')!r} ")
    assert "\n" not in str(refused.value)
    place = kept_arrays.place_of(str(folder / "part-001.tar"), "shards")
    assert place is not None
    assert place.parent == remembered
    assert not place.exists()
    shards(tmp_path / "tars", [2, 2, 2])
    assert len(open_images(folder)) == 6


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are read for an index from now on."""
    seen: list[str] = []
    indexed = tar_index.indexed

    def watched(path: Path) -> tar_index.TarIndex:
        seen.append(path.name)
        return indexed(path)

    monkeypatch.setattr(tar_index, "indexed", watched)
    return seen


def test_shards_are_read_once_and_again_when_they_change(
    tmp_path: Path, remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "tars", [2, 2, 2], lambda at: str(at % 2))
    first = open_images(folder)
    seen = watched(monkeypatch)
    second = open_images(folder)
    assert seen == []
    assert second.fingerprint == first.fingerprint
    assert second.labels is not None
    assert second.labels.tolist() == [0, 1] * 3
    assert list(second.keys) == list(first.keys)
    shard(folder / "part-001.tar", [*entry(7, "1"), *entry(8, "0")])
    assert open_images(folder).fingerprint != first.fingerprint
    assert seen == ["part-001.tar"]


@pytest.mark.parametrize("harm", ["flip", "cut", "other"])
def test_a_harmed_index_is_made_anew(
    harm: str, tmp_path: Path, remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "tars", [2])
    first = open_images(folder)
    (place,) = remembered.glob("*.safetensors")
    content = place.read_bytes()
    flipped = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    place.write_bytes({"flip": flipped, "cut": content[:-9], "other": b"\x08" * 300}[harm])
    seen = watched(monkeypatch)
    assert open_images(folder).fingerprint == first.fingerprint
    assert seen == ["part-000.tar"]


def test_a_start_that_is_killed_goes_on_with_the_shards_that_are_left(
    tmp_path: Path, remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "tars", [1] * 6)
    indexed = tar_index.indexed

    def killed(path: Path) -> tar_index.TarIndex:
        if path.name == "part-004.tar":
            raise KeyboardInterrupt
        return indexed(path)

    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "indexed", killed)
        with pytest.raises(KeyboardInterrupt):
            open_images(folder)
    seen = watched(monkeypatch)
    assert len(open_images(folder)) == 6
    assert "part-004.tar" in seen
    assert not {"part-000.tar", "part-001.tar"} & set(seen)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_changes_in_use_ends_the_reading_in_a_sentence(workers: int, tmp_path: Path) -> None:
    folder = shards(tmp_path / "tars", [3, 3])
    images = open_images(folder)
    shard(folder / "part-001.tar", [*entry(7), *entry(8), *entry(9)])
    with pytest.raises(
        ImageSourceError, match=r"part-001\.tar' changed while it was in use: start the command"
    ) as said:
        tensors(images, workers)
    assert "\n" not in str(said.value)


def test_processes_may_have_copies_of_the_shards_of_their_own(tmp_path: Path) -> None:
    folder = shards(tmp_path / "tars", [2, 3])
    other = pickle.loads(pickle.dumps(open_images(folder)))
    other.stamps.setflags(write=False)  # as where all processes of a machine share them
    for path in folder.iterdir():
        shutil.copyfile(path, tmp_path / "copy")
        os.replace(tmp_path / "copy", path)
    with pytest.raises(ImageSourceError, match="changed while it was in use"):
        other.raw(0)
    other.at_hand()
    assert same_tensors(tensors(other), tensors(open_images(folder)))
    shard(folder / "part-001.tar", [*entry(7), *entry(8), *entry(9)])
    with pytest.raises(ImageSourceError, match=r"part-001\.tar' changed while it was in use"):
        other.at_hand()
    (folder / "part-000.tar").unlink()
    with pytest.raises(ImageSourceError, match=r"part-000\.tar' cannot be read by this process \(No such file"):
        other.at_hand()


def test_an_image_that_is_broken_or_gone_is_an_unreadable_image(tmp_path: Path) -> None:
    images = open_images(shard(tmp_path / "x.tar", [*entry(1), ("2.jpg", b"<html>"), ("3.jpg", b"")]))
    assert images[0].size == (48, 32)
    for row, reason in ((1, "it is none of JPEG"), (2, "it is empty")):
        with pytest.raises(UnreadableImageError, match=rf"'x\.tar/{row + 1}\.jpg' cannot be read: {reason}"):
            images[row]
    (tmp_path / "x.tar").unlink()
    with pytest.raises(UnreadableImageError, match="its shard is cut short, or the disk fails"):
        images[0]
    assert images.raw(0) is None


def test_it_crosses_to_a_worker_that_was_not_forked(tmp_path: Path) -> None:
    images = open_images(shards(tmp_path, [2, 3]))
    other = pickle.loads(pickle.dumps(images))
    assert list(other.keys) == list(images.keys)
    assert np.array_equal(np.asarray(other[4]), np.asarray(images[4]))
    assert other.raw(3) == hostile.jpeg(seed=3)


def test_some_of_the_images_lie_in_the_shards_of_all(windowed: Images) -> None:
    some = Subset(windowed, np.array([0, 2, 3, 9, 24]))
    assert some.shards is not None
    assert some.shards.ends.tolist() == [0, 2, 3, 3, 4, 4, 4, 4, 4, 5]
    assert Subset(windowed, np.array([2, 0])).shards is None


def test_a_run_that_is_killed_inside_an_epoch_goes_on_to_the_same_end(windowed: Images, tmp_path: Path) -> None:
    recipe = tiny(NoisyConfig, tmp_path / "tars", tmp_path / "whole", epochs=1, checkpoints=Checkpoints(1, 0))
    run(recipe)
    again = dataclasses.replace(recipe, out=str(tmp_path / "run"))
    stop(again, 2, killed)
    run(again)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_no_more_is_asked_for_than_a_file_has() -> None:
    """Whatever a header says: as many bytes would be reserved first."""
    asked: list[int] = []
    file = AsFile(lambda offset, count: [asked.append(count), bytes(count)][1], 10)
    assert len(file.read(2**60)) == 10
    assert file.read(1) == b""
    assert asked == [10]
