"""A GPU that is there, and one that whoever started the process has excluded: no part of a run uses that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from fake_cuda import works
from runs import tiny
from small_methods import Drawn
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_backbones.data.batches import Batches
from ssl_backbones.evaluate import model
from ssl_backbones.evaluate.protocols import diagnose
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.metrics.interval import Interval
from ssl_backbones.models import images_ahead
from ssl_backbones.runs import checkpoint
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import CenterCrop


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


@pytest.mark.parametrize(
    ("said", "used"), [("true", "cpu"), ("1", "cpu"), ("Yes", "cpu"), ("false", "cuda"), ("", "cuda")]
)
def test_a_gpu_that_is_excluded_is_not_used(said: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", said)
    assert images_ahead.usual_device().type == model.usual_device().type == used
    assert checkpoint.surroundings(1)["gpu"] == ("a GPU" if used == "cuda" else None)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_for_the_device_of_the_run(device: str, tmp_path: Path) -> None:
    accelerator: Any = SimpleNamespace(device=torch.device(device), process_index=0, num_processes=1)
    dataset = Batches(Drawn(8), CenterCrop(16), 0)
    loader = Loader.of(tiny(BYOLConfig, tmp_path, tmp_path / "run"), dataset, accelerator)
    assert loader.pin_memory is (device == "cuda")


@pytest.mark.skipif(not works(), reason="this torch has no fake tensors of a GPU")
@pytest.mark.parametrize(("device", "used"), [("cuda", "cuda"), ("mps", "cpu"), ("cpu", "cpu")])
def test_diagnose_measures_where_float64_is(device: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def metric(*rows: Tensor) -> float:
        seen.extend(part.device.type for part in rows)
        return 0.0

    for name in ("feature_std", "effective_rank", "alignment", "uniformity"):
        monkeypatch.setattr(diagnose, name, metric)
    monkeypatch.setattr(diagnose, "jackknife_interval", lambda measure, order: Interval(measure(slice(None)), 0.0, 0.0))
    options: Any = Mock(seed=0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        middle, pairs = (Mock(rows=torch.ones(4, width), readable=np.ones(4, bool)) for width in (3, 6))
        diagnose.measured(middle, pairs, options, torch.device(device))
    assert seen == [used] * 5
