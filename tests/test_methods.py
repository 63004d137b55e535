"""The promises of every method, whatever its equations: parametrised over all that the package exports."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from small_methods import CONFIGS, Drawn, batch_of, converted, features_of, mined, small_config, small_method
from torch import Tensor, nn

from ssl_backbones.data import Batches, Images, Request
from ssl_backbones.data.placement import MEMORY_FORMATS, in_layout, mapped
from ssl_backbones.methods import (
    Method,
    MethodConfig,
)
from ssl_backbones.train.guards import StepUndo, all_finite

every_method = pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)


def state(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def step(method: Method, optimizer: torch.optim.Optimizer, seed: int, progress: float) -> float:
    torch.manual_seed(seed)
    loss = method(batch_of(method, seed=seed))["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    method.on_step_end(progress)
    return loss.item()


def sgd(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD([value for value in method.parameters() if value.requires_grad], lr=0.05, momentum=0.9)


def gradient(kind: type[MethodConfig], rows: np.ndarray) -> Tensor:
    """The gradient of a new method's loss on some of eight images, as one vector; batch statistics stand still."""
    method = small_method(kind).double()
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    dataset = method.dataset(mined(Drawn(8)), 16, 0)
    batch = converted(dataset.on_device(dataset[Request(0, rows)].content), torch.float64)
    torch.manual_seed(0)
    features = torch.randn(8, features_of(method), dtype=torch.float64)
    method.on_epoch_start(lambda: features[[0, 0, 0, 0, 4, 5, 6, 7]])  # clusters of unlike sizes, whatever torch draws
    parameters = [value for value in method.parameters() if value.requires_grad]
    return torch.cat([value.flatten() for value in torch.autograd.grad(method(batch)["loss"], parameters)])


def test_something_is_exported() -> None:
    assert len(CONFIGS) >= 4


