"""LARS against a slow literal version and timm's, step for step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm.optim
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_backbones.optimizers import LARS

SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4)


def literal(
    weight: Tensor, gradients: list[Tensor], rates: list[float], momentum: float, decay: float, trust: str, adapt: bool
) -> Tensor:
    """The weight after steps of the equations, one number at a time."""
    w = weight.flatten().tolist()
    buffer = [0.0] * len(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient.flatten().tolist()
        size = sum(x * x for x in w) ** 0.5
        if trust == "sum":
            against = sum(x * x for x in g) ** 0.5 + decay * size
        else:
            against = sum((y + decay * x) ** 2 for x, y in zip(w, g, strict=True)) ** 0.5
        ratio = 0.001 * size / against if size > 0 and against > 0 else 1.0
        step = [rate * ratio * (y + decay * x) if adapt else rate * y for x, y in zip(w, g, strict=True)]
        buffer = [momentum * b + s for b, s in zip(buffer, step, strict=True)]
        w = [x - b for x, b in zip(w, buffer, strict=True)]
    return torch.tensor(w, dtype=torch.float64).view(weight.shape)


def run(optimizer: torch.optim.Optimizer, weights: list[Tensor], gradients: list[list[Tensor]], rates: Any) -> None:
    """Take a step for each list of gradients, at its rate."""
    for rate, step in zip(rates, gradients, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


@given(
    shapes=SHAPES,
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    rates=st.lists(st.floats(1e-3, 10), min_size=1, max_size=4),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    decay=st.sampled_from([0.0, 1e-6, 0.1]),
    trust=st.sampled_from(["sum", "update"]),
    adapt=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_literal_equations(shapes, seed, scale, rates, momentum, decay, trust, adapt):
    stream = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes]
    weights[0] = weights[0] * scale
    gradients = [
        [
            torch.randn(shape, generator=stream, dtype=torch.float64) * (scale if at else 1)
            for at, shape in enumerate(shapes)
        ]
        for _ in rates
    ]
    expected = [
        literal(weight, [step[at] for step in gradients], rates, momentum, decay, trust, adapt)
        for at, weight in enumerate(weights)
    ]
    group = {"params": weights, "adapt": adapt}
    run(LARS([group], lr=1.0, momentum=momentum, weight_decay=decay, trust=trust), weights, gradients, rates)
    for weight, value in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, value, rtol=1e-9, atol=1e-12)


def start(count: int = 5) -> tuple[list[Tensor], list[list[Tensor]]]:
    stream = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, at + 1, generator=stream, dtype=torch.float64) for at in range(count)]
    return weights, [[torch.randn(w.shape, generator=stream, dtype=torch.float64) for w in weights] for _ in range(30)]


def test_equals_timm_at_a_constant_rate():
    ours, gradients = start()
    theirs = copy.deepcopy(ours)
    run(LARS(ours, lr=0.5, momentum=0.9, weight_decay=1e-2), ours, gradients, [0.5] * 30)
    lars = timm.optim.Lars(theirs, lr=0.5, momentum=0.9, weight_decay=1e-2, eps=0.0)
    run(lars, theirs, gradients, [0.5] * 30)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=0)


def test_momentum_gathers_rates_unlike_timm_when_the_rate_moves():
    ours, gradients = start()
    theirs = copy.deepcopy(ours)
    rates = [1.0] * 15 + [0.1] * 15
    run(LARS(ours, lr=1.0, momentum=0.9, weight_decay=1e-2), ours, gradients, rates)
    run(timm.optim.Lars(theirs, lr=1.0, momentum=0.9, weight_decay=1e-2, eps=0.0), theirs, gradients, rates)
    assert not torch.allclose(ours[0], theirs[0], rtol=1e-4)


def test_two_kinds_of_trust_differ():
    ours, gradients = start()
    others = copy.deepcopy(ours)
    run(LARS(ours, lr=1.0, weight_decay=0.1), ours, gradients, [1.0] * 30)
    run(LARS(others, lr=1.0, weight_decay=0.1, trust="update"), others, gradients, [1.0] * 30)
    assert not torch.allclose(ours[0], others[0], rtol=1e-4)


def test_zero_norms_move_by_the_plain_rate_and_never_give_nan():
    zeros, still = torch.zeros(3), torch.ones(3)
    optimizer = LARS([zeros, still], lr=0.5, momentum=0.0)
    zeros.grad, still.grad = torch.ones(3), torch.zeros(3)
    optimizer.step()
    assert torch.equal(zeros, torch.full((3,), -0.5))
    assert torch.equal(still, torch.ones(3))


def test_a_parameter_without_gradient_stays_and_a_group_without_any_is_skipped():
    moved, idle, apart = torch.ones(2), torch.ones(2), torch.ones(2)
    optimizer = LARS([{"params": [moved, idle]}, {"params": [apart]}], lr=1.0)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert not torch.equal(moved, torch.ones(2))
    assert torch.equal(idle, torch.ones(2))
    assert list(optimizer.state) == [moved]


def test_state_is_one_buffer_and_resumes_exactly():
    straight, gradients = start()
    broken = copy.deepcopy(straight)
    run(LARS(straight, lr=1.0, weight_decay=1e-4), straight, gradients, [1.0] * 30)
    first = LARS(broken, lr=1.0, weight_decay=1e-4)
    run(first, broken, gradients[:10], [1.0] * 10)
    assert all(set(state) == {"momentum_buffer"} for state in first.state.values())
    second = LARS(broken, lr=1.0, weight_decay=1e-4)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, broken, gradients[10:], [1.0] * 20)
    assert all(torch.equal(a, b) for a, b in zip(straight, broken, strict=True))


def test_a_closure_gives_its_loss():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = LARS([weight], lr=1.0)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0


@pytest.mark.parametrize(
    "choice",
    [
        {"lr": -1.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"trust_coefficient": 0.0},
        {"trust": "ratio"},
    ],
)
def test_refuses_in_a_sentence(choice: dict[str, Any]):
    (name,) = choice
    with pytest.raises(ValueError, match=rf"^{name} is .* where LARS expects .*\.$"):
        LARS([torch.ones(2)], **({"lr": 1.0} | choice))
