"""Keys and targets: batch statistics of their own, their momentum, and no key of a query's own image."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from small_methods import CONFIGS, Drawn, batch_of, converted, small_method, views
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.data import Request
from ssl_backbones.methods import (
    BYOLConfig,
    DenseCLConfig,
    LewelBConfig,
    LewelMConfig,
    MethodConfig,
    MoCoV2Config,
    lewel_m,
    moco_v2,
)
from ssl_backbones.models.batch_norm import SplitBatchNorm
from ssl_backbones.models.queue import Queue

WAYS: dict[str, list[dict[str, Any]]] = {
    "flags": [{"mask": "none", "enqueue": enqueue} for enqueue in ("all", "first")],
    "lewel_m": [{}, {"symmetric": True}],
    "moco_v2": [{}, {"symmetric": True}],
    "rob": [{"loss": "moco_v2"}, {"loss": "lewel_m"}],
}
QUEUED = [
    pytest.param(kind, choices, id=f"{kind.name} {choices}")
    for kind in CONFIGS
    if "queue_size" in {field.name for field in dataclasses.fields(kind)} and "swav" not in kind.name
    for choices in WAYS.get(kind.name, [{}])
]
"""The methods whose queue is not to hold a query's own image, and the choices on which its keys depend."""


@pytest.mark.parametrize("kind", [MoCoV2Config, LewelMConfig, DenseCLConfig], ids=lambda kind: kind.__name__)
class TestKeyBatchNorm:
    def test_a_single_process_normalises_in_groups(self, kind: type[MethodConfig]) -> None:
        """Or the network could tell its own batch by its statistics alone."""
        groups = {getattr(module, "splits", None) for module in small_method(kind, bn_splits=4).modules()}
        assert 4 in groups

    def test_a_query_and_its_key_are_normalised_among_different_images(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind, bn_splits=4)
        method.key_encoder.load_state_dict(method.key_encoder.state_dict())
        seen: list[Tensor] = []
        method.key_encoder.backbone.conv1.register_forward_hook(lambda module, args, output: seen.append(args[0]))
        first, second = views()
        torch.manual_seed(0)
        method([first, second])
        assert not torch.equal(seen[0], second)
        assert torch.equal(seen[0].sum((1, 2, 3)).sort().values, second.sum((1, 2, 3)).sort().values)

    def test_keys_come_back_in_the_order_of_their_queries(self, kind: type[MethodConfig]) -> None:
        """Without batch statistics a key does not depend on its neighbours: shuffled or not, it is the same."""
        queued = []
        for key_bn in ("shuffle", "plain"):
            if key_bn == "plain":
                with pytest.warns(UserWarning, match="share their batch statistics"):
                    method = small_method(kind, key_bn=key_bn)
            else:
                method = small_method(kind, key_bn=key_bn)
            method.eval()
            method.queue.train()
            method(views())
            queued.append(method.queue.offered.take()[0])
        torch.testing.assert_close(*queued)

    def test_no_groups_at_all_is_warned_about(self, kind: type[MethodConfig]) -> None:
        with pytest.warns(UserWarning, match="bn_splits of 2 or more"):
            small_method(kind, bn_splits=1)

    def test_a_batch_smaller_than_the_groups_is_refused(self, kind: type[MethodConfig]) -> None:
        with pytest.raises(ValueError, match="lower bn_splits"):
            small_method(kind, bn_splits=16)(views())


