"""Every method's step on a GPU that is not there: one device for all, and nothing that the device is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cuda
import pytest
import torch
from fake_cuda import CUDA, NOT_REPEATABLE, Waits, steps
from runs import image_folder
from small_methods import CONFIGS, STAND_INS, batch_of, small_method
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_backbones.methods import (
    AlignedConfig,
    BYOLConfig,
    DistilledConfig,
    FlagsConfig,
    LewelBConfig,
    LewelMConfig,
    MethodConfig,
    MoCoV2Config,
    RotNetConfig,
)
from ssl_backbones.models.batch_norm import SplitBatchNorm
from ssl_backbones.models.objective import BarlowTwinsObjective, CosineObjective, VICRegObjective
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.train.prepare import introduce
from ssl_backbones.views import MultiView, Transform, using_engine

pytestmark = pytest.mark.skipif(not fake_cuda.works(), reason=f"torch {torch.__version__} fakes no GPU without one")
LARS = OptimizerConfig("lars", 0.5, weight_decay=1e-4)
every_method = pytest.mark.parametrize("kind", STAND_INS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "images", count=fake_cuda.IMAGES)


def check(kind: type[MethodConfig], data: Path, *asked: Any, **fields: Any) -> None:
    loop, noted = steps(kind, data, *asked, **fields)
    assert loop.step == 1
    assert noted.found == []
    assert fake_cuda.left_behind(loop) == []
    assert noted.products.get("addmm", {"high"}) == {"high"}  # TF32 for the network alone
    assert [name for name in noted.names if NOT_REPEATABLE.fullmatch(name)] == []
    fused = {group.get("fused") for group in loop.optimizer.param_groups}
    assert fused == ({None} if loop.run.optimizer.kind == "lars" else {True})


@every_method
def test_a_step_of_every_method_stays_on_its_device_and_waits_for_nothing(kind: type[MethodConfig], data: Path) -> None:
    """Forward, backward, the watch, LARS, targets and queues; operations with deterministic forms."""
    check(kind, data, LARS)


def made_there() -> Iterator[Transform]:
    """The transforms of all methods that a device can make, those of several views by one policy at a time."""
    with using_engine("device"):
        for transform in (small_method(kind).transform(16) for kind in CONFIGS):
            if isinstance(transform, MultiView):
                yield from (replace(transform, policies=(policy,)) for policy in transform.policies)
            elif "device" in transform.engines:
                yield transform


def steps_of(transform: Transform) -> tuple[Any, ...]:
    """The kind of a transform, and the steps of its policies that all images, some of them or none go through."""
    policies = getattr(transform, "policies", ())
    chances = [(one.flip_p, one.jitter_p, one.grey_p, one.blur_p, one.solarize_p) for one in policies]
    taken = tuple((chance > 0, chance < 1) for one in chances for chance in one)
    return type(transform), taken, tuple((one.interpolation, one.flip_last) for one in policies)


def test_so_do_views_that_are_made_there() -> None:
    transforms = {steps_of(transform): transform for transform in made_there()}.values()
    assert len({type(transform) for transform in transforms}) > 1
    for transform in transforms:
        made, noted = fake_cuda.views_there(transform)
        assert {part.is_cuda for part in made} == {True}, transform
        assert noted.found == [], transform
        assert [name for name in noted.names if NOT_REPEATABLE.fullmatch(name)] == [], transform
        assert noted.names["bmm"], transform


@pytest.mark.parametrize(
    ("optimizer", "fields"),
    [
        (OptimizerConfig("sgd", 0.5), {"accumulation": 2}),
        (OptimizerConfig("adam", 0.5), {}),
        (OptimizerConfig("adamw", 0.5), {}),
        (OptimizerConfig("lars", 0.5, trust="update", backbone_lr=0.1), {}),
    ],
    ids=lambda part: getattr(part, "kind", ""),
)
def test_so_does_every_optimiser(optimizer: OptimizerConfig, fields: dict[str, Any], data: Path) -> None:
    check(RotNetConfig, data, optimizer, **fields)


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        (MoCoV2Config, {"symmetric": True}),
        (MoCoV2Config, {"mask": "own", "key_bn": "ema"}),
        pytest.param(BYOLConfig, {"target_bn": "sync"}, marks=pytest.mark.slow),
        pytest.param(LewelBConfig, {"alignment": "random", "groups": 16}, marks=pytest.mark.slow),
        pytest.param(LewelMConfig, {"symmetric": True, "mask": "own"}, marks=pytest.mark.slow),
        pytest.param(LewelMConfig, {"aligned_negatives": "other_images_same_map"}, marks=pytest.mark.slow),
        pytest.param(LewelMConfig, {"aligned_negatives": "everything", "key_bn": "sync"}, marks=pytest.mark.slow),
        pytest.param(FlagsConfig, {"passes": "together", "mask": "own"}, marks=pytest.mark.slow),
        pytest.param(FlagsConfig, {"mask": "class", "enqueue": "first"}, marks=pytest.mark.slow),
        pytest.param(DistilledConfig, {"dense_weight": 1.0}, marks=pytest.mark.slow),
        pytest.param(AlignedConfig, {"objective": CosineObjective()}, marks=pytest.mark.slow),
        pytest.param(AlignedConfig, {"objective": BarlowTwinsObjective()}, marks=pytest.mark.slow),
        pytest.param(AlignedConfig, {"objective": VICRegObjective()}, marks=pytest.mark.slow),
    ],
)
def test_so_do_other_choices(kind: type[MethodConfig], choices: dict[str, Any], data: Path) -> None:
    """In the forms that a deterministic run takes, of which torch chooses some in Python."""
    torch.use_deterministic_algorithms(True)
    try:
        check(kind, data, LARS, choices)
    finally:
        torch.use_deterministic_algorithms(False)


def test_groups_of_batch_normalisation_are_one_call_a_layer(data: Path) -> None:
    loop, noted = steps(MoCoV2Config, data, LARS, {"bn_splits": 8})
    layers = sum(isinstance(module, SplitBatchNorm) for module in loop.method.modules())
    calls = {name: count for name, count in noted.names.items() if "batch_norm" in name}
    forward = sum(count for name, count in calls.items() if "backward" not in name)
    backward = sum(count for name, count in calls.items() if "backward" in name)
    assert (forward, backward) == (layers, layers / 2)  # the key encoder has no backward pass


def test_a_run_says_that_one_gpu_of_several_is_used(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, _ = steps(BYOLConfig, data, LARS)
    for device, processes, gpus in [("cuda", 1, 2), ("cuda", 1, 8), ("cuda", 1, 1), ("cuda", 2, 2), ("cpu", 1, 2)]:
        loop.accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=gpus: there)
        said: list[str] = []
        introduce(loop, SimpleNamespace(say=said.append), None)  # type: ignore[arg-type]
        told = [line for line in said if "GPUs" in line]
        assert len(told) == (device == "cuda" and processes == 1 < gpus)
        for line in told:
            assert line.startswith(f"One of {gpus} GPUs is used: accelerate launch --multi_gpu --num_processes {gpus} ")


@pytest.mark.parametrize(
    ("work", "noted"),
    [
        (lambda x: x.cpu(), "_to_copy"),
        (lambda x: torch.randperm(4).to(x.device), "_to_copy"),
        (lambda x: torch.zeros(4).copy_(x, non_blocking=True), "copy_"),
        (lambda x: x.equal(x + 1), "equal"),
        (lambda x: x.__setitem__(x > 0, x[:2]), "counts a mask"),
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "counts a mask"),
        (lambda x: x.masked_fill_(x > 0, 0.0).add_(torch.ones((), device="cpu")), None),
        (lambda x: torch.zeros(4).to(x.device, non_blocking=True), None),
    ],
)
def test_what_is_waited_for_is_noted(work: Callable[[Tensor], Any], noted: str | None) -> None:
    with FakeTensorMode(), Waits() as waits:
        x = torch.empty(4, device=CUDA)
        try:
            work(x)
        except RuntimeError:  # numbers that a fake tensor does not have
            assert waits.found
    assert [noted in found for found in waits.found] == ([] if noted is None else [True])


def test_two_devices_in_one_operation_are_refused() -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.empty(4, device=CUDA) + torch.empty(4)


@pytest.mark.slow
@every_method
def test_every_method_compiles_as_one_graph(kind: type[MethodConfig]) -> None:
    """Forward and backward, traced by dynamo and autograd; the code of a device is not made of it."""
    plain, method = small_method(kind), small_method(kind)
    batch, _ = batch_of(method), batch_of(plain)  # which makes its data known to it
    torch.compiler.reset()
    method.compile(fullgraph=True, backend="aot_eager")
    losses, gradients = [], []
    for one in (plain, method):
        torch.manual_seed(0)
        loss = one(batch)["loss"]
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([value.grad.flatten() for value in one.parameters() if value.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
