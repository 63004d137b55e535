"""One process with a whole batch, and two with half of it each; one part of a batch, and two after one another."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from small_methods import CONFIGS, STAND_INS, STANDING, Drawn, converted, features_of, mined, small_method
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import run_two_processes

from ssl_backbones.data import Request
from ssl_backbones.methods import Method, MethodConfig
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.shares import own_places

BATCH, STEPS = 8, 2
SYNCHRONISED = {"target_bn": "sync", "key_bn": "sync", "sync_bn": True}
NAMES = {kind.name: kind for kind in CONFIGS}


def synchronised(kind: type[MethodConfig]) -> Method:
    """A method all of whose batch statistics are those of the whole batch, in double precision."""
    method = small_method(kind, **SYNCHRONISED, components=4)
    synchronise_batch_norm(method)
    return method.double()


def content(method: Method, step: int, indices: np.ndarray) -> Any:
    """The method's input for some images of a step's batch."""
    dataset = method.dataset(mined(Drawn(BATCH, step)), 16, 5)
    return converted(dataset.on_device(dataset[Request(0, indices)].content), torch.float64)


def begin(method: Method) -> None:
    """An epoch's start, with features in groups that lie apart: clusters of three sizes, for those who look for any."""
    method.dataset(mined(Drawn(BATCH)), 16, 5)
    torch.manual_seed(0)
    unit = torch.eye(features_of(method))
    features = unit[[0, 1, 0, 2, 0, 1, 3, 3]] + 1e-3 * unit[8:16]
    method.on_epoch_start(lambda: features[own_places(BATCH)])


def train(kind: type[MethodConfig], rank: int, parts: int) -> list[Any]:
    """Two steps on this rank's part of the batches: the losses over all ranks, and each step's gradients."""
    method = synchronised(kind)
    begin(method)
    wrapped: nn.Module = method
    if parts > 1:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped = DistributedDataParallel(method, broadcast_buffers=False)
    trained = {name: weights for name, weights in method.named_parameters() if weights.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.05, momentum=0.9)
    losses, gradients = [], []
    for step in range(STEPS):
        torch.manual_seed(step)
        loss = wrapped(content(method, step, np.arange(BATCH).reshape(parts, -1)[rank]))["loss"]
        optimizer.zero_grad()
        loss.backward()
        gradients.append({name: weights.grad.clone() for name, weights in trained.items() if weights.grad is not None})
        optimizer.step()
        method.on_step_end(step / STEPS)
        mean = loss.detach().clone()
        if parts > 1:
            torch.distributed.all_reduce(mean)
        losses.append(mean.item() / parts)
    return [losses, gradients]


def on_a_rank(rank: int, names: list[str]) -> dict[str, Any]:
    return {name: train(NAMES[name], rank, parts=2) for name in names}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between gradients of the same names."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize(
    "names", [sorted(STANDING), pytest.param(sorted(NAMES.keys() - STANDING), marks=pytest.mark.slow)], ids=len
)
def test_two_processes_compute_what_one_does(names: list[str]) -> None:
    ranks = run_two_processes(on_a_rank, names)
    for name in names:
        losses, gradients = train(NAMES[name], rank=0, parts=1)
        assert max(furthest(*both) for both in zip(ranks[0][name][1], ranks[1][name][1], strict=True)) < 1e-12, name
        for rank in ranks:
            assert rank[name][0] == pytest.approx(losses, abs=1e-6), name
            for there, here in zip(rank[name][1], gradients, strict=True):
                assert furthest(there, here) < 1e-6, name
                assert max(gradient.abs().max().item() for gradient in here.values()) > 1e-4, name


def gradients_of(kind: type[MethodConfig], parts: int) -> dict[str, Tensor]:
    """The gradients of a batch scored in so many parts, with statistics that do not depend on the parts."""
    method = synchronised(kind)
    begin(method)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for indices in np.arange(BATCH).reshape(parts, -1):
        torch.manual_seed(0)
        (method(content(method, 0, indices))["loss"] / parts).backward()
    return {name: weights.grad for name, weights in method.named_parameters() if weights.grad is not None}


@pytest.mark.parametrize("kind", STAND_INS)
def test_parts_after_one_another_are_the_batch_where_images_are_scored_apart(kind: type[MethodConfig]) -> None:
    difference = furthest(gradients_of(kind, 1), gradients_of(kind, 2))
    assert difference < 1e-6 if small_method(kind).accumulation_is_exact else difference > 1e-6
