"""Faults of files at addresses, and of the way there, end in a sentence, and nothing of them is kept."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import time
from pathlib import Path

import hostile
import pytest
from addressed import alone, folder, opened, server
from fsspec.registry import _registry
from image_sources import raw, write
from runs import killed, outcome, run, stop, tiny
from shard_server import ShardServer
from test_tar import BAD, entry, same_tensors, shard, tensors
from whole_runs import NoisyConfig

from ssl_backbones.data import (
    ImageSourceError,
    asking,
    open_images,
    source,
    tar_index,
)
from ssl_backbones.data.addresses import fetched, found_at
from ssl_backbones.data.blocks import Keeping
from ssl_backbones.evaluate.detection.open_annotated import open_annotated
from ssl_backbones.evaluate.segmentation.masks import open_scenes
from ssl_backbones.recipes.settings import Checkpoints

__all__ = ["alone", "folder", "server"]
SECRETS = ("Swordfish", "Sesame")
STALLED = r"^'http://.+part-00\d\.tar' cannot be read \(nothing whole came within 0\.[15] seconds, 4 times over\):"


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_are_tried_again(ranges: bool, server: ShardServer, folder: Path) -> None:
    server.ranges, server.cut_every = ranges, 3
    assert same_tensors(tensors(opened(server)), tensors(open_images(folder)))


def test_an_address_that_stays_broken_ends_in_a_sentence(server: ShardServer) -> None:
    images = opened(server)
    server.cut_every = 1
    with pytest.raises(
        ImageSourceError, match=r"tar' cannot be read \(.+, 4 times over\): start the same command"
    ) as said:
        tensors(images, workers=1)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "when", ["at once", *(pytest.param(when, marks=pytest.mark.slow) for when in ("before", "in use"))]
)
def test_an_address_that_stalls_ends_in_a_sentence_after_a_stated_time(
    when: str, server: ShardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = opened(server) if when == "in use" else None
    monkeypatch.setattr(asking, "PATIENCE", 0.5)
    server.stalled = "part-002"
    if when == "at once":
        address = found_at(f"{server.url}/part-001.tar")
        server.stalled = "part-001"
        monkeypatch.setattr(asking, "PATIENCE", 0.1)
        begun = time.monotonic()
        with pytest.raises(ImageSourceError, match=STALLED):
            fetched(address, 0, 10)
    else:
        begun = time.monotonic()
        with pytest.raises(ImageSourceError, match=STALLED):
            tensors(images) if images else opened(server)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("case", BAD)
def test_a_bad_shard_is_said_in_a_sentence_and_not_kept(
    case: str, server: ShardServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_index, "KEPT_FROM", 0)
    spoil, sentence = BAD[case]
    spoil(folder / "part-001.tar")
    with pytest.raises(ImageSourceError, match=sentence) as refused:
        open_images(f"{server.url}/part-001.tar")
    assert str(refused.value).startswith(f"'{server.url}/part-001.tar' ")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "home").rglob("*.safetensors"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_changes_in_use_ends_the_reading_in_a_sentence(
    workers: int, server: ShardServer, folder: Path
) -> None:
    images = opened(server)
    shard(folder / "part-001.tar", [*entry(70), *entry(80), *entry(90), *entry(100)])
    with pytest.raises(ImageSourceError, match=r"part-001\.tar' changed while it was in use: start the command again"):
        tensors(images, workers)


def test_what_cannot_be_opened_is_said_in_a_sentence(
    server: ShardServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "1.jpg").write_bytes(hostile.jpeg())
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    at = server.url.replace("//", "//me:Swordfish@")
    cases = {
        f"{at}/part-{{003..004}}.tar": r"part-004\.tar' does not exist: check the address",
        f"{at}/part-{{003..000}}.tar": r"003\.\.000\}\.tar' means no file: let its ranges rise",
        f"{at}/part-{{000..9999999}}.tar": r"means more than 1,000,000 files: name fewer",
        f"{at}/images": r"no \.tar or \.parquet file in .+: single images are not read from an address; pack them",
        f"{at}/nothing": r"no \.tar or \.parquet file in",
        f"{at}/{{1..2}}.jpg": r"1\.jpg' is no \.parquet or \.tar file by its name",
        f"{at}/x*.tar": r"no \.tar or \.parquet file is found at 'http://127.0.0.1:\d+/x\*\.tar'",
        "s3://me:Swordfish@bucket/a.tar": r"^'s3://bucket/a\.tar' cannot be opened, .+: pip install 'ssl-ba.+\[s3\]'$",
        "nope://me:Swordfish@bucket/a.tar": r"^'nope://bucket/a\.tar' cannot be opened \(Protocol not known: nope\)",
    }
    for spec, sentence in cases.items():
        with pytest.raises(ImageSourceError, match=sentence) as said:
            open_images(spec)
        assert "Swordfish" not in str(said.value)
        assert "\n" not in str(said.value)
    server.denied = "/"
    for spec in (at, f"{at}/part-000.tar", f"{at}/*.tar"):
        with pytest.raises(
            ImageSourceError, match=r"may not be read \(the server answered 403\): give the right to list"
        ):
            open_images(spec)
    with pytest.raises(ImageSourceError, match=r"is no address, and others of the list are"):
        open_images([f"{at}/part-000.tar", "part-001.tar"])


@pytest.mark.slow
def test_a_run_that_is_killed_inside_an_epoch_goes_on_to_the_same_end_as_on_a_disk(
    server: ShardServer, folder: Path, tmp_path: Path
) -> None:
    recipe = tiny(NoisyConfig, folder, tmp_path / "whole", epochs=1, batch_size=4, checkpoints=Checkpoints(1, 0))
    run(recipe)
    again = dataclasses.replace(recipe, out=str(tmp_path / "run"), data=f"{server.url}/part-{{000..003}}.tar")
    stop(again, 2, killed)
    run(again)
    found, expected = outcome(tmp_path / "run"), outcome(tmp_path / "whole")
    for each in (found, expected):
        assert each["results"]["data"].pop("source")
    assert found == expected


def test_no_file_that_a_run_writes_and_nothing_that_it_says_opens_an_address(
    server: ShardServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_index, "KEPT_FROM", 0)
    at = server.url.replace("//", f"//me:{SECRETS[0]}@")
    data = f"{at}/part-{{000..003}}.tar?X-Amz-Signature={SECRETS[1]}"
    recipe = tiny(NoisyConfig, Path(), tmp_path / "out" / "run", epochs=1, checkpoints=Checkpoints(1, 0))
    caches = {"cache": str(tmp_path / "out" / "cache"), "blocks": Keeping(str(tmp_path / "out" / "blocks"))}
    run(dataclasses.replace(recipe, data=data, **caches))
    said = capfd.readouterr()
    written = [path for place in ("out", "home", "blocks") for path in (tmp_path / place).rglob("*")]
    assert {"recipe.json", "results.json", "log.jsonl", "INDEX.json"} <= {path.name for path in written}
    assert any(path.suffix == ".block" for path in written)
    for secret in SECRETS:
        assert secret not in said.out + said.err
        for path in written:
            assert secret not in str(path)
            assert path.is_dir() or secret.encode() not in path.read_bytes()


@pytest.mark.parametrize("held", [0, 2**29])
def test_parquet_that_changes_in_use_ends_the_reading_in_a_sentence(
    held: int, server: ShardServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it read in place, as far as no block of it is here, or once more by a process that was not forked."""
    monkeypatch.setattr(source, "HELD_IN_MEMORY", held)
    file = write(folder / "train.parquet", image=raw(9))
    images = open_images(f"{server.url}/train.parquet")
    assert len(images.fingerprint) == 64
    again = pickle.loads(pickle.dumps(images))
    assert len(tensors(again)) == len(tensors(images))
    again = pickle.loads(pickle.dumps(images))
    write(file, image=raw(12)[3:])
    for block in (tmp_path / "blocks").glob("*.block"):
        block.unlink()
    with pytest.raises(ImageSourceError, match=r"train\.parquet' changed while it was in use: start the command again"):
        tensors(again)


@pytest.mark.parametrize("kind", ["detect", "segment"])
def test_annotated_images_at_an_address_are_refused_with_the_way_out(kind: str) -> None:
    at = "s3://me:Swordfish@bucket/train.parquet"
    way_out = r"^'s3://bucket/train\.parquet' is an address, and images with their .+ are read from a disk: copy them"
    with pytest.raises(ImageSourceError, match=way_out):
        open_annotated(at) if kind == "detect" else open_scenes(at, "mask", ["train"])
