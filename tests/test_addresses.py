"""Files at addresses give what they give on a disk; faults there are said in a sentence."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch
from channel_images import drawn_values
from conftest import drawn_image
from image_sources import raw, write
from runs import Part, as_rank, killed, outcome, run, stop, tiny
from shard_server import ShardServer, serving_shards
from test_tar import BAD, entry, same_tensors, shard, shards, tensors
from two_processes import run_two_processes
from whole_runs import NoisyConfig

from ssl_backbones.data import (
    ImageSourceError,
    asking,
    blocks,
    fetching,
    open_images,
    opened_once,
    source,
    tar,
    tar_index,
    validation_of,
)
from ssl_backbones.data.addresses import fetched, found_at
from ssl_backbones.data.blocks import Blocks, Keeping
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.data.fetching import Fetching
from ssl_backbones.data.tar import TarImages
from ssl_backbones.distributed import gather_objects
from ssl_backbones.evaluate.detection.open_annotated import open_annotated
from ssl_backbones.evaluate.segmentation.masks import open_scenes
from ssl_backbones.recipes.settings import Checkpoints

SECRETS = ("Swordfish", "Sesame")
STALLED = r"^'http://.+part-00\d\.tar' cannot be read \(nothing whole came within 0\.[15] seconds, 4 times over\):"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of the test's own, and no long wait before another try."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(blocks, "temporary_folder", lambda: tmp_path / "blocks")
    monkeypatch.setattr(asking, "WAIT", 0.01)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four shards in windows of one or two each."""
    monkeypatch.setattr(tar, "WINDOW", 6)
    return shards(tmp_path / "served", [3, 4, 2, 5], lambda at: str(at % 2))


@pytest.fixture
def server(folder: Path) -> Iterator[ShardServer]:
    with serving_shards(folder) as server:
        yield server


def opened(server: ShardServer, **keeping: object) -> TarImages:
    images = open_images(f"{server.url}/part-{{000..003}}.tar", keeping=Keeping(**keeping))  # type: ignore[arg-type]
    assert isinstance(images, TarImages)
    return images


@pytest.mark.parametrize("ranges", [True, False])
def test_shards_at_an_address_give_what_they_give_on_a_disk(ranges: bool, server: ShardServer, folder: Path) -> None:
    server.ranges = ranges
    here, there = open_images(folder), opened(server)
    assert there.fingerprint == here.fingerprint
    assert list(there.keys) == list(here.keys)
    assert there.labels is not None
    assert there.labels.tolist() == np.asarray(here.labels).tolist()
    assert there.whole_digests().tolist() == np.asarray(here.whole_digests()).tolist()
    whole = tensors(here)
    assert same_tensors(tensors(there), whole)
    for first in (1, 4):
        assert same_tensors(tensors(there, workers=first % 3, first=first), whole[2 * first :])
    parts = [tensors(there, rank=rank, ranks=2) for rank in range(2)]
    assert same_tensors([part for pair in zip(*parts, strict=True) for part in pair][:2], [*whole[0].split(2)])
    assert same_tensors(tensors(pickle.loads(pickle.dumps(there))), whole)


@pytest.mark.parametrize("held", [0, 2**29])
def test_parquet_at_an_address_gives_what_it_gives_on_a_disk(
    held: int, server: ShardServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "HELD_IN_MEMORY", held)
    file = write(folder / "train.parquet", image=raw(9), label=np.arange(9) % 3)
    here, there = open_images(file), open_images(f"{server.url}/train.parquet")
    assert type(there) is type(here)
    assert there.fingerprint == here.fingerprint
    assert list(there.keys) == list(here.keys)
    assert same_tensors(tensors(there, workers=1), tensors(here))


def test_folders_splits_and_patterns_are_listed(server: ShardServer, folder: Path) -> None:
    assert len(open_images(server.url)) == 14
    for name, at in (("train-0.tar", 0), ("train-1.tar", 1), ("val-0.tar", 2), (".hidden.tar", 3)):
        (folder / f"part-{at:03d}.tar").rename(folder / name)
    trained_on = open_images(server.url)
    assert len(trained_on) == 7
    held = validation_of(server.url, trained_on)
    assert held is not None
    assert len(held) == 2
    assert len(open_images([f"{server.url}/val-0.tar", f"{server.url}/train-1.tar"])) == 6
    assert len(open_images(f"file://{folder}/train-1.tar")) == 4


