"""FLAGS: its loss at recorded values, its variants, its queues, and its batch shared by two processes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import Drawn, batch_of, mined, small_config, small_method, views
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from two_processes import run_two_processes

from ssl_backbones.data import ImageSourceError, Request
from ssl_backbones.losses import info_nce, multi_positive_info_nce
from ssl_backbones.methods import Flags, FlagsConfig, MoCoV2Config
from ssl_backbones.models.queue import Queue

sizes = st.integers(1, 6)
MOCO = {"global_pair": False, "local_branch": False}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"local_branch": False},
    {"global_pair": False},
    MOCO,
    {"enqueue": "first"},
    {"passes": "together"},
    {"mask": "own"},
    {"mask": "class"},
    {"temperature": 0.1, "local_temperature": 0.5},
    {"key_bn": "ema"},
    {"key_bn": "sync", "passes": "together", "mask": "class", "enqueue": "first"},
]
every_variant = pytest.mark.parametrize("choices", VARIANTS, ids=str)


def wave(*shape: int, phase: int) -> Tensor:
    """Unit vectors of a fixed sine."""
    t = torch.arange(math.prod(shape), dtype=torch.float64)
    return normalize(torch.sin(0.0037 * t**2 + 0.37 * t + phase).view(shape), dim=-1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestLoss:
    queries, positives, queue = wave(4, 8, phase=0), wave(4, 3, 8, phase=1), wave(16, 8, phase=2)

    def test_recorded_values(self) -> None:
        recorded = (4.363882553336517, 4.948917761680409, 7.770162277632544, 5.047899253608212)
        for row, value in enumerate(recorded):
            one = slice(row, row + 1)
            loss = multi_positive_info_nce(self.queries[one], self.positives[one], self.queue, 0.2)
            assert loss.item() == pytest.approx(value, abs=1e-10)
        loss = multi_positive_info_nce(self.queries, self.positives, self.queue, 0.2)
        assert loss.item() == pytest.approx(5.53271546156442, abs=1e-10)

    def test_one_positive_is_moco(self) -> None:
        loss = multi_positive_info_nce(self.queries, self.positives[:, :1], self.queue, 0.2)
        assert loss.item() == pytest.approx(5.390234875174334, abs=1e-10)
        assert loss.item() == pytest.approx(info_nce(self.queries, self.positives[:, 0], self.queue, 0.2).item())

    def test_the_positives_share_no_denominator(self) -> None:
        """Or it would be SupCon's loss."""
        loss = multi_positive_info_nce(self.queries, self.positives, self.queue, 0.2).item()
        positive = torch.einsum("bd,bpd->bp", self.queries, self.positives) / 0.2
        negative = self.queries @ self.queue.T / 0.2
        shared = (torch.cat([positive, negative], 1).logsumexp(1, keepdim=True) - positive).mean().item()
        assert shared == pytest.approx(5.617044948786546, abs=1e-10)
        assert abs(loss - shared) > 0.05

    @settings(max_examples=40, deadline=None)
    @given(sizes, sizes, sizes, sizes, st.floats(0.05, 2), st.integers(0, 99))
    def test_it_is_the_equation(
        self, batch: int, count: int, queue: int, dim: int, temperature: float, seed: int
    ) -> None:
        queries, positives = normal(seed, batch, dim), normal(seed + 1, batch, count, dim)
        negatives = normalize(normal(seed + 2, queue, dim), dim=1)
        excluded = normal(seed + 3, batch, queue) > 0.5
        losses = []
        for i in range(batch):
            cosines = [float(queries[i] @ negative / queries[i].norm()) for negative in negatives]
            others = sum(
                math.exp(c / temperature) for c, left_out in zip(cosines, excluded[i], strict=True) if not left_out
            )
            for positive in positives[i]:
                own = math.exp(float(queries[i] @ positive / queries[i].norm() / positive.norm()) / temperature)
                losses.append(-math.log(own / (own + others)))
        loss = multi_positive_info_nce(queries, positives, negatives, temperature, excluded)
        assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-9, abs=1e-12)

    def test_without_any_negative_there_is_nothing_to_learn(self) -> None:
        queries = self.queries.clone().requires_grad_()
        excluded = torch.ones(4, 16, dtype=torch.bool)
        loss = multi_positive_info_nce(queries, self.positives, self.queue, 0.2, excluded)
        loss.backward()
        assert loss.item() == 0
        assert queries.grad is not None
        assert queries.grad.abs().max() == 0

    def test_unrelated_embeddings_score_what_theory_says(self) -> None:
        queries, positives = normal(0, 64, 128), normal(1, 64, 2, 128)
        negatives = normalize(normal(2, 8192, 128), dim=1)
        expected = math.log(8192) + 1 / (2 * 128 * 0.2**2)
        assert multi_positive_info_nce(queries, positives, negatives, 0.2).item() == pytest.approx(expected, abs=0.1)

    def test_autocast_changes_nothing(self) -> None:
        half = [value.bfloat16() for value in (self.queries, self.positives, self.queue)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = multi_positive_info_nce(*half, 0.2)
        assert loss.dtype == torch.float32
        exact = multi_positive_info_nce(*(value.double() for value in half), 0.2)
        assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


@every_variant
def test_every_variant_trains(choices: dict[str, Any]) -> None:
    method = small_method(FlagsConfig, queue_size=24, **choices)
    dataset = method.dataset(mined(Drawn(8)), 16, seed=1)
    shown, numbers = dataset.on_device(dataset[Request(0, np.arange(8))].content)
    assert len(shown) == 2 + len(method.config.partners)
    scalars = method((shown, numbers))
    scalars["loss"].backward()
    method.on_step_end(0.0)
    trained = {name: value for name, value in method.named_parameters() if value.requires_grad}
    assert [name for name, value in trained.items() if value.grad is None or not value.grad.abs().sum()] == []
    parts = [value for name, value in scalars.items() if name.endswith("_branch_loss")]
    assert len(parts) == len(method.queues) == (2 if method.config.local_branch else 1)
    assert scalars["loss"].item() == pytest.approx(sum(part.item() for part in parts))
    branches = {branch.name: branch.count for branch in method.config.branches}
    for name, queue in method.queues.items():
        taken = branches[name] if method.config.enqueue == "all" else 1
        assert int(queue.pointer) == 8 * taken % len(queue)


def test_without_pairs_it_is_moco() -> None:
    moco, flags = small_method(MoCoV2Config), small_method(FlagsConfig, **MOCO)
    for number in range(3):
        losses = []
        for method in (moco, flags):
            torch.manual_seed(number)
            batch = views(seed=number)
            loss = method(batch if method is moco else (batch, torch.zeros(8, 1, dtype=torch.long)))["loss"]
            method.zero_grad()
            loss.backward()
            with torch.no_grad():
                for value in method.parameters():
                    if value.grad is not None:
                        value -= 0.1 * value.grad
            method.on_step_end(0.0)
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(moco.queue.keys, flags.queues["global"].keys, atol=1e-5, rtol=1e-4)


def steady(**choices: Any) -> Flags:
    """The method in double precision, with keys that depend on nothing but their own view."""
    return small_method(FlagsConfig, key_bn="ema", **choices).double()  # type: ignore[return-value]


def test_each_branch_looks_at_its_own_keys_alone() -> None:
    method = steady()
    shown, numbers = batch_of(method, dtype=torch.float64)
    before = method((shown, numbers))
    for changed, branch in ((slice(1, 4), "global"), (slice(4, 6), "local")):
        others = list(shown)
        others[changed] = [torch.randn_like(view) for view in shown[changed]]
        after = method((others, numbers))
        for name in ("global", "local"):
            same = before[f"{name}_branch_loss"] == after[f"{name}_branch_loss"]
            assert bool(same) == (name != branch)


@pytest.mark.parametrize("enqueue", ["all", "first"])
def test_one_pass_gives_the_keys_of_several(enqueue: str) -> None:
    losses = {}
    for passes in ("separate", "together"):
        method = steady(passes=passes, enqueue=enqueue, queue_size=20)
        losses[passes] = method(batch_of(method, dtype=torch.float64))["loss"].item()
        method.on_step_end(0.0)
        losses[passes, "keys"] = torch.cat([queue.keys for queue in method.queues.values()])
    assert losses["separate"] == pytest.approx(losses["together"], rel=1e-10)
    torch.testing.assert_close(losses["separate", "keys"], losses["together", "keys"])


def test_queues_wrap_around_where_keys_do_not_divide_them() -> None:
    queue = Queue(10, 4, numbered=True).double()
    keys = normalize(normal(0, 21, 4), dim=1)
    for start in (0, 7, 14):
        queue.offer(keys[start : start + 7], torch.arange(start, start + 7))
        queue.commit()
    assert queue.numbers is not None
    assert queue.numbers.tolist() == [20, *range(11, 20)]
    assert int(queue.pointer) == 1
    torch.testing.assert_close(queue.keys, keys[queue.numbers])


@pytest.mark.parametrize(("mask", "numbers"), [("own", [3, 5, 6]), ("class", [2, 2, 2])])
def test_masked_keys_are_no_negatives(mask: str, numbers: list[int]) -> None:
    """The loss is that against a queue without them: of the image and its positives, or of the class."""
    method = steady(mask=mask, local_branch=False, queue_size=24)
    shown, _ = batch_of(method, dtype=torch.float64)
    batch = shown, torch.tensor([numbers] * 8)
    queue = method.queues["global"]
    queue.numbers.copy_(torch.arange(24) % 12)
    kept = ~torch.isin(queue.numbers, torch.tensor(numbers))
    plain = steady(local_branch=False, queue_size=int(kept.sum()))
    weights = {name: value for name, value in method.state_dict().items() if not name.startswith("queues.")}
    plain.load_state_dict(weights, strict=False)
    plain.queues["global"].keys.copy_(queue.keys[kept])
    assert method(batch)["loss"].item() == pytest.approx(plain(batch)["loss"].item(), rel=1e-10)
    assert 0 < kept.sum() < 24
    method.on_step_end(0.0)
    assert queue.numbers.tolist() == [number for number in numbers for _ in range(8)]


def train(choices: dict[str, Any], parts: int, rank: int) -> tuple[list[float], Flags]:
    """Three steps on this rank's part of the batches; the losses over all ranks, and the method after them."""
    method = small_method(FlagsConfig, key_bn="sync", **choices).double()
    wrapped: nn.Module = method
    if parts > 1:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped = DistributedDataParallel(method, broadcast_buffers=False)
    optimizer = torch.optim.SGD([value for value in method.parameters() if value.requires_grad], lr=0.05)
    losses = []
    for seed in range(3):
        shown, numbers = batch_of(method, dtype=torch.float64, seed=seed)
        batch = [view.chunk(parts)[rank] for view in shown], numbers.chunk(parts)[rank]
        loss = wrapped(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.on_step_end(seed / 3)
        mean = loss.detach().clone()
        if parts > 1:
            torch.distributed.all_reduce(mean)
        losses.append(mean.item() / parts)
    return losses, method  # type: ignore[return-value]


SHARED: list[dict[str, Any]] = [{"mask": "own"}, {"passes": "together"}]


def on_a_rank(rank: int) -> list[Any]:
    results = []
    for choices in SHARED:
        losses, method = train(choices, parts=2, rank=rank)
        results.append([losses, method.state_dict()])
    return results


def test_two_processes_train_as_one() -> None:
    first, second = run_two_processes(on_a_rank)
    for choices, (losses, state), (_, other) in zip(SHARED, first, second, strict=True):
        alone, method = train(choices, parts=1, rank=0)
        assert losses == pytest.approx(alone, rel=1e-10)
        for name, value in method.state_dict().items():
            assert torch.equal(state[name], other[name]), name
            torch.testing.assert_close(state[name], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"enqueue": "some"}, "enqueue must be one of all, first, not 'some'"),
        ({"passes": "five"}, "passes must be one of separate, together, not 'five'"),
        ({"mask": "all"}, "mask must be one of none, own, class, not 'all'"),
        ({"local_temperature": 0.0}, "local_temperature must be positive"),
        ({"momentum": 2.0}, "momentum is a momentum"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_config(FlagsConfig, **choices)


def test_masking_by_class_needs_labels_even_without_pairs() -> None:
    images = Drawn(8)
    images.labels = None
    small_method(FlagsConfig, **MOCO).dataset(images, 16, seed=1)
    with pytest.raises(ImageSourceError, match="mask='class' needs labels"):
        small_method(FlagsConfig, **MOCO, mask="class").dataset(images, 16, seed=1)
