"""Parts of a batch that a run keeps when it goes on: in another batch, or with other processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import image_folder, run, stop, tiny
from small_methods import small_method
from test_step_memory import GB, scarce

from ssl_backbones.methods import BYOLConfig, MethodConfig, MoCoV2Config, SimCLRConfig
from ssl_backbones.models import batch_norm, key_encoder
from ssl_backbones.recipes.rules import RULES
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.run_folder import RunFolder, RunFolderError
from ssl_backbones.train import parts as parts_module
from ssl_backbones.train import step_memory
from ssl_backbones.train.parts import PARTS, Earlier, earlier, parts_to_keep
from ssl_backbones.train.step_memory import possible_parts

__all__ = ["scarce"]


@pytest.mark.usefixtures("scarce")
def test_another_batch_in_the_folder_is_another_recipe_whatever_its_parts_were(tmp_path: Path) -> None:
    recipe = tiny(SimCLRConfig, image_folder(tmp_path / "images", 16), tmp_path / "run", accumulation=0)
    stop(recipe, 1)
    for batch in (9, 10, 12):
        with pytest.raises(RunFolderError, match=f"another recipe .*batch_size is 8 there and {batch} here"):
            run(replace(recipe, batch_size=batch))


@pytest.mark.parametrize(
    ("kind", "choices", "before", "now", "parts"),
    [
        (BYOLConfig, {}, Earlier(1, 8), 1, 8),
        (BYOLConfig, {}, Earlier(8, 1), 8, 1),
        (BYOLConfig, {}, Earlier(2, 2), 3, 2),
        (BYOLConfig, {"target_bn": "sync"}, Earlier(1, 8), 1, 1),
        (BYOLConfig, {"target_bn": "sync"}, Earlier(8, 1), 8, 8),
        (MoCoV2Config, {"bn_splits": 2}, Earlier(2, 2), 1, 2),
        (MoCoV2Config, {"bn_splits": 2}, Earlier(2, 1), 2, 2),
        (MoCoV2Config, {"bn_splits": 2}, Earlier(2, 1), 4, 2),
        (MoCoV2Config, {"key_bn": "sync"}, Earlier(1, 8), 2, 1),
        (MoCoV2Config, {"key_bn": "ema"}, Earlier(2, 1), 2, 1),
        (SimCLRConfig, {}, Earlier(1, 8), 1, 1),
        (SimCLRConfig, {}, Earlier(8, 1), 8, 8),
        (SimCLRConfig, {}, Earlier(8, 1), 1, 1),
        (SimCLRConfig, {}, None, 8, 1),
    ],
)
@pytest.mark.parametrize("gpus", [False, True])
def test_a_run_keeps_what_it_scores_together_with_another_number_of_processes(
    gpus: bool,
    kind: type[MethodConfig],
    choices: dict[str, Any],
    before: Earlier | None,
    now: int,
    parts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (parts_module, key_encoder, batch_norm):
        monkeypatch.setattr(module, "world_size", lambda: now)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    assert parts_to_keep(small_method(kind, **choices), before) == parts


@pytest.mark.parametrize(
    ("share", "least", "kept", "parts"),
    [(12, 2, 1, [1, 2, 3, 4, 6]), (12, 2, 5, [6]), (12, 4, 5, [3]), (15, 2, 4, [5]), (3, 4, 2, [1])],
)
def test_parts_that_are_kept_are_those_that_a_share_has_room_for(
    share: int, least: int, kept: int, parts: list[int]
) -> None:
    assert possible_parts(share, least, kept) == parts


@pytest.mark.usefixtures("scarce")
@pytest.mark.parametrize(("asked", "derived"), [(0, ()), (4, ()), (0, (PARTS,)), (0, (PARTS, "batch_size"))])
def test_parts_follow_other_processes_and_are_said(
    asked: int,
    derived: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The checkpoint of a process that says it was two; memory is asked about again, unless a number is said.

    No rule is, and no part is said to be kept.
    """
    monkeypatch.setitem(RULES, PARTS, lambda *_: 2)
    monkeypatch.setitem(RULES, "batch_size", lambda *_: 8)
    data = image_folder(tmp_path / "images", 32 if derived else 16)
    recipe = tiny(SimCLRConfig, data, tmp_path / "run", accumulation=0, derived=derived)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "surroundings", lambda world_size: checkpoint.surroundings(2))
        stop(recipe, 1)
    assert earlier(RunFolder(tmp_path / "run")) == Earlier(2, 2)
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: 3.5 * GB)
    monkeypatch.setitem(RULES, PARTS, lambda *_: 1)
    capsys.readouterr()
    folder = run(replace(recipe, accumulation=asked))
    said = capsys.readouterr().out
    assert ("kept from the run's recipe.json: batch_size 8.\n" in said) == ("batch_size" in derived)
    assert "by the rules" not in said
    assert json.loads(folder.recipe.read_text())["accumulation"] == 4
    sentence = "Accumulation changed with the number of processes: now 1 process, 4 parts of 2 images each, before "
    assert (f"{sentence}2 processes, 2 parts of 2 images each.\n" in said) == (asked == 0)


@pytest.mark.usefixtures("scarce")
def test_a_run_that_saved_nothing_with_other_processes_goes_back_to_its_parts(tmp_path: Path) -> None:
    """Its recipe.json was written by those; its checkpoint tells what it is."""
    recipe = tiny(SimCLRConfig, image_folder(tmp_path / "images", 16), tmp_path / "run", accumulation=0)
    stop(recipe, 1)
    file = tmp_path / "run" / "recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"accumulation": 4}))
    assert json.loads(run(recipe).recipe.read_text())["accumulation"] == 2
