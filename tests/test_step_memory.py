"""Memory is told before it is taken: the parts of a batch that fit, and activations that are not kept."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from live_storages import LiveStorages
from runs import image_folder, run, tiny
from small_methods import CONFIGS, STAND_INS, batch_of, small_method
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_backbones import recipes
from ssl_backbones.data import open_images
from ssl_backbones.methods import BYOLConfig, LewelBConfig, MethodConfig, MoCoV2Config, SimCLRConfig, SwAVConfig
from ssl_backbones.models import batch_norm, key_encoder
from ssl_backbones.models.activations import counted
from ssl_backbones.models.recomputing import recompute_activations
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train import step_memory
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.cost import checkpoint_size, size_of_state
from ssl_backbones.train.forecast import forecast
from ssl_backbones.train.guards import MemoryShortError
from ssl_backbones.train.optimization import build_optimizer
from ssl_backbones.train.prepare import UnfitError, read_batch
from ssl_backbones.train.pretrain import build
from ssl_backbones.train.settle import OF_A_GPU
from ssl_backbones.train.step_memory import (
    Footprint,
    fewest,
    fitted,
    instead,
    memory_needed,
    parts_within,
    tried,
)

CPU = torch.device("cpu")
GB = 1e9


def scored(kind: type[MethodConfig], anew: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], int]:
    """Loss, gradients, buffers and kept bytes of a method after a pass, with activations computed anew or kept."""
    method = small_method(kind).train()
    batch = batch_of(method)
    if anew:
        recompute_activations(method.backbone)
    torch.manual_seed(3)
    with counted(method) as storages:
        loss = method(batch)["loss"]
    loss.backward()
    gradients = {name: weights.grad for name, weights in method.named_parameters() if weights.grad is not None}
    return loss, gradients, dict(method.named_buffers()), sum(storages.values())


@pytest.mark.parametrize("kind", STAND_INS)
def test_activations_computed_anew_give_the_same_numbers(kind: type[MethodConfig]) -> None:
    (loss, gradients, buffers, kept), (other, others, moved, fewer) = (scored(kind, anew) for anew in (False, True))
    assert torch.equal(loss, other)
    assert gradients.keys() == others.keys()
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert all(torch.equal(buffer, moved[name]) for name, buffer in buffers.items())
    assert fewer < kept


FOLLOWED = [
    kind
    for kind in CONFIGS
    if (hasattr(kind, "target_momentum") or hasattr(kind, "momentum")) and not hasattr(kind, "alignment")
]
"""The methods with a network that follows the one that learns; those that may draw maps do so for the latter first."""


@pytest.mark.parametrize("kind", FOLLOWED, ids=lambda kind: kind.name)
def test_targets_are_computed_before_activations_are_kept(kind: type[MethodConfig]) -> None:
    """Or else what their network takes meanwhile would lie on top of all that the backward pass waits for."""
    method = small_method(kind, crops=0, grid=4)
    batch = batch_of(method, size=64)
    with LiveStorages() as live:
        loss = method(batch)["loss"]
        kept = live.bytes()
    assert live.peak <= 1.1 * kept, loss  # a layer more than it keeps


def test_a_network_that_cannot_compute_anew_is_refused() -> None:
    with pytest.raises(ValueError, match="a Linear cannot compute its activations anew"):
        recompute_activations(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("limit", "parts"), [(100, 1), (69.9, 2), (40, 2), (39, 4), (26, 4), (25, 8), (18, 8)], ids=lambda value: f"{value}"
)
def test_a_batch_is_cut_in_as_few_parts_as_fit(limit: float, parts: int) -> None:
    recipe = tiny(BYOLConfig, Path("data"), Path("run"), batch_size=60)
    found = parts_within(recipe, Footprint(10 * GB, GB, "bf16"), limit * GB, least=2)
    possible = [number for number in range(1, 31) if 60 % number == 0]
    assert found == next(number for number in possible if 10 + 60 / number <= limit)
    assert found >= parts / 2


def test_no_part_is_smaller_than_its_groups_want_and_too_little_memory_is_refused() -> None:
    recipe = tiny(MoCoV2Config, Path("data"), Path("run"), {"bn_splits": 4}, batch_size=64)
    found, least = Footprint(GB, GB, "bf16"), fewest(build(Beginning(recipe, None)))
    assert parts_within(recipe, found, 9 * GB, least) == 8  # 8 images: two for each of four groups
    with pytest.raises(
        ValueError, match=r"8 images of 16 px at a time take about 9.0 GB .* in bf16, and 8.0 GB may be"
    ):
        parts_within(recipe, found, 8 * GB, least)


@pytest.mark.filterwarnings("ignore:queries and keys share their batch statistics")
@pytest.mark.parametrize("statistics", get_args(key_encoder.KeyBN))
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if hasattr(kind, "bn_splits")], ids=lambda kind: kind.name)
def test_groups_want_two_images_each_in_their_process(
    kind: type[MethodConfig], statistics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for processes in (1, 2, 8):
        monkeypatch.setattr(batch_norm, "world_size", lambda processes=processes: processes)
        method = small_method(kind, key_bn=statistics, bn_splits=4)
        assert fewest(method) == (2 * max(1, 4 // processes) if statistics == "shuffle" else 2)


def test_what_is_tried_is_two_parts_of_the_share_or_all_of_it() -> None:
    for share, least in product(range(1, 50), [2, 16]):
        counts = tried(share, least)
        assert len(set(counts)) == len(counts) == (2 if share > least else 1)
        assert min(share, least) <= counts[0] <= counts[-1] <= share
        if share >= 32:
            assert counts == (max(8, least), 2 * max(8, least))


def test_what_keeps_a_batch_whole_is_offered() -> None:
    recipe = tiny(LewelBConfig, Path("data"), Path("run"), {"groups": 2})
    assert instead(recipe).endswith(
        "To compare the whole batch instead: --grad_checkpointing (a third more time), or fewer maps (--method.groups "
        "above 2), or a --size below 16."
    )
    assert "maps" not in instead(tiny(SimCLRConfig, Path("data"), Path("run")))


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for four images at a time, on a machine where every run is tried."""
    monkeypatch.setattr(step_memory, "SURE", 10**12)
    monkeypatch.setattr(step_memory, "footprint", lambda *_: Footprint(GB, GB, "fp32"))
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: 5.5 * GB)


