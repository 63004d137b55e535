"""InstDisc: recorded numbers, slow literal versions of its losses, and the memory of all images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import Drawn, batch_of, converted, small_method
from test_rivals import RECORDED, assert_recorded, normal, unit
from torch.nn.functional import normalize
from two_processes import run_two_processes

from ssl_backbones.data import Request
from ssl_backbones.losses import instance_exponentials, instance_nce, instance_softmax, parts
from ssl_backbones.methods import InstDisc, InstDiscConfig
from ssl_backbones.models.memory_bank import MemoryBank
from ssl_backbones.recipes import get
from ssl_backbones.train.cost import size_of_state
from ssl_backbones.weightless import weightless

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


def test_recorded_numbers() -> None:
    given_, recorded = RECORDED["instdisc/small"]["inputs"], RECORDED["instdisc/small"]["outputs"]
    tau, rows = given_["temperature"], torch.tensor(given_["y"])
    x = unit(given_["B"], given_["D"], b=given_["b_x"]).requires_grad_()
    memory = unit(given_["N"], given_["D"], b=given_["b_M"])
    assert instance_softmax(x, memory, rows, tau).item() == pytest.approx(recorded["full_softmax"], rel=1e-9)
    method = small_method(InstDiscConfig, noise=given_["K"], projection_dim=given_["D"], temperature=tau).double()
    method.memory.keys = memory.clone()
    at = torch.cat([rows[:, None], torch.tensor(given_["idx"])[:, 1:]], 1)
    exponentials = instance_exponentials(x, memory, at, tau)
    constant = method.constant(exponentials)
    assert constant.item() == pytest.approx(recorded["Z"], rel=1e-9)
    loss = instance_nce(exponentials, constant, given_["N"])
    assert loss.item() == pytest.approx(recorded["nce"], rel=1e-9)
    assert_recorded(torch.autograd.grad(loss, x)[0], recorded["grad_nce_with_Z_constant"]["x"])
    method.memory.offer(rows, x)
    method.on_step_end(0.0)
    assert method.memory.keys[rows[0]].tolist() == pytest.approx(recorded["memory_row_y0_after"], rel=1e-9)
    assert torch.equal(method.memory.keys[0], memory[0])


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(2, 9), sizes, st.integers(1, 4), st.floats(0.05, 2), seeds)
def test_the_losses_are_the_equations(batch: int, images: int, dim: int, m: int, tau: float, seed: int) -> None:
    v, memory = normalize(normal(seed, batch, dim), dim=1), normalize(normal(seed + 1, images, dim), dim=1)
    at = torch.randint(images, (batch, 1 + m), generator=torch.Generator().manual_seed(seed))
    z, whole, nce = 7.0, [], []
    for i in range(batch):
        alike = [math.exp(float(v[i] @ row) / tau) for row in memory]
        whole.append(-math.log(alike[at[i, 0]] / sum(alike)))
        p = [alike[place] / z for place in at[i].tolist()]
        h = [one / (one + m / images + 1e-7) for one in p]
        misses = [(m / images) / (one + m / images + 1e-7) for one in p[1:]]
        nce.append(-math.log(h[0]) - sum(map(math.log, misses)))
    found = instance_softmax(v, memory, at[:, 0], tau).item()
    assert found == pytest.approx(sum(whole) / batch, rel=1e-9, abs=1e-12)
    exponentials = instance_exponentials(v, memory, at, tau)
    loss = instance_nce(exponentials, torch.tensor(z, dtype=torch.float64), images)
    assert loss.item() == pytest.approx(sum(nce) / batch, rel=1e-9, abs=1e-12)


def test_parts_of_the_losses_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory as large as ImageNet's a few rows of logits are held at once; nothing else changes."""
    memory, rows = normalize(normal(0, 6, 4), dim=1), torch.tensor([[3, 0, 1], [5, 5, 2], [1, 4, 0]])
    found = []
    for at_once in (parts.AT_ONCE, 12):
        monkeypatch.setattr(parts, "AT_ONCE", at_once)
        v = normal(1, 3, 4).requires_grad_()
        exponentials = instance_exponentials(v, memory, rows, 0.2)
        loss = instance_softmax(v, memory, rows[:, 0], 0.2) + instance_nce(exponentials, exponentials.new_ones(()), 6)
        found.append((loss.detach(), torch.autograd.grad(loss, v)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def steps(method: InstDisc, parts: int = 1, part: int = 0, count: int = 2) -> list[float]:
    """The loss of some steps on this part of eight images."""
    dataset, found = method.dataset(Drawn(8), 16, 0), []
    for step in range(count):
        torch.manual_seed(step)
        rows = np.arange(8).reshape(parts, -1)[part]
        batch = converted(dataset.on_device(dataset[Request(step, rows)].content), method.head.weight.dtype)
        found.append(method(batch)["loss"].item())
        method.on_step_end(0.0)
    return found


def on_a_rank(rank: int) -> list[Any]:
    method = small_method(InstDiscConfig, noise=5).double().eval()
    method.training = method.memory.training = True
    return [steps(method, 2, rank), method.memory.keys, method.mean_exponential]


def test_two_processes_draw_the_noise_and_the_constant_of_one() -> None:
    """Batch statistics stand still: what is left to differ is drawn, gathered, or remembered."""
    ranks = run_two_processes(on_a_rank)
    method = small_method(InstDiscConfig, noise=5).double().eval()
    method.training = method.memory.training = True
    alone = steps(method)
    assert [(a + b) / 2 for a, b in zip(ranks[0][0], ranks[1][0], strict=True)] == pytest.approx(alone, rel=1e-12)
    for _, memory, constant in ranks:
        torch.testing.assert_close(memory, method.memory.keys, rtol=0, atol=1e-12)
        torch.testing.assert_close(constant, method.mean_exponential, rtol=1e-12, atol=0)


def test_the_constant_is_that_of_the_first_step() -> None:
    method = small_method(InstDiscConfig, noise=5)
    steps(method, count=1)
    first = method.mean_exponential.clone()
    assert first > 0
    steps(method)
    assert torch.equal(method.mean_exponential, first)
    method.eval()
    method(batch_of(method))
    assert method.estimates.take() == method.memory.offered.take() == ()


def test_a_step_that_was_left_out_leaves_no_constant() -> None:
    method = small_method(InstDiscConfig, noise=5)
    batch = batch_of(method)
    method(batch)
    method.on_step_left_out()
    method.on_step_end(0.0)
    assert method.mean_exponential == 0


def test_noise_scores_chance_where_nothing_is_told_apart() -> None:
    method = small_method(InstDiscConfig, noise=5)
    with torch.no_grad():
        method.head.weight.zero_()
        method.head.bias.zero_()
    scalars = method(batch_of(method))
    assert scalars["loss"].item() == pytest.approx(scalars["chance"], rel=1e-5)


def test_the_memory_begins_alike_and_keeps_an_image_s_embeddings() -> None:
    first, again, other = (MemoryBank(16) for _ in range(3))
    for bank, seed in ((first, 3), (again, 3), (other, 4)):
        bank.of_images(400, seed)
    assert torch.equal(first.keys, again.keys)
    assert not torch.equal(first.keys, other.keys)
    assert first.keys.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    assert first.keys.abs().max() <= math.sqrt(3 / 16)
    before = first.keys.clone()
    v = normalize(normal(0, 3, 16).float(), dim=1)
    first.offer(torch.tensor([7, 2, 7]), v)
    first.commit(0.25)
    for row, new in ((7, v[0]), (2, v[1])):
        torch.testing.assert_close(first.keys[row], normalize(0.25 * before[row] + 0.75 * new, dim=0))
    assert (first.keys != before).any(1).sum() == 2
    first.of_images(400, 9)
    assert (first.keys != before).any(1).sum() == 2, "what it holds stays while the images are as many"


def test_the_memory_of_imagenet_is_told() -> None:
    """656 MB, in what a run says it needs on its device and on its disk."""
    with weightless():
        method = InstDiscConfig().build(timm.create_model("resnet50", num_classes=0))
        empty = size_of_state(method)
        method.memory.keys = torch.empty(1_281_167, 128)
    assert size_of_state(method) - empty == pytest.approx(656e6, rel=1e-3)


def test_the_paper_s_row() -> None:
    recipe = get("resnet50_instdisc.in1k_200ep")
    assert [round(recipe.lr(epoch * 5004, 5004), 8) for epoch in (0, 119, 120, 159, 160)] == [
        0.03,
        0.03,
        0.003,
        0.003,
        0.0003,
    ]
    method = recipe.method
    assert isinstance(method, InstDiscConfig)
    (view,) = method.policies
    assert (view.area, view.jitter_p, view.grey_p, view.blur_p) == ((0.2, 1.0), 1.0, 0.2, 0.0)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"noise": -1}, "noise is -1, but must be at least 0"),
        ({"memory_momentum": 1.5}, "memory_momentum is a momentum"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_method(InstDiscConfig, **choices)
