"""A run in two processes: what one process leaves, stopped together, and on with another number of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import runs
import timm
import torch
from runs import tiny
from small_methods import CONFIGS
from torch import Tensor
from two_processes import RankError, run_two_processes
from whole_runs import data

from ssl_backbones.methods import BYOLConfig, LewelBConfig, LewelMConfig, MethodConfig, MoCoV2Config
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.runs.log import read_log
from ssl_backbones.train import ending

__all__ = ["data"]


SYNCHRONISED: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {
    "lewel_b": (LewelBConfig, {"target_bn": "sync"}),
    "moco_v2": (MoCoV2Config, {"key_bn": "sync"}),
    "byol, begun": (BYOLConfig, {"target_bn": "sync"}),
}
"""Methods whose batch statistics are those of the whole batch, however many processes share it."""
SPLIT: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {
    "lewel_m, shuffled": (LewelMConfig, {"key_bn": "shuffle", "bn_splits": 2}),
}
"""Methods whose batch statistics are those of half the batch, be the halves in one process or in two."""
UNLIKE: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {"byol, apart": (BYOLConfig, {"target_bn": "plain"})}
"""Two processes are not one: each has its own batch statistics."""
FIELDS = {"byol, begun": {"init": "resnet8_moco_v2.clothing10_32_200ep"}}
"""Fields of a run beside its method: of one that starts from given weights and ends with the comparison with others."""
ALL = SYNCHRONISED | SPLIT | UNLIKE
MOVED = "byol, apart from two, moved"
"""A run of two processes that ends in one, its parts left to it."""


@dataclass(frozen=True)
class Both:
    """The same runs in one process, and on each of two."""

    alone: dict[str, dict[str, Tensor]]
    ranks: list[dict[str, dict[str, Tensor]]]
    path: Path


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    path = tmp_path_factory.mktemp("both")

    def parts(folder: str) -> dict[str, runs.Part]:
        whole = {
            name: tiny(kind, data, path / folder / name, choices, **FIELDS.get(name, {}))
            for name, (kind, choices) in ALL.items()
        }
        return {name: runs.Part(recipe, compared=name in FIELDS) for name, recipe in whole.items()}

    def part(name: str, accumulation: int = 1, **more: Any) -> dict[str, runs.Part]:
        kind, choices = ALL[name.split(" from ")[0]]
        recipe = tiny(kind, data, path / "two" / name, choices, accumulation=accumulation)
        return {name: runs.Part(recipe, **more)}

    double = torch.float64
    runs.as_rank(0, part("lewel_b from one", stop_at=4, go_on=False), double)
    stopped = [part(f"{name} from two", stop_at=4) for name in ("lewel_m, shuffled", "byol, apart")]
    there = parts("two") | {name: one for many in stopped for name, one in many.items()} | part("lewel_b from one")
    there |= part("moco_v2 from two", stop_at=4, go_on=False)
    there |= part(MOVED, accumulation=0, stop_at=4, go_on=False)
    ranks = run_two_processes(runs.as_rank, there, double)
    alone = runs.as_rank(0, parts("one") | part("moco_v2 from two") | part(MOVED, accumulation=0), double)
    return Both(alone, ranks, path)


@pytest.mark.parametrize("name", ALL)
def test_two_processes_end_alike(name: str, both: Both) -> None:
    first, second = (rank[name] for rank in both.ranks)
    ends_alike(first, second, but_for="nothing" if name in SYNCHRONISED else "running_")


def ends_alike(first: dict[str, Tensor], second: dict[str, Tensor], but_for: str) -> None:
    """Two processes hold the same tensors, batch statistics aside where each has its own."""
    assert first.keys() == second.keys()
    for key in first:
        assert but_for in key or torch.equal(first[key], second[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_method_trains_in_two_processes(kind: type[MethodConfig], data: Path, tmp_path: Path) -> None:
    parts = {"whole": runs.Part(tiny(kind, data, tmp_path / "whole"), whole=True)}
    parts["again"] = runs.Part(tiny(kind, data, tmp_path / "again"), stop_at=4)
    first, second = run_two_processes(runs.as_rank, parts, torch.float32)
    ends_alike(first["whole"], second["whole"], but_for="running_")
    for rank in (first, second):
        ends_alike(rank["whole"], rank["again"], but_for="nothing")


@pytest.mark.parametrize("name", SYNCHRONISED | SPLIT)
def test_two_processes_are_one(name: str, both: Both) -> None:
    for key, tensor in both.alone[name].items():
        if name in SYNCHRONISED or "running" not in key:
            torch.testing.assert_close(both.ranks[0][name][key], tensor, rtol=0, atol=1e-10)
    logs = (read_log(both.path / folder / name / "log.jsonl") for folder in ("one", "two"))
    for one, two in zip(*logs, strict=True):
        if name in SYNCHRONISED or "loss" in one:
            assert two == pytest.approx(one, abs=1e-6)


def test_two_processes_hold_the_backbone_against_the_same_weights(both: Both) -> None:
    alone, shared = (
        json.loads((both.path / folder / "byol, begun" / "results.json").read_text())["baselines"]["networks"]
        for folder in ("one", "two")
    )
    assert len(alone) == len(shared) == 4
    for one, two in zip(alone, shared, strict=True):
        assert two["name"] == one["name"]
        for measure in ("knn", "retrieval"):
            assert two["numbers"][measure]["value"] == pytest.approx(one["numbers"][measure]["value"], abs=1e-9)


@pytest.mark.parametrize("name", UNLIKE)
def test_two_processes_with_statistics_of_their_own_are_not_one(name: str, both: Both) -> None:
    difference = max((both.ranks[0][name][key] - tensor).abs().max() for key, tensor in both.alone[name].items())
    assert difference > 1e-3
    statistics = "backbone.bn1.running_mean"
    assert not torch.equal(both.ranks[0][name][statistics], both.ranks[1][name][statistics])
    published = timm.create_model(f"local-dir:{both.path / 'two' / name / 'backbone'}", pretrained=True).state_dict()
    torch.testing.assert_close(published["bn1.running_mean"].double(), both.ranks[0][name][statistics])


@pytest.mark.parametrize("name", ["lewel_m, shuffled", "byol, apart"])
def test_two_processes_stop_together_and_go_on(name: str, both: Both) -> None:
    for rank in both.ranks:
        assert all(torch.equal(rank[f"{name} from two"][key], tensor) for key, tensor in rank[name].items())
    went_on, whole = both.path / "two" / f"{name} from two", both.path / "two" / name
    assert (went_on / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    cut, straight = (json.loads((path / "results.json").read_text()) for path in (went_on, whole))
    assert cut | {"seconds": 0} == straight | {"seconds": 0}


def compared_with_a_failure(rank: int, recipes: dict[str, Recipe]) -> None:
    """Runs whose second process, and it alone, runs out of memory at their end, each at a place of its own."""

    def full(*_: object) -> None:
        raise MemoryError("no more")

    for place, recipe in recipes.items():
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                patch.setattr(ending, place, full)
            runs.as_rank(rank, {place: runs.Part(recipe, whole=True)}, torch.float32)


def test_a_process_that_fails_in_the_comparison_ends_the_others(data: Path, tmp_path: Path) -> None:
    """No results are written, and nobody waits; a failure in what a process does for itself costs nothing."""
    usual: dict[str, Any] = {"max_steps": 1, "monitoring": Monitoring(knn_every=0)}
    recipes = {place: tiny(BYOLConfig, data, tmp_path / place, **usual) for place in ("compared", "looked_at")}
    said = (
        r"on rank 1:[\s\S]*comparison with other networks failed \(MemoryError: no more\) in process 1 of 2, all else"
    )
    with pytest.raises(RankError, match=said):
        run_two_processes(compared_with_a_failure, recipes)
    assert not (tmp_path / "looked_at" / "results.json").exists()
    assert "baselines" in json.loads((tmp_path / "compared" / "results.json").read_text())


def test_the_number_of_processes_may_change_on_the_way(both: Both) -> None:
    for key, tensor in both.alone["lewel_b"].items():
        torch.testing.assert_close(both.ranks[0]["lewel_b from one"][key], tensor, rtol=0, atol=1e-10)
    for key, tensor in both.alone["moco_v2"].items():
        torch.testing.assert_close(both.alone["moco_v2 from two"][key], tensor, rtol=0, atol=1e-10)


def test_parts_that_memory_chose_follow_the_number_of_processes(both: Both) -> None:
    """One process scores in two parts what each of two scored: the weights are those of two processes to the end."""
    assert json.loads((both.path / "two" / MOVED / "recipe.json").read_text())["accumulation"] == 2
    for key, tensor in both.ranks[0]["byol, apart"].items():
        if "running_" not in key and "num_batches" not in key:
            torch.testing.assert_close(both.alone[MOVED][key], tensor, rtol=0, atol=1e-10)
