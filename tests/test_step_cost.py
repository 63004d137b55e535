"""The cost of each method's step: passes, copies, calls, and no wait for the device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from small_methods import CONFIGS, STAND_INS, batch_of, small_method
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_backbones.data.placement import in_layout
from ssl_backbones.methods import LewelBConfig, Method, MethodConfig
from ssl_backbones.models.ema import EMA
from ssl_backbones.optimizers import LARS

PASSES = {
    "aligned": (2, 0),
    "barlow_twins": (2, 0),
    "byol": (2, 2),
    "deep_infomax": (1, 0),
    "deepcluster": (1, 0),
    "densecl": (1, 1),
    "dino": (2, 1),
    "distilled": (1, 0),
    "flags": (1, 5),
    "instdisc": (1, 0),
    "lewel_b": (2, 2),
    "lewel_m": (1, 1),
    "lewel_nnclr": (2, 0),
    "lewel_swav": (2, 0),
    "moco_v2": (1, 1),
    "nnclr": (2, 0),
    "patch_relnet": (1, 0),
    "patch_rotnet": (1, 0),
    "pcl": (1, 1),
    "pixpro": (2, 2),
    "resim": (1, 1),
    "rob": (2, 0),
    "rotnet": (1, 0),
    "simclr": (1, 0),
    "simsiam": (2, 0),
    "supcon": (1, 0),
    "supervised": (1, 0),
    "swav": (2, 0),
    "vicreg": (2, 0),
    "vicregl": (2, 0),
}
"""Passes of the network and of its slow copy by the equations; for a method that is not here, one of each per view."""
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_consecutive"}
UPLOADING = {"lift_fresh", "lift_fresh_copy"}
"""The makers of tensors from Python numbers: on a GPU, by a copy that is waited for."""


class Calls(TorchDispatchMode):
    """Counts operations, and notes those that would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count[name] += 1
        picked = args[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in picked)
        if name in WAITING | UPLOADING or masked:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def passes(method: Method, batch: Any) -> Counter[str]:
    """The number of runs of each backbone's first convolution in a forward."""
    found: Counter[str] = Counter()
    for path, module in method.named_modules():
        if path.endswith("backbone"):
            first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
            first.register_forward_hook(lambda *_, path=path: found.update([path]))
    method(batch)
    return found


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_no_more_passes_than_the_equations_ask_for(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    batch = batch_of(method)
    found = passes(method, batch)
    if kind.name in PASSES:
        assert (found.pop("backbone"), found.total()) == PASSES[kind.name]
    else:
        assert max(found.values()) <= (len(batch) if isinstance(batch, list) else 1)


@pytest.mark.parametrize("kind", STAND_INS)
def test_a_step_waits_for_nothing(kind: type[MethodConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    method = small_method(kind)
    batch = batch_of(method)
    optimizer = LARS([value for value in method.parameters() if value.requires_grad], lr=0.1)
    for name in ("tolist", "numpy", "item"):
        monkeypatch.setattr(Tensor, name, forbidden)
    for step in range(2):
        with Calls() as calls:
            scalars = method(batch)
            scalars["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            method.on_step_end(step / 2)
        assert calls.waits == []


def forbidden(tensor: Tensor, *_: Any) -> Any:
    raise AssertionError("a step reads a tensor")


def test_what_waits_is_found() -> None:
    """The watch itself sees each way that a read comes about."""
    tensor = torch.arange(3)
    for read in (
        lambda: bool(tensor[0]),
        lambda: float(tensor[0]),
        lambda: tensor[tensor > 1],
        lambda: tensor.nonzero(),
        lambda: tensor.new_tensor(2.0),
        lambda: torch.tensor([1.0, 2.0]),
    ):
        with Calls() as calls:
            read()
        assert calls.waits


@pytest.mark.parametrize("kind", STAND_INS)
def test_channels_stay_last_through_the_backbones(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    method.to(memory_format=torch.channels_last)
    found: list[Tensor] = []
    for path, module in method.named_modules():
        if path.endswith("backbone"):
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | nn.modules.batchnorm._BatchNorm):
                    layer.register_forward_hook(lambda module, args, output: found.append(output))
    method(in_layout(batch_of(method, size=48), "channels_last"))
    assert len(found) > 10
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in found)


def test_the_rows_of_a_channels_last_map_are_a_view() -> None:
    """Only the mean is copied in front of the coupled head's input: one product over all rows."""
    method = small_method(LewelBConfig)
    feature_map = torch.randn(2, 64, 6, 6).contiguous(memory_format=torch.channels_last)
    pixels = feature_map.flatten(2).transpose(1, 2)
    assert pixels.is_contiguous()
    assert pixels.data_ptr() == feature_map.data_ptr()
    products: list[torch.Size] = []
    method.head.projector.layers[0].register_forward_hook(lambda module, args, output: products.append(output.shape))
    method.head(feature_map)
    assert products == [(2 * (1 + 36), 32)]


def network(layers: int) -> nn.Module:
    """Linear layers and BatchNorms, so many of each."""
    return nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(3, 3), nn.BatchNorm1d(3))))


@pytest.mark.parametrize("averaged", [False, True])
def test_a_moving_average_takes_as_many_calls_for_a_deep_network(averaged: bool) -> None:
    counts = []
    for layers in (2, 20):
        online = network(layers)
        ema = EMA(averaged, network=online)
        online(torch.randn(4, 3))
        with Calls() as calls:
            ema.update(0.9, network=online)
        counts.append(calls.count)
        for old, new in zip(ema.network.buffers(), online.buffers(), strict=True):
            if averaged and not old.is_floating_point():
                assert torch.equal(old, new)
    assert counts[0] == counts[1]


def test_lars_takes_as_many_calls_for_many_weights() -> None:
    counts = []
    for layers in (2, 20):
        weights = [*network(layers).parameters()]
        optimizer = LARS(weights, lr=0.1, weight_decay=1e-4)
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
        with Calls() as calls:
            optimizer.step()
        counts.append(calls.count)
    assert counts[0] == counts[1]
