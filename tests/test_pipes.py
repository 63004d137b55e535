"""Pipes, devices and links in place of files: no command waits for them, reads without end, or writes through them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from limits import HANG
from runs import image_folder

import ssl_backbones
from ssl_backbones import commands
from ssl_backbones.hub.export import save_backbone

EVALUATE = "evaluate knn {place}/model --size 16 --workers 0 --data {place}/images --out {place}/out"
READERS = {
    "checkpoint": ("pipe", "convert {place}/pipe --out {place}/out"),
    "publisher's file": ("pipe", "import resnet50_swav.in1k_800ep {place}/pipe"),
    "list of classes": ("pipe", f"{EVALUATE} --classes {{place}}/pipe"),
    "weights": ("model/model.safetensors", EVALUATE),
    "description": ("model/config.json", EVALUATE),
    "results of a run": ("results.json", "describe {place}"),
    "recipe of an evaluation": ("out/recipe.json", EVALUATE),
    "results of an evaluation": ("out/results.json", EVALUATE),
    "lock": ("out/.lock", EVALUATE),
    "validation": ("pipe", f"{EVALUATE} --validation {{place}}/pipe"),
}


def test_a_command_ends_where_nobody_reads_what_it_says() -> None:
    """As `head` goes once it has its lines; 141 is what a shell tells of that."""
    words = [sys.executable, "-c", "import sys; from ssl_backbones.commands import main; sys.exit(main(['list']))"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 141)
    process.stderr.close()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stock")
    image_folder(place / "images", 8)
    save_backbone(
        ssl_backbones.create_model("resnet8", num_classes=0), place / "model", "resnet8", input_size=(3, 32, 32)
    )
    return place


@pytest.fixture
def place(stock: Path, tmp_path: Path) -> Iterator[Path]:
    """The stock, in a folder of its own; a command that waits for ever is ended."""
    shutil.copytree(stock, tmp_path / "place")
    signal.alarm(HANG)
    yield tmp_path / "place"
    signal.alarm(0)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are files on POSIX")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_nothing_waits_for_what_is_no_file(
    name: str, kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, words = READERS[name]
    path = place / where
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if name.endswith("of an evaluation"):
        (place / "out" / "recipe.json").write_text("{}")
        path.unlink(missing_ok=True)
    KINDS[kind](path)
    ran = [word.format(place=place) for word in words.split()]
    code = commands.run(ran[0], ran[1:], ran[0])
    said = capsys.readouterr().err
    assert code in (1, 2), said
    assert said.count("\n") == 1, said
    assert len(said) > 60, "it says what is wrong"
    assert "Errno" not in said


def test_a_projector_is_not_written_through_links(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    (place / "projector").mkdir()
    (place / "projector" / "projector_config.pbtxt").symlink_to(place / "outside")
    words = f"embed {place}/model --data {place}/images --size 16 --workers 0 --out {place}/f.npy --overwrite"
    words += f" --projector {place}/projector"
    assert commands.run("embed", words.split()[1:], "embed") == 2
    assert "nothing is written through links" in capsys.readouterr().err
    assert not (place / "outside").exists()
