"""An optimiser's state by parameter name: tensors for a safetensors file, and plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_backbones.checks import few
from ssl_backbones.runs.manifest import CheckpointError

Named = Iterable[tuple[str, nn.Parameter]]


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Named) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state by parameter name: tensors as "key@name", and as scalars what each parameter has.

    `names` is `module.named_parameters()`. Hyper-parameters are not state: they are functions of progress.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for parameter, name in optimized(optimizer, names).items():
        state = optimizer.state.get(parameter, {})
        scalars[name] = {"tensors": [], "values": {}}
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{key}@{name}"] = value
                scalars[name]["tensors"].append(key)
            elif value is None or isinstance(value, bool | int | float | str):
                scalars[name]["values"][key] = value
            else:
                raise CheckpointError(
                    f"the optimiser keeps a {type(value).__name__} as {key!r} of {name}; only tensors and plain values "
                    "can be saved, so choose an optimiser without it"
                )
    return tensors, scalars


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: Named, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    """Give the optimiser the state that `optimizer_tensors` returned; anything missing or left over is an error."""
    named = optimized(optimizer, names)
    wanted = {f"{key}@{name}" for name, has in scalars.items() for key in has["tensors"]}
    check_same_names("optimiser state of parameters", set(named.values()), set(scalars))
    check_same_names("optimiser tensors", wanted, set(tensors))
    for group in optimizer.param_groups:
        on_device = bool(group.get("capturable") or group.get("fused"))
        for parameter in group["params"]:
            name = named[parameter]
            state = dict(scalars[name]["values"])
            for key in scalars[name]["tensors"]:
                state[key] = placed_like(tensors[f"{key}@{name}"], parameter, key == "step" and not on_device)
            optimizer.state[parameter] = state


def optimized(optimizer: torch.optim.Optimizer, names: Named) -> dict[nn.Parameter, str]:
    """The parameters that an optimiser moves, and their names."""
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = {parameter: name for name, parameter in names if id(parameter) in moved}
    if len(named) != len(moved):
        raise CheckpointError(f"the optimiser moves {len(moved)} parameters and only {len(named)} have a name")
    return named


def check_same_names(what: str, wanted: set[str], found: set[str]) -> None:
    """Raise unless the two are the same, naming what is missing and what is left over."""
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        raise CheckpointError(
            f"the checkpoint's {what} do not fit this model: missing {few(missing, 5) or 'none'}, "
            f"left over {few(extra, 5) or 'none'}; resume with the recipe and the version that saved it"
        )


def placed_like(value: Tensor, parameter: Tensor, as_it_is: bool) -> Tensor:
    """A copy of a state tensor where its parameter lies, and laid out like it; a step counter stays on the CPU."""
    if as_it_is:
        return value.clone()
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
