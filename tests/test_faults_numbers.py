"""Numbers gone wrong, memory that runs out, images that cannot be read: named, and nothing spoilt."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from runs import elsewhere, image_folder, outcome, run, stop, tiny
from small_methods import small_method, views
from whole_runs import data

from ssl_backbones import create_model
from ssl_backbones.data import TooManyUnreadableError
from ssl_backbones.data.placement import in_layout
from ssl_backbones.host_memory import is_out_of_memory
from ssl_backbones.methods import BYOL, BYOLConfig, LewelBConfig, MethodConfig, MoCoV2Config, SimCLRConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Checkpoints, OptimizerConfig
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.runs.writer import HostCopy
from ssl_backbones.train import prepare as prepare_module
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.guards import SKIPS, FiniteWatch, MemoryShortError, NotFiniteError, memory_advice
from ssl_backbones.train.judge import Measured
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.monitor import Monitor

__all__ = ["data"]

CPU = torch.device("cpu")


# What the watch sees


@given(st.lists(st.sampled_from(["good", "loss", "gradient"]), max_size=12), st.integers(0, 3))
def test_the_first_step_beyond_what_is_allowed_is_noted(steps: list[str], allowed: int) -> None:
    watch, in_a_row, expected = FiniteWatch(CPU, scaled=False), 0, None
    watch.allowed = allowed
    for number, kind in enumerate(steps):
        loss = torch.tensor(math.nan if kind == "loss" else 1.0)
        gradient = torch.tensor([1.0, math.inf if kind == "gradient" else 1e18])
        watch.observe(number, [torch.tensor(2.0), loss], [gradient, None])
        in_a_row = 0 if kind == "good" else in_a_row + 1
        if expected is None and in_a_row > allowed:
            expected = (number, kind)
    found = watch.trouble()
    assert (found is None) == (expected is None)
    if found and expected:
        assert found[0] == expected[0]
        assert expected[1] in found[1]
    resumed = FiniteWatch(CPU, scaled=False)
    resumed.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert torch.equal(resumed.noted, watch.noted)


@contextlib.contextmanager
def poisoned(kind: str, steps: range) -> Iterator[None]:
    """Losses or gradients of some steps that are no numbers; the weights stay sound until the optimiser moves."""
    backward = Accelerator.backward
    made = iter(range(10**6))

    def spoilt(self: Accelerator, loss: torch.Tensor, **more: Any) -> None:
        wrong = next(made) in steps
        backward(self, loss * math.nan if wrong and kind == "loss" else loss, **more)
        if wrong and kind == "gradient":
            for group in self._optimizers[0].param_groups:
                group["params"][0].grad.view(-1)[0] = math.inf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "backward", spoilt)
        yield


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_the_step_its_images_and_the_last_good_checkpoint_are_named(kind: str, data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run", log_every=3, checkpoints=Checkpoints(2, 0))
    shown: list[list[str]] = []
    descend = Loop.descend

    def watch(loop: Loop, batches: Any) -> None:
        shown.append(loop.loader.order.keys_of(loop.step, loop.images.keys))
        descend(loop, batches)

    with pytest.MonkeyPatch.context() as patch, poisoned(kind, range(2, 3)):
        patch.setattr(Loop, "descend", watch)
        with pytest.raises(NotFiniteError) as caught:
            run(recipe)
    assert f"in step 3, on {', '.join(shown[2][:3])} and 5 more" in str(caught.value)
    assert str(caught.value).endswith("step-00000002")
    assert "gradients" in str(caught.value)
    saved = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == 2
    assert all(tensor.isfinite().all() for named in saved.tensors.values() for tensor in named.values())
    run(recipe)


def test_the_images_named_are_those_of_the_batch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    named: list[list[str]] = []
    descend = Loop.descend

    def watch(loop: Loop, batches: Any) -> None:
        order = loop.loader.order
        epoch, position = divmod(loop.step, order.steps_per_epoch)
        asked.append([int(at) for request in order.requests(epoch, position) for at in request.indices][:8])
        named.append(order.keys_of(loop.step, loop.images.keys))
        keys.append(loop.images.keys)
        descend(loop, batches)

    keys: list[Any] = []
    monkeypatch.setattr(Loop, "descend", watch)
    run(tiny(BYOLConfig, data, tmp_path / "run", accumulation=2))
    assert named == [[keys[0][at] for at in indices] for indices in asked]


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient scaler, as fp16 has one; no CPU trains in that."""
    accelerator_of = prepare_module.accelerator_of

    def scaled(*args: Any) -> Accelerator:
        accelerator = accelerator_of(*args)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        return accelerator

    monkeypatch.setattr(prepare_module, "accelerator_of", scaled)


