"""How a run computes: which precision and layout are tried, taken and refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_methods import CONFIGS, batch_of, small_method
from tinted import CPU
from torch import nn

from ssl_backbones.methods import MethodConfig
from ssl_backbones.train import precision as compute
from ssl_backbones.train.precision import (
    Compute,
    PrecisionError,
    available,
    check_precision,
    choose,
    laid_out,
    seconds_per_step,
)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_trying_leaves_the_method_as_it_was(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    batch = batch_of(method)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    chosen = choose(method, batch, CPU)
    assert chosen.tried.keys() == {"fp32 contiguous", "fp32 channels last", "bf16 contiguous", "bf16 channels last"}
    assert all(0 < seconds < 30 for seconds in chosen.tried.values())
    assert f"{chosen.precision}, {chosen.layout.replace('_', ' ')} (a step took: fp32 contiguous" in str(chosen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert method.training
    method(batch)["loss"].backward()
    method.on_step_end(0.0)


def test_the_fastest_way_is_taken_if_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {("fp32", "contiguous"): 1.0, ("fp32", "channels_last"): 0.95}
    seconds |= {("bf16", "contiguous"): 2.0, ("bf16", "channels_last"): 0.97}
    monkeypatch.setattr(compute, "seconds_per_step", lambda *way: seconds[way[3:]])
    method, batch = nn.Identity(), torch.zeros(1)
    assert choose(method, batch, CPU) == Compute("fp32", "contiguous", choose(method, batch, CPU).tried)
    seconds["bf16", "channels_last"] = 0.8
    assert choose(method, batch, CPU).precision == "bf16"
    assert choose(method, batch, CPU, precision="fp32").layout == "contiguous"
    assert set(choose(method, batch, CPU, layout="contiguous").tried) == {"fp32 contiguous", "bf16 contiguous"}


def test_nothing_is_tried_where_nothing_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "seconds_per_step", lambda *way: pytest.fail("it was tried"))
    chosen = choose(nn.Identity(), torch.zeros(1), CPU, "bf16", "channels_last")
    assert chosen == Compute("bf16", "channels_last", {})
    assert str(chosen) == "bf16, channels last"


def test_a_trial_runs_in_the_precision_and_the_layout() -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    class Looking(nn.Conv2d):
        def forward(self, images: Any) -> Any:
            out = super().forward(images)
            nhwc = torch.channels_last
            seen.append((out.dtype, images.is_contiguous(memory_format=nhwc) and self.weight.stride(1) == 1))
            return {"loss": out.float().mean()}

    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for layout in ("contiguous", "channels_last"):
            seen.clear()
            seconds_per_step(Looking(3, 5, 3), torch.zeros(2, 3, 9, 9), CPU, precision, layout)  # type: ignore[arg-type]
            assert set(seen) == {(dtype, layout == "channels_last")}


def test_a_precision_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    with pytest.raises(PrecisionError, match="this cpu device does not train in fp16; use bf16"):
        check_precision("fp16", CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(PrecisionError, match="this cuda device does not train in bf16; use fp16"):
        choose(nn.Identity(), None, cuda, "bf16")
    assert available(cuda) == ("fp16",)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert available(cuda) == ("bf16",)
    assert check_precision("fp32", CPU) == "fp32"
    assert available(CPU) == ("fp32", "bf16")


def test_a_layout_is_given_to_images_wherever_they_are() -> None:
    images, levels = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3)
    found = laid_out({"views": [images, (images, levels)], "name": "x"}, "channels_last")
    assert found["views"][0].is_contiguous(memory_format=torch.channels_last)
    assert found["views"][1][0].is_contiguous(memory_format=torch.channels_last)
    assert found["views"][1][1] is levels
    assert found["name"] == "x"
    assert laid_out(found, "contiguous")["views"][0].is_contiguous()
