"""An optimiser's state goes through a checkpoint by the names of its parameters, and nothing of it is lost unsaid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_checkpoints import equal
from torch import Tensor, nn

from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.runs.optimizer_state import load_optimizer, optimizer_tensors
from ssl_backbones.runs.saving import save

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 2))
    layers[0].to(memory_format=torch.channels_last)
    layers[3].requires_grad_(False)
    return layers


def learn(layers: nn.Module, optimizer: torch.optim.Optimizer, times: int) -> None:
    for time in range(times):
        optimizer.zero_grad()
        layers(torch.linspace(-1, 1 + time, 96).reshape(2, 3, 4, 4)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 2])
def test_an_optimizer_goes_on_where_it_was(tmp_path: Path, kind: str, before: int) -> None:
    never_stopped = network()
    optimizer = OPTIMIZERS[kind]([*never_stopped.parameters()])
    learn(never_stopped, optimizer, before)
    tensors, scalars = optimizer_tensors(optimizer, never_stopped.named_parameters())
    save(tmp_path, 1, {"method": never_stopped.state_dict(), "optimizer": tensors}, {"optimizer": scalars})
    learn(never_stopped, optimizer, 2)

    resumed = network()
    fresh = OPTIMIZERS[kind]([{"params": [p]} for p in resumed.parameters()])
    loaded = load_latest(tmp_path)
    assert loaded is not None
    resumed.load_state_dict(loaded.tensors["method"])
    load_optimizer(fresh, resumed.named_parameters(), loaded.tensors["optimizer"], loaded.scalars["optimizer"])
    learn(resumed, fresh, 2)
    assert equal({"": dict(resumed.state_dict())}, {"": dict(never_stopped.state_dict())})
    if kind == "sgd":
        buffer = fresh.state[resumed[0].weight]["momentum_buffer"]
        assert buffer.is_contiguous(memory_format=torch.channels_last)


def test_a_missing_or_extra_entry_of_an_optimizer_is_named() -> None:
    layers = network()
    optimizer = OPTIMIZERS["sgd"](layers.parameters())
    learn(layers, optimizer, 1)
    named = list(layers.named_parameters())
    tensors, scalars = optimizer_tensors(optimizer, named)
    missing = {key: value for key, value in tensors.items() if key != "momentum_buffer@0.weight"}
    with pytest.raises(CheckpointError, match=r"missing momentum_buffer@0\.weight, left over none"):
        load_optimizer(optimizer, named, missing, scalars)
    with pytest.raises(CheckpointError, match=r"missing none, left over momentum_buffer@odd"):
        load_optimizer(optimizer, named, tensors | {"momentum_buffer@odd": torch.ones(1)}, scalars)
    fewer = {name: has for name, has in scalars.items() if name != "2.bias"}
    with pytest.raises(CheckpointError, match=r"missing 2\.bias, left over none"):
        load_optimizer(optimizer, named, tensors, fewer)
    with pytest.raises(CheckpointError, match=r"moves 6 parameters and only 5 have a name"):
        optimizer_tensors(optimizer, named[1:])


def test_a_state_that_is_neither_tensor_nor_number_is_refused() -> None:
    layers = nn.Linear(2, 2)
    optimizer = torch.optim.LBFGS(layers.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = layers(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(CheckpointError, match="keeps a list as"):
        optimizer_tensors(optimizer, layers.named_parameters())
