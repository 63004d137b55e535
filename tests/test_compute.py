"""The precision and layout of a run: tried, taken and refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_methods import STAND_INS, batch_of, small_method
from tinted import CPU
from torch import nn
from two_processes import run_two_processes

from ssl_backbones.data.placement import in_layout
from ssl_backbones.methods import MethodConfig
from ssl_backbones.train import precision as compute
from ssl_backbones.train.precision import (
    Compute,
    PrecisionError,
    Trial,
    available,
    check_precision,
    choose,
)


@pytest.mark.parametrize("kind", STAND_INS)
def test_trying_leaves_the_method_as_it_was(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    batch = batch_of(method)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    chosen = choose(method, batch, CPU, steps=1)
    layouts = ("contiguous", "channels last")
    assert chosen.tried.keys() == {f"{name} {layout}" for name in available(CPU) for layout in layouts}
    assert all(seconds > 0 for seconds in chosen.tried.values())
    assert f"{chosen.precision}, {chosen.layout.replace('_', ' ')} (a step took: fp32 contiguous" in str(chosen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert method.training
    method(batch)["loss"].backward()
    method.on_step_end(0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], list[float]]:
    """The seconds of each way, one after the other and then again; the last stays. What was asked for is taken off."""
    seconds = {
        ("fp32", "contiguous"): [1.0],
        ("fp32", "channels_last"): [0.95],
        ("bf16", "contiguous"): [2.0],
        ("bf16", "channels_last"): [0.97],
    }
    monkeypatch.setattr(compute, "computes_bf16", lambda: True)
    monkeypatch.setattr(
        Trial, "seconds", lambda trial, way: seconds[way].pop(0) if len(seconds[way]) > 1 else seconds[way][0]
    )
    return seconds


def test_the_fastest_way_is_taken_if_it_is_worth_it(clock: dict[Any, list[float]]) -> None:
    method, batch = nn.Identity(), torch.zeros(1)
    assert choose(method, batch, CPU) == Compute("fp32", "contiguous", choose(method, batch, CPU).tried)
    clock["bf16", "channels_last"] = [0.8]
    assert choose(method, batch, CPU).precision == "bf16"
    assert choose(method, batch, CPU, precision="fp32").layout == "contiguous"
    assert set(choose(method, batch, CPU, layout="contiguous").tried) == {"fp32 contiguous", "bf16 contiguous"}


def test_what_slows_all_ways_down_decides_nothing(clock: dict[Any, list[float]]) -> None:
    """Channels last takes 0.8 of the time in every round, while the machine is three times slower in some."""
    load = [1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 1.0, 3.0]
    clock["fp32", "contiguous"] = load.copy()
    clock["fp32", "channels_last"] = [0.8 * share for share in load]
    assert choose(nn.Identity(), torch.zeros(1), CPU, precision="fp32").layout == "channels_last"


@pytest.mark.parametrize("steps", [10, 100, 400, 10_000])
def test_a_trial_takes_a_small_part_of_the_run(clock: dict[Any, list[float]], steps: int) -> None:
    asked: list[tuple[str, str]] = []
    timed = Trial.seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trial, "seconds", lambda trial, way: [asked.append(way), timed(trial, way)][1])
        choose(nn.Identity(), torch.zeros(1), CPU, steps=steps)
    assert asked.count(("bf16", "contiguous")) == 2  # dropped after the first round
    spent, least = sum(clock[way][0] for way in asked), 2 * sum(times[0] for times in clock.values())
    assert spent <= max(least, compute.BUDGET * steps * 0.95) + 1e-9
    assert len(asked) <= 4 * (1 + compute.ROUNDS)


def tried_beside_a_busy_process(rank: int, steps: int) -> list[tuple[str, str]]:
    """The steps that a process takes whose clock says something else at every one than the other's."""
    asked: list[tuple[str, str]] = []
    clock = iter(range(1, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "computes_bf16", lambda: True)
        patch.setattr(Trial, "seconds", lambda trial, way: [asked.append(way), 1.0 + 3 * rank * next(clock)][1])
        choose(nn.Identity(), torch.zeros(1), CPU, steps=steps)
    return asked


@pytest.mark.parametrize("steps", [10, 400, 10_000])
def test_all_processes_try_the_same_steps_whatever_their_clocks_say(steps: int) -> None:
    """A step is taken together: a process that took another would wait for the others for ever."""
    first, second = run_two_processes(tried_beside_a_busy_process, steps)
    assert first == second


def test_emulated_bf16_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "computes_bf16", lambda: False)
    assert available(CPU) == ("fp32",)
    assert check_precision("bf16", CPU) == "bf16"  # but computed if it is asked for


def test_one_way_alone_is_timed_for_the_forecast_of_a_long_run(clock: dict[Any, list[float]]) -> None:
    clock["bf16", "channels_last"] = [9.0, 0.5]  # a first step is slower
    chosen = choose(nn.Identity(), torch.zeros(1), CPU, "bf16", "channels_last", steps=200)
    assert chosen == Compute("bf16", "channels_last", {"bf16 channels last": 0.5})
    assert str(chosen) == "bf16, channels last (a step took: bf16 channels last 500 ms)"


def test_nothing_is_tried_where_nothing_is_open_and_the_run_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "seconds", lambda *way: pytest.fail("it was tried"))
    chosen = choose(nn.Identity(), torch.zeros(1), CPU, "bf16", "channels_last", steps=199)
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
            Trial(Looking(3, 5, 3), torch.zeros(2, 3, 9, 9), CPU).seconds((precision, layout))  # type: ignore[arg-type]
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


def test_a_layout_is_given_to_images_wherever_they_are() -> None:
    images, levels = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3)
    found = in_layout({"views": [images, (images, levels)], "name": "x"}, "channels_last")
    assert found["views"][0].is_contiguous(memory_format=torch.channels_last)
    assert found["views"][1][0].is_contiguous(memory_format=torch.channels_last)
    assert found["views"][1][1] is levels
    assert found["name"] == "x"
    assert in_layout(found, "contiguous")["views"][0].is_contiguous()