@pytest.mark.usefixtures("scarce")
def test_parts_are_said_recorded_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "images", 16)
    recipe = tiny(SimCLRConfig, data, tmp_path / "run", accumulation=0, max_steps=1)
    folder = run(recipe)
    said = capsys.readouterr().out
    assert (
        "Memory: 8 images at once take about 9.0 GB in fp32, more than the 5.5 GB that may be filled, so they" in said
    )
    assert "scored in 2 parts of 4, about 5.0 GB (--accumulation sets another number)." in said
    assert "To compare the whole batch instead: --grad_checkpointing" in said
    assert said.count("Reading a first batch") == said.count("Reading a first batch, 4 images") == 1
    assert json.loads(folder.recipe.read_text())["accumulation"] == 2
    folder.results.unlink()
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: 1.0)
    monkeypatch.setattr(step_memory, "footprint", None)  # nothing is tried again
    run(recipe)
    assert json.loads(folder.recipe.read_text())["accumulation"] == 2
    assert json.loads(folder.results.read_text())["steps"] == 1


def test_a_small_part_tells_the_memory_of_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 8 and 16 images to 32, on a CPU by what autograd keeps."""
    recipe = tiny(LewelBConfig, image_folder(tmp_path / "images", 40), tmp_path / "run", batch_size=32, accumulation=0)
    images = open_images(recipe.data)
    method = build(Beginning(recipe, None))
    found = step_memory.footprint(recipe, method, images, CPU)
    whole = step_memory.taken(step_memory.part(recipe, 32), method, images, CPU, "fp32")
    assert found.of(32) == pytest.approx(whole, rel=0.02)
    monkeypatch.setattr(step_memory, "SURE", 10**9)
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: found.of(8))
    assert fitted(recipe, method, images, CPU).accumulation == 4
    assert fitted(replace(recipe, accumulation=1), method, images, CPU).accumulation == 1
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: 1.0)
    with pytest.raises(UnfitError, match="lower --size, or compute activations anew with --grad_checkpointing"):
        fitted(recipe, method, images, CPU)


@pytest.mark.parametrize("teacher", [0.0, GB])
@pytest.mark.parametrize("held", [0.0, 30 * GB])
def test_what_lies_on_a_gpu_already_is_no_part_of_a_step(
    held: float, teacher: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that the first trial brings there for good is a part of both trials."""
    recipe = tiny(BYOLConfig, tmp_path, tmp_path / "run", batch_size=64)
    lying = [held]

    def taken(part: Any, *_: Any) -> float:
        lying[0] = held + teacher
        return lying[0] + 2 * GB + part.batch_size * 0.5 * GB

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: lying[0])
    monkeypatch.setattr(step_memory, "taken", taken)
    asked: Any = None
    found = step_memory.footprint(recipe, build(Beginning(recipe, None)), asked, torch.device("cuda", 0))
    assert found.of(64) == teacher + 34 * GB


