"""The cost of opening a folder of as many images as ImageNet has, in CPU time and memory."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import hostile
import numpy as np
import pytest
from conftest import drawn_image
from hypothesis import given, settings
from hypothesis import strategies as st
from two_processes import run_two_processes
from warm_processes import run_program

from ssl_backbones.data import kept_arrays, open_images, opened_once, walk
from ssl_backbones.data.keys import PathKeys, fingerprint_by_sizes_of, fingerprint_of
from ssl_backbones.data.threads import THREADS, UNDER_WAY
from ssl_backbones.data.walk import listing_of
from ssl_backbones.refusal import Refusal

IMAGENET, CLASSES = 1_281_167, 1000
CPU, MEMORY, FIXED = 10.0, 200e6, 10e6
"""Seconds of the second start, its bytes, and those of what is imported meanwhile, be there few images or many."""

ODD = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6)
NAMES = ODD | st.sampled_from(["a", "a-b", "a.b"])


@settings(max_examples=60, deadline=None)
@given(paths=st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), unique=True, max_size=12))
def test_packed_paths_are_those_that_were_given(paths: list[str]) -> None:
    block, lengths = PathKeys.packed(paths or ["x"], "y/")
    assert list(PathKeys.of(block, np.cumsum(np.append(0, lengths)))) == [f"y/{path}" for path in paths or ["x"]]
    whole = PathKeys(paths)
    assert list(whole) == paths
    assert list(whole.at(np.arange(0, len(paths), 2))) == paths[::2]
    assert list(whole.at(np.arange(len(paths))[::-1])) == paths[::-1]
    assert b"".join(whole.terminated()) == b"".join(path.encode() + b"\0" for path in paths)
    labels, digests = np.arange(len(paths)), np.full((len(paths), 16), 7, np.uint8)
    assert fingerprint_of(whole, labels, digests) == fingerprint_of(paths, labels, digests)
    assert fingerprint_by_sizes_of(whole, None, labels) == fingerprint_by_sizes_of(paths, None, labels)


@pytest.mark.parametrize("piece", [2, walk.PIECE])
def test_the_order_is_that_of_the_paths_whatever_the_folders_are_called(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (walk, kept_arrays):
        monkeypatch.setattr(module, "PIECE", piece)
    names = ["a/1.jpg", "a-b/2.jpg", "a.b/3.jpg", "a/b/4.jpg", "a/b.jpg", "a.jpg", "b/\udcff.jpg", "ä/5.jpg"]
    names += ["a/d.jpg", "a/e.jpg", "a/c.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        hostile.leave(tmp_path / name, b"")
    assert max(len(some) for _, _, some in walk.walk(tmp_path, "", frozenset())) == min(piece, 3)
    others: Counter[str] = Counter()
    found = listing_of(tmp_path, others)
    assert list(found.keys) == sorted(names[:-1])
    assert list(walk.images_below(tmp_path)) == sorted(names[:-1])
    assert others == {".txt": 1}
    assert found.sizes.tolist() == [0] * 10
    assert sum(count for _, count in found.folders) == 10


def test_a_file_system_that_takes_its_time_is_asked_by_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}.jpg").write_bytes(bytes(number))
    asked_at_once = most = 0

    def slowly(path: str) -> tuple[int, int, int, int]:
        nonlocal asked_at_once, most
        asked_at_once += 1
        most = max(most, asked_at_once)
        time.sleep(0.001)
        asked_at_once -= 1
        return len(Path(path).read_bytes()), 1, 2, 3

    monkeypatch.setattr(walk, "stamp_of", slowly)
    assert listing_of(tmp_path, Counter()).sizes.tolist() == list(range(200))
    assert most > 1


@final
class Counting(ThreadPoolExecutor):
    """A pool that counts what it was asked for."""

    asked = 0

    def submit(self, *args: Any, **more: Any) -> Future[Any]:
        self.asked += 1
        return super().submit(*args, **more)


def test_few_questions_of_a_large_folder_wait_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SLOW", -1)
    names = ["none"] * 5000
    (tmp_path / "none").touch()
    with Counting(2) as pool:
        stamps = walk.stamps_of(str(tmp_path), names, pool)
        for _ in range(walk.ASKED + 1):
            first = next(stamps)
        assert pool.asked <= UNDER_WAY * THREADS
        assert [*stamps] == [first] * (len(names) - walk.ASKED - 1)


def test_a_folder_is_listed_and_its_files_are_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        place = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        drawn_image(number, 8, 8).save(place)
    asked, stat = Counter[str](), walk.stamp_of

    def counted(path: str) -> tuple[int, int, int, int]:
        asked[os.path.basename(path)] += 1
        return stat(path)

    monkeypatch.setattr(walk, "stamp_of", counted)
    monkeypatch.setattr("ssl_backbones.data.digest_index.stamp_of", counted)
    images = open_images(str(tmp_path / "data"))
    assert len(images.fingerprint) == len(images.fingerprint_by_sizes) == 64
    assert images.sizes is not None
    assert asked == {f"{number}.png": 1 for number in range(4)}


def open_in(rank: int, place: str) -> list[Any]:
    """The images as this process has them, the files that it asked the disk about, and the error of another folder."""
    asked: list[str] = []
    stat = walk.stamp_of
    walk.stamp_of = lambda path: (asked.append(path), stat(path))[1]
    images = opened_once(lambda: open_images(place))
    walk.stamp_of = stat
    assert images.digests is not None
    assert images.labels is not None
    known = [list(images.keys), images.labels.tolist(), images.fingerprint, images.fingerprint_by_sizes]
    assert np.asarray(images[2]).shape == (8, 8, 3)
    try:
        opened_once(lambda: open_images(f"{place}/none"))
    except Refusal as error:
        return [*known, str(error), len(asked)]
    raise AssertionError


def test_one_of_several_processes_asks_the_disk(tmp_path: Path) -> None:
    for number in range(4):
        place = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        drawn_image(number, 8, 8).save(place)
    (*one, asked), (*other, not_asked) = run_two_processes(open_in, str(tmp_path / "data"))
    assert one == other
    assert (asked, not_asked) == (4, 0)
    assert one[2] == open_images(str(tmp_path / "data")).fingerprint
    assert "does not exist" in one[4]


OPENING = """
import json, resource, sys, time
from ssl_backbones.data import open_images
import ssl_backbones.data.folder
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before, began = peak(), time.process_time()
images = open_images(sys.argv[1])
fingerprint = images.fingerprint
seconds, taken = time.process_time() - began, peak() - before
images.fingerprint_by_sizes
print(json.dumps({"seconds": seconds, "taken": taken, "fingerprint": fingerprint, "images": len(images)}))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many links to one small image as ImageNet has images, in as many folders."""
    root = tmp_path_factory.mktemp("imagenet")
    drawn_image(0, 8, 8).save(root / "one.png")
    count = int(os.environ.get("SSL_BACKBONES_TEST_IMAGES", IMAGENET))
    for label in range(CLASSES):
        folder = root / "train" / f"n{label:08}"
        folder.mkdir(parents=True)
        for number in range(count * label // CLASSES, count * (label + 1) // CLASSES):
            name = folder / f"n{label:08}_{number}.JPEG"
            if number % 50_000 == 0:  # a file has at most 65,000 names
                drawn_image(number, 8, 8).save(root / "one.png")
                (root / f"one-{number}.png").hardlink_to(root / "one.png")
                (root / "one.png").unlink()
                one = root / f"one-{number}.png"
            os.link(one, name)
    return root / "train"


@pytest.mark.slow
def test_a_second_start_at_imagenets_size_costs_little(tree: Path, tmp_path: Path) -> None:
    time.sleep(2.5)  # files that changed just now are not relied on
    starts = []
    for _ in range(2):
        done = run_program(OPENING, tree, SSL_BACKBONES_CACHE=str(tmp_path / "home"))
        assert done.returncode == 0, done.stderr
        starts.append(json.loads(done.stdout.splitlines()[-1]))
    print(starts)
    first, second = starts
    assert first["fingerprint"] == second["fingerprint"]
    share = second["images"] / IMAGENET
    assert second["seconds"] <= CPU * share
    assert second["taken"] <= FIXED + (MEMORY - FIXED) * share
