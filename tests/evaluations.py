"""Whole evaluations small enough for tests, by the words of their command lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
from conftest import drawn_image
from runs import image_folder
from scripts import script

from ssl_backbones.commands import evaluate
from ssl_backbones.files import read_object

TRAIN, VALIDATION = 60, 31
ASKED = ("resnet8", "--random", "--size", "16", "--workers", "0")
QUICK = {"knn": (), "logistic": ("--weight_decays", "0.01", "0.1"), "mlp": ("--epochs", "3"), "diagnose": ()}


def labelled_images(folder: Path) -> Path:
    """A folder of images of three classes to learn from, and others to ask about."""
    image_folder(folder / "train", TRAIN, ("bag", "hat", "shoe"))
    image_folder(folder / "val", VALIDATION, ("bag", "hat", "shoe"))
    return folder


def evaluated(protocol: str, data: Path, out: Path, *more: str) -> dict[str, Any]:
    """The content of results.json after a command line, whose options come in place of the quick ones."""
    quick = () if {*QUICK[protocol][:1]} & {*more} else QUICK[protocol]
    runs.forget()
    try:
        script("evaluate", [protocol, *ASKED, "--data", str(data), "--out", str(out), *quick, *more])
    finally:
        runs.forget()
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def refusal(capsys: pytest.CaptureFixture[str], *words: Any, said: str = "evaluate.py") -> str:
    """The one sentence that ends a call."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        evaluated(*words)
    assert end.value.code == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith(said)
    return sentence


def parquet(path: Path, labels: list[str | None]) -> Path:
    """Images with labels, some of them missing."""
    content = []
    for number in range(len(labels)):
        file = io.BytesIO()
        drawn_image(number, 24, 24).save(file, "PNG")
        content.append({"bytes": file.getvalue(), "path": f"{number}.png"})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": content, "label": labels}), path)
    return path


def evaluate_as(*words: str) -> dict[str, Any]:
    """The results of an evaluation by its words."""
    options = evaluate.parse(words, "evaluate")
    evaluate.run(options)
    return read_object(Path(options.asked.out) / "results.json", "")