@pytest.mark.parametrize("kind", ["sgd", "lars", "adamw", "adam"])
def test_a_checkpoint_is_as_large_as_what_its_optimiser_keeps(kind: Any, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "images", 20), tmp_path / "run")
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, kind=kind))
    method = build(Beginning(recipe, None))
    optimizer = build_optimizer(method, recipe)
    for weights in method.parameters():
        weights.grad = torch.zeros_like(weights) if weights.requires_grad else None
    optimizer.step()
    kept = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
    told = checkpoint_size(method, kind) - size_of_state(method)
    assert told == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize(("batch", "parts"), [(2, 1), (4, 2), (12, 6)])
def test_a_trial_asks_for_no_more_than_the_batch_and_for_no_rule_of_it(
    batch: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SwAV's queue is a multiple of the batch, and not of what is tried of it."""
    folder = image_folder(tmp_path / "images", 12)
    recipe = tiny(SwAVConfig, folder, tmp_path / "run", {"queue_size": 12}, batch_size=batch, accumulation=0)
    images, method = open_images(recipe.data), build(Beginning(recipe, None))
    monkeypatch.setattr(step_memory, "SURE", 10**9)
    found = step_memory.footprint(recipe, method, images, CPU)
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: found.of(2))
    assert fitted(recipe, method, images, CPU).accumulation == parts
    assert forecast(replace(recipe, accumulation=1), images, CPU).steps == 2 * (12 // batch)
    odd = replace(recipe, batch_size=5, accumulation=1)
    with pytest.raises(UnfitError, match="queue_size is 12, but must be a multiple of the batch of 5 images"):
        forecast(odd, images, CPU)


@pytest.mark.parametrize("anew", [True, False])
def test_memory_that_runs_out_in_a_trial_names_what_was_tried(
    anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(recipe: Recipe, *_: Any) -> Any:
        if recipe.batch_size == 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return read_batch(recipe, *_)

    monkeypatch.setattr(step_memory, "SURE", 10**12)
    monkeypatch.setattr(step_memory, "read_batch", full)
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "images", 24), tmp_path / "run", batch_size=24)
    recipe = replace(recipe, accumulation=0, grad_checkpointing=anew)
    with pytest.raises(MemoryShortError) as caught:
        run(recipe)
    said = str(caught.value)
    assert said.startswith(
        "out of memory with 16 images of 16 px at a time, which were tried with resnet8_byol in fp32"
    )
    assert "lower --size, or " in said
    assert ("--grad_checkpointing" in said) == (not anew)
    assert ", or take resnet8_byol.own" in said
    assert said.endswith("; --accumulation N starts without this check")
    assert not (tmp_path / "run").exists()


class Shapes:
    """A method whose tensors have shapes and no numbers, so that any batch can be scored."""

    def __init__(self, method: nn.Module) -> None:
        self.mode, self.method = FakeTensorMode(), method.train()
        for module in method.modules():
            for name, weights in module._parameters.items():
                if weights is not None:
                    fake = self.mode.from_tensor(weights.detach())
                    module._parameters[name] = nn.Parameter(fake, weights.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self.mode.from_tensor(buffer)

    def taken(self, count: int, size: int) -> float:
        """Bytes that a step of so many images takes on a GPU in bf16."""
        views = [torch.empty(1, 3, size, size).expand(count, -1, -1, -1) for _ in range(2)]
        with self.mode, counted(self.method) as storages, torch.autocast("cpu", torch.bfloat16):
            self.method([torch.empty_like(self.mode.from_tensor(view)) for view in views])
        method: Any = self.method
        return memory_needed(method, sum(storages.values()), torch.device("cuda"), "sgd")


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [12, 24, 80])
def test_lewel_b_of_the_paper_starts_on_one_gpu(gigabytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its shapes: no GPU is there; the parts that are chosen fit, and parts twice as large would not."""
    recipe = replace(recipes.get("resnet50_lewel_b.in1k_400ep"), precision="bf16")
    method = build(Beginning(recipe, None))
    shapes = Shapes(method)
    limit = OF_A_GPU * gigabytes * GB
    monkeypatch.setattr(step_memory, "fillable_memory", lambda device: limit)

    def taken(part: Any, *_: Any) -> float:
        return shapes.taken(part.batch_size, part.size)

    monkeypatch.setattr(step_memory, "taken", taken)
    images: Any = None
    found = fitted(recipe, method, images, torch.device("cuda"))
    assert found.accumulation > 1
    at_once = recipe.batch_size // found.accumulation
    assert shapes.taken(at_once, recipe.size) <= limit < shapes.taken(2 * at_once, recipe.size)