def test_a_scaler_may_leave_steps_out_and_they_are_counted(scaling: None, data: Path, tmp_path: Path) -> None:
    with poisoned("gradient", range(1, 3)):
        path = run(tiny(BYOLConfig, data, tmp_path / "run")).path
    assert [line["skipped"] for line in read_log(path / "log.jsonl") if "loss" in line] == [1, 2, 2]


def test_an_overflow_under_a_scaler_leaves_the_run_finite(
    scaling: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of the first two steps are infinite; neither target, nor queue, nor the log has heard of them."""
    made = iter(range(10**6))

    def infinite(content: Any, layout: Any) -> Any:
        return in_layout([view * math.inf if next(made) < 4 else view for view in content], layout)

    monkeypatch.setattr("ssl_backbones.train.loop.in_layout", infinite)
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", {"symmetric": True}, checkpoints=Checkpoints(2, 0, keep=9))
    path = run(recipe).path
    assert [line["skipped"] for line in read_log(path / "log.jsonl") if "skipped" in line] == [2, 2, 2]
    assert all(math.isfinite(line.get("loss", 0.0)) for line in read_log(path / "log.jsonl"))
    saved = [checkpoint.read(step, 0, ()) for step in sorted((path / "checkpoints").glob("step-*"))]
    assert len(saved) == 4
    for tensors in (found.tensors for found in saved):
        assert all(tensor.isfinite().all() for part in tensors.values() for tensor in part.values())


@pytest.mark.parametrize("name", ["key_encoder.backbone.bn1.running_var", "queue.keys", "head.0.weight"])
def test_a_poisoned_state_is_not_saved(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descend = Loop.descend

    def poison(loop: Loop, batches: Any) -> None:
        descend(loop, batches)
        if loop.step == 3:
            loop.method.state_dict()[name].view(-1)[0] = math.inf

    monkeypatch.setattr(Loop, "descend", poison)
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", checkpoints=Checkpoints(1, 0, keep=9), log_every=9)
    with pytest.raises(NotFiniteError, match=r"weights or statistics were not finite after step 3: .*step-00000002$"):
        run(recipe)
    assert sorted(step.name for step in (tmp_path / "run" / "checkpoints").iterdir())[-1] == "step-00000002"


def test_a_scaler_that_leaves_out_too_many_steps_is_stopped(
    scaling: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_backbones.train.guards.SKIPS", 2)
    with (
        poisoned("gradient", range(1, 6)),
        pytest.raises(NotFiniteError, match="for 3 steps in a row, the last step 4, on"),
    ):
        run(tiny(BYOLConfig, data, tmp_path / "run"))
    assert SKIPS == 20


# Half precision


def losses_in(precision: str, kind: type[MethodConfig], steps: int = 200) -> torch.Tensor:
    """The losses (steps,) of a small method on eight batches over and over."""
    method = small_method(kind)
    optimizer = torch.optim.SGD([value for value in method.parameters() if value.requires_grad], lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=precision == "fp16")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = method(views(seed=step % 8))["loss"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        method.on_step_end(step / steps)
        losses.append(loss.detach().float())
    return torch.stack(losses)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", [BYOLConfig, MoCoV2Config, LewelBConfig, SimCLRConfig], ids=lambda kind: kind.__name__)
def test_half_precision_stays_near_single(kind: type[MethodConfig], precision: str) -> None:
    """Apart by less than 10 % of the largest loss, on average over the first 20 steps and over the last 50."""
    single, half = losses_in("fp32", kind), losses_in(precision, kind)
    assert half.isfinite().all()
    for part in (slice(20), slice(-50, None)):
        assert (half[part].mean() - single[part].mean()).abs() < 0.10 * single.abs().max()
    assert not torch.equal(single, half)


# Memory


def crowded(step: int, error: Exception) -> Callable[..., None]:
    """A step that takes more memory than there is."""
    descend = Loop.descend

    def fall(loop: Loop, batches: Any) -> None:
        if loop.step == step:
            raise error
        descend(loop, batches)

    return fall


SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_memory_of_a_gpu_runs_out_beside_its_allocator_too(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(ValueError(words))


@pytest.mark.parametrize(
    ("place", "name", "words"),
    [
        (
            safetensors.torch,
            "save",
            r"^the checkpoint of step 0 could not be written, as .* memory ran out: .* [\d.]+ MB",
        ),
        (HostCopy, "of", r"^the checkpoint of step 0 could not be written, as .* memory ran out: .* [\d.]+ MB"),
        (Monitor, "judge", "^out of memory while images were looked at after step 0, 256 at a time: "),
        (BYOL, "on_epoch_start", "^out of memory while images were looked at after step 0, 256 at a time: "),
    ],
)
@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_memory_that_runs_out_beside_the_steps_is_no_matter_of_the_batch(
    place: Any, name: str, words: str, error: Exception, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(place, name, full)
    with pytest.raises(Refusal, match=words) as caught:
        run(tiny(BYOLConfig, data, tmp_path / "run"))
    assert "batch" not in str(caught.value)
    assert "--out" not in str(caught.value)
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_memory_that_runs_out_names_the_batch_and_what_to_change(
    error: Exception, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "descend", crowded(0, error))
        with pytest.raises(MemoryShortError) as caught:
            run(recipe)
    for words in ("a batch of 8 images of 16 px in fp32", "raise --accumulation from 1 to 2", "lower --batch_size"):
        assert words in str(caught.value)
    run(dataclasses.replace(recipe, accumulation=2))


def test_advice_to_accumulate_says_where_it_is_another_loss() -> None:
    recipe = tiny(SimCLRConfig, Path("data"), Path("run"))
    said = memory_advice(recipe, recipe.method.build(create_model("resnet8", num_classes=0)), "fp32")
    assert "raise --accumulation from 1 to 2, which changes this method's loss, or" in said


def test_memory_that_runs_out_in_the_trial_is_told_alike(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    for trial in ("read_batch", "try_step", "choose"):
        with monkeypatch.context() as patch:
            patch.setattr(prepare_module, trial, full)
            with pytest.raises(MemoryShortError, match="out of memory with a batch of 8"):
                run(tiny(BYOLConfig, data, tmp_path / "run"))


def test_other_errors_of_torch_are_left_as_they_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loop, "descend", crowded(0, RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tiny(BYOLConfig, data, tmp_path / "run"))


# Images of the validation, the best checkpoint, a recipe put right


def test_validation_images_that_cannot_be_read_are_named_and_counted(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = image_folder(tmp_path / "asked", 10)
    (asked / "bag" / "torn.jpg").write_bytes(hostile.jpeg()[:300])
    recipe = tiny(BYOLConfig, data, tmp_path / "run", validation=str(asked))
    stop(recipe, 2)
    assert len([record for record in caplog.records if "torn.jpg" in record.getMessage()]) == 1
    results = outcome(run(recipe).path)["results"]
    assert (results["unreadable"], results["unreadable_beside"]) == ([], ["bag/torn.jpg"])
    (asked / "hat" / "torn.jpg").write_bytes(b"")
    with pytest.raises(TooManyUnreadableError, match="2 of 12 images cannot be read"):
        run(elsewhere(recipe, tmp_path / "again"))


def test_the_best_checkpoint_is_kept_beside_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.4, 0.2])

    def judge(monitor: Monitor, bench: Bench) -> Measured:
        correct = torch.arange(10) < round(10 * next(scores))
        return Measured({"std": 1.0, "rank": 2.0, "knn": correct.double().mean().item()}, correct)

    monkeypatch.setattr(Monitor, "judge", judge)
    path = run(tiny(BYOLConfig, data, tmp_path / "run", epochs=4, checkpoints=Checkpoints(5, 0))).path
    left = sorted(folder.name for folder in (path / "checkpoints").glob("step-*"))
    assert left == ["step-00000003", "step-00000010", "step-00000012"]
    assert outcome(path)["results"]["best_checkpoint"] == {"step": 3, "score": pytest.approx(0.5)}


def test_a_recipe_put_right_takes_the_folder_of_one_that_failed(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tiny(BYOLConfig, data, tmp_path / "run", optimizer=OptimizerConfig("sgd", 1e30, "absolute"))
    wrong = dataclasses.replace(wrong, schedule=dataclasses.replace(wrong.schedule, warmup_epochs=0))
    with pytest.raises(NotFiniteError):
        run(wrong)
    right: Recipe = tiny(BYOLConfig, data, tmp_path / "run")
    run(right)
    assert "ended before it had trained anything: begun anew (optimizer.lr" in caplog.text
    run(elsewhere(right, tmp_path / "whole"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    with pytest.raises(RunFolderError, match="holds the run of another recipe"):
        run(wrong)
