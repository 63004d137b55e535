"""Tasks with labels in two processes: what one process leaves, and every process hears the same of it."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any, NamedTuple

import labelled_runs
import numpy as np
import pytest
import torch
from labelled_runs import divided, elsewhere, on_a_rank, results_of, small, weights
from two_processes import run_two_processes

from ssl_backbones.distributed import OtherRankError
from ssl_backbones.evaluate.classification import on_features
from ssl_backbones.evaluate.classification.labelled_run import LabelledRun
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.files import told
from ssl_backbones.recipes.settings import OptimizerConfig

CASES = {"moco_v2": linear, "linear_patch": linear, "finetune_patch": finetune, "lewel_10pct": semi}
"""Batch statistics of the last two go over both processes."""


class Both(NamedTuple):
    """The results of two processes, and those of one."""

    ranks: dict[str, list[dict[str, float]]]
    alone: dict[str, Any]
    two: Path
    one: Path
    unsaved: list[str]
    """The sentence that each hears of results that cannot be written."""


def unsaved(options: LabelledRun) -> str:
    """The sentence that a process hears of results that the first one cannot write, after a probe on features."""

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results.json")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(on_features, "save_results", full)
        try:
            labelled_runs.run(linear, options)
        except OSError as error:
            return told(error)
        except OtherRankError as error:
            return str(error)
    return ""


def everything(rank: int, asked: list[tuple[str, LabelledRun]], fails: LabelledRun) -> dict[str, Any]:
    """The answers of a process; two take long to begin."""
    return {"numbers": on_a_rank(rank, asked), "unsaved": unsaved(fails)}


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
    protocols = [(CASES[name].__name__.rpartition(".")[2], run) for name, run in asked.items()]
    answers = run_two_processes(everything, protocols, elsewhere(asked["linear_patch"], folder / "unsaved"))
    alone = {name: labelled_runs.run(CASES[name], elsewhere(run, folder / "one" / name)) for name, run in asked.items()}
    ranks = {name: [rank["numbers"][at] for rank in answers] for at, name in enumerate(asked)}
    return Both(ranks, alone, folder / "two", folder / "one", [rank["unsaved"] for rank in answers])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name: str, both: Both) -> None:
    numbers = {number: found["value"] for number, found in both.alone[name]["numbers"].items()}
    assert both.ranks[name] == [numbers, numbers]
    there, here = results_of(both.two / name), results_of(both.one / name)
    assert (there["compute"]["processes"], here["compute"]["processes"]) == (2, 1)
    assert there["tests"] == here["tests"]
    assert there["data"] == here["data"]
    assert there["classifier"] == here["classifier"]
    assert (here["classifier"]["folder"] is None) == (name == "finetune_patch")
    with np.load(both.two / name / "per_image.npz") as two, np.load(both.one / name / "per_image.npz") as one:
        assert len(one["top-1"]) == 27
        assert all(two[part].tolist() == one[part].tolist() for part in one.files)


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_the_same(name: str, both: Both) -> None:
    two, one = weights(both.two / name), weights(both.one / name)
    assert two.keys() == one.keys()
    for part, value in one.items():
        assert torch.allclose(two[part].float(), value.float(), rtol=1e-4, atol=1e-4), part


def test_results_that_the_first_process_cannot_write_end_both_in_its_sentence(both: Both) -> None:
    one, other = both.unsaved
    assert one == other
    assert one.startswith("results.json cannot be used (No space left on device)")
