"""Tasks with labels in two processes: what one process leaves, and every process hears the same of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import labelled_runs
import numpy as np
import pytest
import torch
from labelled_runs import divided, elsewhere, on_a_rank, results_of, small, weights
from two_processes import run_two_processes

from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.recipes.settings import OptimizerConfig

CASES = {"moco_v2": linear, "linear_patch": linear, "finetune_patch": finetune, "lewel_10pct": semi}
"""Batch statistics of the last two go over both processes."""


class Both(NamedTuple):
    """The results of two processes, and those of one."""

    ranks: dict[str, list[dict[str, float]]]
    alone: dict[str, Any]
    two: Path
    one: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Every case run by two processes, once, and by one. There is an odd number of images to be asked about."""
    folder = tmp_path_factory.mktemp("both")
    data = divided(folder / "photos")
    rate = OptimizerConfig("sgd", 0.05, lr_rule="absolute", backbone_lr=0.02, weight_decay=1e-4)
    fields: dict[str, Any] = {"batch_size": 8, "optimizer": rate}
    asked = {
        name: small(
            protocol, name.rpartition("_")[2] if "patch" in name else name, data, folder / "two" / name, **fields
        )
        for name, protocol in CASES.items()
    }
    asked["lewel_10pct"] = dataclasses.replace(asked["lewel_10pct"], share=0.5, judge_every=1)
    told = run_two_processes(on_a_rank, [(CASES[name].__name__.rpartition(".")[2], run) for name, run in asked.items()])
    alone = {name: labelled_runs.run(CASES[name], elsewhere(run, folder / "one" / name)) for name, run in asked.items()}
    ranks = {name: [rank[at] for rank in told] for at, name in enumerate(asked)}
    return Both(ranks, alone, folder / "two", folder / "one")


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name: str, both: Both) -> None:
    numbers = {number: found["value"] for number, found in both.alone[name]["numbers"].items()}
    assert both.ranks[name] == [numbers, numbers]
    there, here = results_of(both.two / name), results_of(both.one / name)
    assert (there["compute"]["processes"], here["compute"]["processes"]) == (2, 1)
    assert there["tests"] == here["tests"]
    assert there["data"] == here["data"]
    with np.load(both.two / name / "per_image.npz") as two, np.load(both.one / name / "per_image.npz") as one:
        assert len(one["top-1"]) == 27
        assert all(two[part].tolist() == one[part].tolist() for part in one.files)


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_the_same(name: str, both: Both) -> None:
    two, one = weights(both.two / name), weights(both.one / name)
    assert two.keys() == one.keys()
    for part, value in one.items():
        assert torch.allclose(two[part].float(), value.float(), rtol=1e-4, atol=1e-4), part