@pytest.mark.parametrize(
    "kind", [kind for kind in CONFIGS if "bn_splits" in {field.name for field in dataclasses.fields(kind)}]
)
def test_no_group_of_a_batch_ends_within_an_image(kind: type[MethodConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """A head sees as many images as the backbone, however many rows it has of each."""
    seen: dict[int, set[int]] = {2: set(), 4: set()}
    forward = SplitBatchNorm.forward

    def watched(norm: SplitBatchNorm, rows: Tensor, rows_of_an_image: int = 1) -> Tensor:
        seen[rows.ndim].add(len(rows) // rows_of_an_image)
        return forward(norm, rows, rows_of_an_image)

    monkeypatch.setattr(SplitBatchNorm, "forward", watched)
    method = small_method(kind, bn_splits=4)
    method(batch_of(method, 6))
    assert seen[2] <= seen[4]


@pytest.mark.parametrize(("kind", "choices"), QUEUED)
def test_a_queue_may_reach_back_as_far_as_there_are_other_images(
    kind: type[MethodConfig], choices: dict[str, Any]
) -> None:
    """And no further: by the keys that a step gives it."""
    images, batch = 20, 8
    method = small_method(kind, **choices)
    method(batch_of(method, batch))
    offered = [len(module.offered.take()[0]) for module in method.modules() if isinstance(module, Queue)]
    most = min(offered) // batch * (images - batch)
    sizes = dict.fromkeys(("queue_size", "aligned_queue_size"), most)
    small_method(kind, **choices | sizes).check_data(images, batch)
    with pytest.raises(ValueError, match=f"queue_size is {most + 1}, but .* leave {most} keys"):
        small_method(kind, **choices | sizes | {"queue_size": most + 1}).check_data(images, batch)


@pytest.mark.parametrize(
    ("kind", "choices", "logged", "expected"),
    [
        (BYOLConfig, {"target_momentum": 0.9}, "target_momentum", [0.9, 0.95, 1.0]),
        (LewelBConfig, {"target_momentum": 0.9, "target_momentum_end": 0.9}, "target_momentum", [0.9, 0.9, 0.9]),
        (MoCoV2Config, {"momentum": 0.9}, "key_momentum", [0.9, 0.9, 0.9]),
        (LewelMConfig, {"momentum": 0.9, "momentum_end": 1.0}, "key_momentum", [0.9, 0.95, 1.0]),
    ],
)
def test_the_momentum_follows_its_schedule(
    kind: type[MethodConfig], choices: dict[str, float], logged: str, expected: list[float]
) -> None:
    method = small_method(kind, **choices)
    found = [method.on_step_end(progress)[logged] for progress in (0.0, 0.5, 1.0)]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", [MoCoV2Config, LewelMConfig])
@pytest.mark.parametrize("key_bn", ["shuffle", "ema"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_masked_queries_meet_no_key_of_their_own_image(kind: type[MethodConfig], key_bn: str, symmetric: bool) -> None:
    """A queue longer than the data, which `check_data` refuses without the mask."""
    choices = {"key_bn": key_bn, "symmetric": symmetric, "queue_size": 40, "aligned_weight": 0.0}
    with pytest.raises(ValueError, match="queue_size is 40, but 12 images"):
        small_method(kind, **choices).check_data(12, 8)
    method = small_method(kind, **choices, mask="own").double()
    method.check_data(12, 8)
    dataset = method.dataset(Drawn(12), 16, 0)
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    for number in range(4):
        rows = (np.arange(8) + 8 * number) % 12
        batch = converted(dataset.on_device(dataset[Request(number, rows)].content), torch.float64)
        if number == 3:
            for module in method.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
            expected = literal_loss(method, batch[0], rows, symmetric)
        scalars = method(batch)
        assert "chance" not in scalars
        optimizer.zero_grad()
        scalars["loss"].backward()
        optimizer.step()
        method.on_step_end(0.0)
    assert scalars["loss"].item() == pytest.approx(expected, rel=1e-9)


def literal_loss(method: Any, shown: list[Tensor], rows: np.ndarray, symmetric: bool) -> float:
    """InfoNCE against the keys of other images in the queue, query by query."""
    embed = (moco_v2 if isinstance(method.config, MoCoV2Config) else lewel_m).embed
    total = 0.0
    for views_ in [shown, shown[::-1]] if symmetric else [shown]:
        with torch.no_grad():
            embedded = [
                embed(network, view) for network, view in zip((method, method.key_encoder), views_, strict=True)
            ]
        queries, keys = (normalize(getattr(one, "projection", one)) for one in embedded)
        for query, key, row in zip(queries, keys, rows, strict=True):
            others = method.queue.keys[method.queue.numbers != row]
            assert len(others) < len(method.queue)
            logits = torch.cat([query @ key[:, None], others @ query]) / method.config.temperature
            total += float(logits.logsumexp(0) - logits[0]) / len(rows)
    return total