@every_method
class TestEveryMethod:
    def test_a_batch_gives_a_loss_that_moves_what_is_trained_and_no_other_state(self, kind: type[MethodConfig]) -> None:
        """A forward pass may move batch statistics; targets and queues wait for the end of the step."""
        method = small_method(kind)
        batch = batch_of(method)
        before = state(method)
        scalars = method(batch)
        assert scalars["loss"].shape == ()
        assert torch.isfinite(scalars["loss"])
        graphs = [name for name, value in scalars.items() if isinstance(value, Tensor) and value.requires_grad]
        assert graphs == ["loss"], "what is logged holds a graph"
        scalars["loss"].backward()
        for name, parameter in method.backbone.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        without = [name for name, value in method.named_parameters() if value.requires_grad and value.grad is None]
        assert without == [], "DistributedDataParallel waits for those that get no gradient"
        after = state(method)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        assert [name for name in moved if not name.endswith(statistics)] == [], "moved before the end of the step"

    def test_a_step_that_a_scaler_leaves_out_leaves_nothing_behind(self, kind: type[MethodConfig]) -> None:
        """Infinite images: statistics are put back, the queue never sees their keys, and training goes on as if new."""
        overflowing, other = small_method(kind), small_method(kind)
        undo = StepUndo(overflowing, scaled=True)
        batch, other_batch = batch_of(overflowing), batch_of(other)
        before = state(overflowing)
        undo.begin()
        infinite = mapped(lambda part: part * math.inf if part.is_floating_point() else part, batch)
        overflowing(infinite)["loss"].backward()
        overflowing.zero_grad()
        assert not all_finite(overflowing)
        undo.undo()
        assert all(torch.equal(value, before[name]) for name, value in overflowing.state_dict().items())
        for method, shown in ((overflowing, batch), (other, other_batch)):
            torch.manual_seed(2)
            method(shown)["loss"].backward()
            method.on_step_end(0.5)
        assert all(torch.equal(value, state(other)[name]) for name, value in overflowing.state_dict().items())

    def test_the_chance_is_the_loss_of_a_network_that_tells_nothing_apart(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind)
        chance = method(batch_of(method)).get("chance")
        if chance is None:
            pytest.skip("its loss has no level of chance")
        with torch.no_grad():  # embeddings without direction are equally like all others
            for name, value in method.named_parameters():
                if not name.startswith("backbone."):
                    value.zero_()
        assert method(batch_of(method))["loss"].item() == pytest.approx(float(chance), rel=1e-3)

    def test_accumulation_is_as_exact_as_it_says(self, kind: type[MethodConfig]) -> None:
        """The gradient of a batch against that of its halves, with batch statistics out of the way."""
        whole, *halves = (gradient(kind, rows) for rows in (np.arange(8), np.arange(4), np.arange(4, 8)))
        apart = ((whole - sum(halves) / 2).norm() / whole.norm()).item()
        assert apart < 1e-9 if small_method(kind).accumulation_is_exact else apart > 1e-4

    def test_a_run_can_be_cut_in_two(self, kind: type[MethodConfig]) -> None:
        """The state_dict and the optimiser hold all there is: a copy made from them goes on alike, bit for bit."""
        whole = small_method(kind)
        optimizer = sgd(whole)
        for number in range(2):
            step(whole, optimizer, seed=number, progress=number / 4)
        other = small_method(kind, seed=99)
        batch_of(other)  # makes its data known to it, as the loop does before it restores anything
        other.load_state_dict(whole.state_dict())
        other_optimizer = sgd(other)
        other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for number in range(2, 4):
            losses = [
                step(*pair, seed=number, progress=number / 4) for pair in ((whole, optimizer), (other, other_optimizer))
            ]
            assert losses[0] == losses[1]
        for name, value in whole.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name

    def test_a_small_step_down_the_gradient_lowers_the_loss(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind).double()
        losses = []
        for _ in range(2):
            torch.manual_seed(3)
            loss = method(batch_of(method, dtype=torch.float64))["loss"]
            losses.append(loss.item())
            method.zero_grad()
            loss.backward()
            moved = [parameter for parameter in method.parameters() if parameter.grad is not None]
            length = torch.stack([parameter.grad.norm() for parameter in moved]).norm()
            with torch.no_grad():
                for parameter in moved:
                    parameter -= 1e-4 / max(1, length) * parameter.grad
        assert losses[1] < losses[0]

    def test_bfloat16_stays_near_single_precision(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind)
        torch.manual_seed(0)
        exact = method(batch_of(method))["loss"].item()
        method = small_method(kind)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = method(batch_of(method))["loss"]
        rounded.backward()
        assert rounded.item() == pytest.approx(exact, rel=0.03, abs=0.02)  # logits are cosines times up to ten
        method.on_step_end(0.5)
        with torch.autocast("cpu", torch.bfloat16):  # with what the step left in queues, memories and targets
            assert method(batch_of(method, seed=2))["loss"].isfinite()

    def test_channels_last_gives_the_same_loss(self, kind: type[MethodConfig]) -> None:
        losses = []
        for name, layout in MEMORY_FORMATS.items():
            method = small_method(kind).double().to(memory_format=layout)
            torch.manual_seed(3)
            batch = in_layout(batch_of(method, dtype=torch.float64), name)
            losses.append(method(batch)["loss"].item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-10)

    def test_images_become_a_batch(self, kind: type[MethodConfig], small_images: list[Image.Image]) -> None:
        """From decoded images to the loss, by the method's own transform and dataset; both pickle for workers."""

        class Six(Images):
            keys = tuple("abcdef")
            labels = np.array([0, 1, 2, 0, 1, 2])
            classes = ("x", "y", "z")
            fingerprint = "six"

            def __getitem__(self, index: int) -> Image.Image:
                return small_images[index]

        method = small_method(kind)
        assert pickle.loads(pickle.dumps(method.transform(16))) == method.transform(16)
        dataset: Batches = method.dataset(mined(Six()), 16, seed=5)
        batch = dataset[Request(epoch=2, indices=np.arange(6))]
        again = dataset[Request(epoch=2, indices=np.arange(6))]
        torch.testing.assert_close(batch.content, again.content, rtol=0, atol=0)
        assert torch.isfinite(method(dataset.on_device(batch.content))["loss"])

    def test_the_configuration_is_frozen_and_small(self, kind: type[MethodConfig]) -> None:
        config = small_config(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.hidden_dim = 3  # type: ignore[attr-defined,misc]
