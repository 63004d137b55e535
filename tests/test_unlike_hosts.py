"""Processes on hosts that differ, in memory and in what is installed, take the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import image_folder, tiny
from small_methods import small_method
from two_processes import run_two_processes

from ssl_backbones.data import open_images
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.train import settle, step_memory
from ssl_backbones.train.settle import as_before, engine_of, facts_of, fillable_memory, views_sentence
from ssl_backbones.train.step_memory import Footprint, fitted

CPU = torch.device("cpu")
GB = 1e9


def outcome(work: Callable[[], Any]) -> str:
    """The result as text, or the words of the error."""
    try:
        return str(work())
    except ValueError as error:
        return str(error)


def on_a_host(rank: int, data: str) -> str:
    """The decisions on a host with much memory and OpenCV, and on one with little and without, as JSON."""
    recipe = tiny(BYOLConfig, Path(data), Path(data) / "run", accumulation=0, engine="auto")
    method, images = small_method(BYOLConfig), open_images(data)
    said: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settle, "memory_here", lambda device: (1e15, 2.5 * GB)[rank])
        patch.setattr(settle, "has_opencv", lambda: rank == 0)
        patch.setattr(step_memory, "SURE", 10**7)
        for name, grows in {"memory": (GB, GB), "growth": (0.1 * GB, GB), "too much": (GB, 2 * GB)}.items():
            found = Footprint(0.0, grows[rank], "fp32")
            patch.setattr(step_memory, "footprint", lambda *_, found=found: found)
            said[name] = outcome(lambda: fitted(recipe, method, images, CPU).accumulation)
        said["facts"] = outcome(lambda: facts_of(images, CPU, fillable_memory(CPU)).memory / GB)
        said["engine"] = outcome(lambda: engine_of(recipe, method))
        pillow, named = (tiny(BYOLConfig, Path(data), Path(data) / "run", engine=one) for one in ("pillow", "opencv"))
        said["advice"] = outcome(lambda: views_sentence(pillow, method))
        said["named"] = outcome(lambda: as_before(named))
        patch.setattr(settle, "values_kept", lambda recipe: {"engine": "opencv"})
        said["kept"] = outcome(lambda: as_before(recipe))
    return json.dumps(said)


def test_processes_on_unlike_hosts_decide_alike(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "images", 8)
    first, second = map(json.loads, run_two_processes(on_a_host, str(data)))
    assert first == second
    assert (first["memory"], first["growth"], first["facts"], first["engine"]) == ("2", "2", "2.5", "pillow")
    assert first["too much"].startswith("2 images of 16 px at a time take about 4.0 GB")
    assert first["advice"].endswith("a new run (--out) after pip install 'ssl-backbones[train]'.")
    assert first["named"].startswith("engine is 'opencv', but OpenCV is not installed where process 1 runs:")
    assert first["kept"].startswith(f"the run in {data / 'run'} makes its views by OpenCV, which is not")