def test_an_index_takes_a_part_of_a_shard_and_is_kept(
    server: ShardServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_index, "KEPT_FROM", 0)
    noise = np.random.default_rng(0)
    images = [hostile.encode(drawn_image(at, 8, 8), "PNG") + noise.bytes(90_000) for at in range(12)]
    big = shard(folder / "big.tar", [(f"{at}.png", content) for at, content in enumerate(images)])
    here, there = open_images(big), open_images(f"{server.url}/big.tar")
    assert there.fingerprint == here.fingerprint
    assert server.sent < 0.4 * big.stat().st_size
    before = server.sent
    assert open_images(f"{server.url}/big.tar?X-Amz-Signature=another").fingerprint == here.fingerprint
    assert server.sent - before == 1
    shard(big, entry(1))
    assert len(open_images(f"{server.url}/big.tar")) == 1


def test_a_file_that_comes_whole_alone_is_asked_for_once(
    server: ShardServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many threads and blocks want it."""
    monkeypatch.setattr(fetching, "BLOCK", 1024)
    server.ranges, server.latency = False, 0.1
    address = dataclasses.replace(found_at(f"{server.url}/part-003.tar"), keeping=Keeping(folder=str(tmp_path / "own")))
    server.asked.clear()
    readers = Fetching([address])
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda at: readers.read(0, 1024 * at, 1024), range(4)))
    assert b"".join(parts) == (folder / "part-003.tar").read_bytes()[:4096]
    assert len(server.asked) == 1


def test_a_claim_ends_with_its_thread_whoever_was_forked_meanwhile(tmp_path: Path) -> None:
    held = Blocks(Keeping(folder=str(tmp_path / "own")))
    until, over = os.pipe()
    with held.claim("a block", wait=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what is tried
        child = os.fork()
        if not child:
            os.read(until, 1)
            os._exit(0)
    try:
        with held.claim("a block", wait=False) as own:
            assert own
    finally:
        os.write(over, b"x")
        os.waitpid(child, 0)


def test_small_images_are_indexed_in_large_ranges(server: ShardServer, folder: Path) -> None:
    many = shard(folder / "many.tar", [file for at in range(200) for file in entry(at, "1")])
    open_images(f"{server.url}/many.tar")
    assert len(server.asked) < 20
    assert server.sent < 1.1 * many.stat().st_size


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
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    at = server.url.replace("//", "//me:Swordfish@")
    cases = {
        f"{at}/part-{{003..004}}.tar": r"part-004\.tar' does not exist: check the address",
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


def test_blocks_that_are_kept_are_not_fetched_again(server: ShardServer, folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    whole = tensors(opened(server, folder=str(kept)))
    before = server.sent
    again = opened(server, folder=str(kept))
    indexed = server.sent
    assert same_tensors(tensors(again, workers=1), whole)
    assert server.sent == indexed
    assert before < 3 * sum(file.stat().st_size for file in folder.iterdir())
    names = sorted(kept.glob("*.block"))
    assert len(names) == 4
    names[0].write_bytes(names[0].read_bytes()[:-9])
    content = bytearray(names[1].read_bytes())
    content[700] ^= 1
    names[1].write_bytes(content)
    assert same_tensors(tensors(opened(server, folder=str(kept))), whole)


def test_a_temporary_folder_is_shared_and_cleared_by_the_last(server: ShardServer, tmp_path: Path) -> None:
    first, second = opened(server), opened(server)
    tensors(first)
    sent = server.sent
    tensors(second)
    assert server.sent == sent
    del first
    assert list((tmp_path / "blocks").glob("*.block"))
    del second
    assert not list((tmp_path / "blocks").glob("*.block"))


def test_blocks_make_room_for_others(tmp_path: Path) -> None:
    store = Blocks(Keeping(str(tmp_path / "kept"), 1e-6 * 20), own={"a", "b"})
    for at, name in enumerate(["y-0", "z-0", "a-0", "a-1", "b-0", "b-1"]):
        store.keep(name, bytes(3000))
        os.utime(store.path(name), (at, at))
    store.wanted = {"b"}
    gone = []
    for name in ("b-2", "b-3", "b-4", "b-5"):
        before = {path.name for path in store.folder.glob("*.block")}
        store.keep(name, bytes(3000))
        gone += sorted(before - {path.name for path in store.folder.glob("*.block")})
    assert gone == ["y-0.block", "z-0.block", "a-1.block", "a-0.block"]


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


def test_systems_without_coroutines_are_read_as_well(folder: Path) -> None:
    """As that of `hf://`, which is asked in threads."""
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(f"{folder}/", "/shards/", recursive=True)
    try:
        there, here = open_images("memory://shards/part-{000..003}.tar"), open_images(folder)
        assert there.fingerprint == here.fingerprint
        assert same_tensors(tensors(there), tensors(here))
        assert len(open_images("memory://shards")) == len(here)
        with pytest.raises(
            ImageSourceError, match=r"'memory://shards/part-004\.tar' does not exist: check the address"
        ):
            open_images("memory://shards/part-{003..004}.tar")
    finally:
        store.rm("/shards", recursive=True)


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


@pytest.mark.parametrize("form", ["tar", pytest.param("parquet", marks=pytest.mark.slow)])
def test_two_processes_train_from_an_address_as_from_a_disk(
    form: str, server: ShardServer, folder: Path, tmp_path: Path
) -> None:
    here: Path = folder
    there = f"{server.url}/part-{{000..003}}.tar"
    if form == "parquet":
        here = write(folder / "train.parquet", image=raw(14), label=np.arange(14) % 2)
        there = f"{server.url}/train.parquet"
    parts = {
        name: Part(dataclasses.replace(tiny(NoisyConfig, here, tmp_path / name, batch_size=4), data=str(data)))
        for name, data in (("disk", here), ("address", there))
    }
    for ended in run_two_processes(as_rank, parts, torch.float32):
        disk, address = ended["disk"], ended["address"]
        assert disk.keys() == address.keys()
        assert all(torch.equal(disk[name], address[name]) for name in disk)


def opened_by(rank: int, place: str, urls: dict[int, str]) -> list[tuple[str, tuple[int, int]]]:
    """The fingerprint, and the size of an image, of parquet files as this process has them, by bytes held in memory."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "temporary_folder", lambda: Path(place))
        for held, url in urls.items():
            patch.setattr(source, "HELD_IN_MEMORY", held)
            images = opened_once(lambda url=url: open_images(url), verify=True)  # type: ignore[misc]
            found.append((images.fingerprint, images[3].size))
            gather_objects(None)
    return found


def test_what_the_first_process_fetched_for_digests_is_not_fetched_again(
    server: ShardServer, folder: Path, tmp_path: Path
) -> None:
    """In place, by any process; in memory, by the first, as the other has none of it."""
    noise = np.random.default_rng(0)
    rows = [hostile.jpeg(seed=row) + noise.bytes(90_000) for row in range(9)]
    files = {held: write(folder / f"{held}.parquet", image=pa.array(rows, pa.binary())) for held in (0, 2**29)}
    urls = {held: f"{server.url}/{file.name}" for held, file in files.items()}
    one, other = run_two_processes(opened_by, str(tmp_path / "blocks"), urls)
    assert one == other
    for held, file in files.items():
        sent = sum(count for path, count in server.asked if path == f"/{file.name}")
        assert sent < (2.5 if held else 1.5) * file.stat().st_size


@pytest.mark.parametrize("channels", [6, 12])
def test_channels_come_out_of_shards_as_they_went_in(channels: int, server: ShardServer, folder: Path) -> None:
    values = [drawn_values(at, 9, 11, channels) for at in range(4)]
    files = []
    for at, each in enumerate(values):
        file = io.BytesIO()
        if at % 2:
            np.save(file, each)
        else:
            tifffile.imwrite(file, each, photometric="minisblack", planarconfig="contig")
        files.append((f"{at}.{'npy' if at % 2 else 'tif'}", file.getvalue()))
    packed = shard(folder / "channels.tar", files)
    for spec in (str(packed), f"{server.url}/channels.tar"):
        images = open_images(spec, DecodePolicy(channels=channels))
        assert all(np.array_equal(images[at].values, each) for at, each in enumerate(values))
