"""A disk that fails at any call, in every command: one sentence, and the same files once it works again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawn_objects
import numpy as np
import pytest
import runs
import safetensors
import scenes
import test_localise
import torch
from checkpoints import swav
from evaluations import labelled_images
from failing_disk import ERRORS, Disk, failing
from runs import image_folder, run, tiny

import ssl_backbones
from ssl_backbones import commands
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import MoCoV2Config

MOST = 150
"""Calls of a command that are tried, evenly spread where it makes more."""
TIMED = ("speed.jsonl", ".lock")
"""Files that no two runs leave alike."""


@dataclass(frozen=True)
class Stock:
    """Small inputs of every kind."""

    place: Path

    def __getitem__(self, name: str) -> str:
        return str(self.place / name)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    place = tmp_path_factory.mktemp("stock")
    image_folder(place / "images")
    labelled_images(place / "labelled")
    network = ssl_backbones.create_model("resnet8", num_classes=0)
    save_backbone(network, place / "model", "resnet8", input_size=(3, 32, 32))
    save_backbone(ssl_backbones.create_model("resnet18_byol", num_classes=0), place / "larger", "resnet18")
    torch.save(swav(network.state_dict()), place / "net.pth")
    run(tiny(MoCoV2Config, place / "images", place / "run", epochs=1))
    scenes.voc_folder(place / "masks")
    drawn_objects.voc(place / "boxes")
    test_localise.write(place / "objects.parquet")
    return Stock(place)


PRETRAIN = "sample --size 16 --batch-size 8 --method.bn-splits 2 --log-every 1 --workers 0 --precision fp32 --epochs 1"
PRETRAIN += " --method.queue-size 16 --layout contiguous --schedule.warmup-epochs 0 --checkpoints.every-steps 2"
EVALUATE = "{model} --size 16 --workers 0 --data {labelled} --out {out}/found"
HEAD = "--epochs 1 --batch_size 30 --seed 3 --precision fp32 --layout contiguous"
SEGMENT = "--random --preset small --workers 0 --size 32 --batch_size 4 --iterations 2"
SEGMENT += " --precision fp32 --layout contiguous"
DETECT = "--random --preset small --workers 0 --batch_size 2 --iteration_images 2 --size 80 --task.smallest 64"
DETECT += " --task.longest 96 --task.width 16 --task.anchors 32 --task.regions 16 --task.test_proposals 20"
DETECT += " --task.precise_batches 1 --iterations 2 --schedule.milestone_steps 1 --schedule.warmup_steps 1"
DETECT += " --precision fp32 --layout contiguous"

CHEAP = {
    "evaluate knn": f"evaluate knn {EVALUATE}",
    "embed parquet": "embed {model} --data {images} --out {out}/f.parquet --size 16 --workers 0 --cache {out}/cache",
    "embed npy": "embed {model} --data {images} --out {out}/f.npy --size 16 --workers 0",
    "mine-pairs": "mine-pairs {model} --data {images} --out {out}/p.parquet --picture {out}/p.png --workers 0",
    "convert": "convert {net.pth} --out {out}/made",
    "bundle": "bundle {model} --out {out}/bundle",
    "publish": "publish {run} --repo org/name --data_terms CC0 --with_state --dry_run --out {out}/files",
}
DEAR = {
    "evaluate mlp": f"evaluate mlp {EVALUATE} --epochs 2",
    "visualize": "visualize {model} --data {images} --out {out}/page --map pca --count 4 --bank 6 --size 16 --pdf",
    "localise": "localise {model} --data {objects.parquet} --out {out}/found --size 24 --curves 3 --steps 2",
    "evaluate diagnose": f"evaluate diagnose {EVALUATE}",
    "evaluate logistic": f"evaluate logistic {EVALUATE} --weight_decays 0.01 0.1",
    "export": "export {larger} --format mmdet --out {out}/net.pth",
    "pretrain": f"pretrain {PRETRAIN} --data {{images}} --out {{out}}/run --cache {{out}}/cache",
    "evaluate linear": f"evaluate linear {EVALUATE} {HEAD}",
    "evaluate finetune": f"evaluate finetune {EVALUATE} {HEAD}",
    "evaluate semi": f"evaluate semi {EVALUATE} {HEAD} --share 0.5",
    "segment": f"segment resnet8 {SEGMENT} --data {{masks}} --out {{out}}/run",
    "detect": f"detect resnet8 {DETECT} --data {{boxes}} --out {{out}}/run",
}


@dataclass
class Trial:
    """A command that is started again and again, in one place."""

    words: str
    stock: Stock
    out: Path
    capsys: pytest.CaptureFixture[str]

    def start(self, disk: Disk | None = None) -> tuple[int, str]:
        """The exit code, and the lines on stderr that end the command."""
        words = [self.filled(word) for word in self.words.split()]
        self.capsys.readouterr()
        runs.forget()
        try:
            with failing(disk or Disk(self.out)):
                code = commands.run(words[0], words[1:], words[0])
        finally:
            runs.forget()
        said = self.capsys.readouterr().err
        assert "Traceback" not in said
        return code, "".join(line for line in said.splitlines(True) if not line.startswith("measured on"))

    def filled(self, word: str) -> str:
        if not word.startswith("{"):
            return word
        name, _, rest = word[1:].partition("}")
        return (str(self.out) if name == "out" else self.stock[name]) + rest

    def anew(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def left(self) -> dict[str, Any]:
        """All files, but for those that time decides."""
        files = (path for path in sorted(self.out.rglob("*")) if path.is_file() and path.name not in TIMED)
        return {str(path.relative_to(self.out)): content_of(path) for path in files}


def content_of(path: Path) -> Any:
    """The content of a file; safetensors writes its metadata in any order, and results tell the words of a process."""
    if path.name == "results.json":
        return json.loads(path.read_bytes()) | {"command": ""}
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


@pytest.fixture
def trial(
    stock: Stock, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Trial]:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # or a PDF would tell its time
    monkeypatch.setattr("ssl_backbones.locks.SETTLED_AFTER", 0.01)
    return lambda words: Trial(words, stock, tmp_path / "out", capsys)


def fails_and_goes_on(trial: Trial, most: int) -> int:
    """Let each call in turn be the first that fails, or that many of them; the number that was tried."""
    trial.anew()
    counted = Disk(trial.out)
    code, said = trial.start(counted)
    assert code == 0, said
    wanted = trial.left()
    assert len(counted.calls) > 2, "the disk is written to"
    tried = sorted({round(call) for call in np.linspace(1, len(counted.calls), min(most, len(counted.calls)))})
    for number, call in enumerate(tried):
        trial.anew()
        disk = Disk(trial.out, call, ERRORS[number % len(ERRORS)], stays=number % 2 == 0)
        code, said = trial.start(disk)
        where = f"call {call} of {len(counted.calls)}, {counted.calls[call - 1]}: {code} {said}"
        assert code in (0, 2), where
        if code:
            assert said.count("\n") == 1, where
            assert os.strerror(disk.number) in said, where
            assert "Errno" not in said, where
            assert trial.start() == (0, ""), where
        assert trial.left() == wanted, where
    return len(tried)


@pytest.mark.parametrize("name", CHEAP)
def test_some_calls_may_fail_in_any_command(name: str, trial: Callable[[str], Trial]) -> None:
    assert fails_and_goes_on(trial(CHEAP[name]), 3) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEAP | DEAR)
def test_any_call_may_fail_in_any_command(name: str, trial: Callable[[str], Trial]) -> None:
    print(name, fails_and_goes_on(trial((CHEAP | DEAR)[name]), MOST))


def test_the_disk_fails_where_it_is_told_to(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 2)
    with failing(disk), pytest.raises(OSError, match="No space") as caught, open(tmp_path / "file", "wb") as file:
        file.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    assert [call.split()[0] for call in disk.calls] == ["open", "write", "close"]
