"""Files at addresses give what they give on a disk."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch
from addressed import alone, folder, opened, server
from channel_images import drawn_values
from conftest import drawn_image
from image_sources import raw, write
from runs import Part, as_rank, tiny
from shard_server import ShardServer
from test_tar import entry, same_tensors, shard, tensors
from two_processes import run_two_processes
from whole_runs import NoisyConfig

from ssl_backbones.data import (
    ImageSourceError,
    blocks,
    fetching,
    open_images,
    opened_once,
    source,
    tar_index,
    validation_of,
)
from ssl_backbones.data.addresses import found_at
from ssl_backbones.data.blocks import Blocks, Keeping
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.data.fetching import Fetching
from ssl_backbones.distributed import gather_objects
from ssl_backbones.files import PRIVATE

__all__ = ["alone", "folder", "server"]


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


def test_folders_splits_and_patterns_are_listed(
    server: ShardServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(open_images(server.url)) == 14
    for name, at in (("train-0.tar", 0), ("train-1.tar", 1), ("val-0.tar", 2), (".hidden.tar", 3)):
        (folder / f"part-{at:03d}.tar").rename(folder / name)
    trained_on = open_images(server.url)
    assert len(trained_on) == 7
    said = f"{server.url} holds splits: taking train-0.tar, train-1.tar to train on, not val-0.tar"
    assert caplog.text.count(said) == 1
    held = validation_of(server.url, trained_on)
    assert held is not None
    assert len(held) == 2
    assert caplog.text.count(said) == 1
    assert len(open_images([f"{server.url}/val-0.tar", f"{server.url}/train-1.tar"])) == 6
    assert len(open_images(f"file://{folder}/train-1.tar")) == 4
    assert len(open_images([f"file://{folder}/val-0.tar", f"file://{folder}/train-1.tar"])) == 6
    for address in (f"file://{folder}", str(folder)):
        held = validation_of(address, open_images(address))
        assert held is not None
        assert len(held) == 2


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


@pytest.mark.parametrize("form", ["tar", "parquet"])
@pytest.mark.parametrize("given", ["opened", "unpickled"])
def test_what_readers_fetched_stays_for_the_next_and_goes_with_the_images(
    form: str, given: str, server: ShardServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    if form == "parquet":
        write(folder / "train.parquet", image=raw(9))
    images = opened(server) if form == "tar" else open_images(f"{server.url}/train.parquet")
    _ = images.fingerprint
    if given == "unpickled":  # as another process has them
        images = pickle.loads(pickle.dumps(images))
        images.at_hand()
    first = tensors(images, workers=2)
    before = server.sent
    assert same_tensors(tensors(images, workers=2), first)
    assert server.sent == before
    assert list((tmp_path / "blocks").glob("*.block"))
    del images
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


def test_processes_that_share_a_folder_keep_to_its_limit(tmp_path: Path) -> None:
    """However many there are: each looks again after a small part of the limit."""
    limit = 64 * 300 * 1000
    every = [Blocks(Keeping(str(tmp_path / "kept"), limit / 1e9), own={"a"}) for _ in range(24)]
    for number in range(6):
        for at, store in enumerate(every):
            store.keep(f"a-{at:02}{number}", bytes(300_000))
    held = sum(path.stat().st_size for path in (tmp_path / "kept").glob("*.block"))
    assert held <= limit


def test_half_blocks_of_killed_processes_go_and_those_that_are_written_stay(tmp_path: Path) -> None:
    old, new = tmp_path / f"{PRIVATE}old", tmp_path / f"{PRIVATE}new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))
    Blocks(Keeping(str(tmp_path)))
    assert not old.exists()
    assert new.exists()


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


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tar", "parquet"])
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
