"""The promises of every method, whatever its equations: parametrised over all that the package exports."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_methods import CONFIGS, Drawn, batch_of, converted, mined, small_config, small_method, views
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.data import Batches, Images, Request
from ssl_backbones.data.placement import MEMORY_FORMATS, in_layout, mapped
from ssl_backbones.methods import (
    AlignedConfig,
    BYOLConfig,
    LewelBConfig,
    LewelMConfig,
    Method,
    MethodConfig,
    MoCoV2Config,
    RoBConfig,
    lewel_m,
    moco_v2,
)
from ssl_backbones.train.guards import StepUndo, all_finite

every_method = pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)


def state(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def step(method: Method, optimizer: torch.optim.Optimizer, seed: int, progress: float) -> float:
    torch.manual_seed(seed)
    loss = method(batch_of(method, seed=seed))["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    method.on_step_end(progress)
    return loss.item()


def sgd(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD([value for value in method.parameters() if value.requires_grad], lr=0.05, momentum=0.9)


def gradient(kind: type[MethodConfig], rows: np.ndarray) -> Tensor:
    """The gradient of a new method's loss on some of eight images, as one vector; batch statistics stand still."""
    method = small_method(kind).double()
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    dataset = method.dataset(mined(Drawn(8)), 16, 0)
    batch = converted(dataset.on_device(dataset[Request(0, rows)].content), torch.float64)
    torch.manual_seed(0)
    method.on_epoch_start(lambda: torch.randn(8, 64, dtype=torch.float64))
    parameters = [value for value in method.parameters() if value.requires_grad]
    return torch.cat([value.flatten() for value in torch.autograd.grad(method(batch)["loss"], parameters)])


def test_something_is_exported() -> None:
    assert len(CONFIGS) >= 4


@every_method
class TestEveryMethod:
    def test_a_batch_gives_a_loss_that_moves_the_backbone(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind)
        scalars = method(batch_of(method))
        assert scalars["loss"].shape == ()
        assert torch.isfinite(scalars["loss"])
        scalars["loss"].backward()
        for name, parameter in method.backbone.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_every_trained_parameter_gets_a_gradient(self, kind: type[MethodConfig]) -> None:
        """DistributedDataParallel waits for those that get none."""
        method = small_method(kind)
        method(batch_of(method))["loss"].backward()
        assert [name for name, value in method.named_parameters() if value.requires_grad and value.grad is None] == []

    def test_what_is_logged_holds_no_graph(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind)
        scalars = method(batch_of(method))
        others = [value for name, value in scalars.items() if name != "loss"]
        assert not any(isinstance(value, Tensor) and value.requires_grad for value in others)

    def test_the_state_moves_only_where_the_protocol_says(self, kind: type[MethodConfig]) -> None:
        """A forward pass may move batch statistics; targets and queues wait for the end of the step."""
        method = small_method(kind)
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        batch = batch_of(method)
        before = state(method)
        method(batch)["loss"].backward()
        after = state(method)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert all(name.endswith(statistics) for name in moved)

    def test_a_step_that_a_scaler_leaves_out_leaves_nothing_behind(self, kind: type[MethodConfig]) -> None:
        """Infinite images: statistics are put back, the queue never sees their keys, and training goes on as if new."""
        overflowing, other = small_method(kind), small_method(kind)
        undo = StepUndo(overflowing, scaled=True)
        batch, other_batch = batch_of(overflowing), batch_of(other)
        before = state(overflowing)
        undo.begin()
        infinite = mapped(lambda part: part * math.inf if part.is_floating_point() else part, batch)
        overflowing(infinite)["loss"].backward()
        overflowing.zero_grad()
        assert not all_finite(overflowing)
        undo.undo()
        assert all(torch.equal(value, before[name]) for name, value in overflowing.state_dict().items())
        for method, shown in ((overflowing, batch), (other, other_batch)):
            torch.manual_seed(2)
            method(shown)["loss"].backward()
            method.on_step_end(0.5)
        assert all(torch.equal(value, state(other)[name]) for name, value in overflowing.state_dict().items())

    def test_the_chance_is_the_loss_of_a_network_that_tells_nothing_apart(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind)
        chance = method(batch_of(method)).get("chance")
        if chance is None:
            pytest.skip("its loss has no level of chance")
        with torch.no_grad():  # embeddings without direction are equally like all others
            for name, value in method.named_parameters():
                if not name.startswith("backbone."):
                    value.zero_()
        assert method(batch_of(method))["loss"].item() == pytest.approx(chance, rel=1e-3)

    def test_accumulation_is_as_exact_as_it_says(self, kind: type[MethodConfig]) -> None:
        """The gradient of a batch against that of its halves, with batch statistics out of the way."""
        whole, *halves = (gradient(kind, rows) for rows in (np.arange(8), np.arange(4), np.arange(4, 8)))
        apart = ((whole - sum(halves) / 2).norm() / whole.norm()).item()
        assert apart < 1e-9 if small_method(kind).accumulation_is_exact else apart > 1e-4

    def test_a_run_can_be_cut_in_two(self, kind: type[MethodConfig]) -> None:
        """The state_dict and the optimiser hold all there is: a copy made from them goes on alike, bit for bit."""
        whole = small_method(kind)
        optimizer = sgd(whole)
        for number in range(3):
            step(whole, optimizer, seed=number, progress=number / 6)
        other = small_method(kind, seed=99)
        batch_of(other)  # makes its data known to it, as the loop does before it restores anything
        other.load_state_dict(whole.state_dict())
        other_optimizer = sgd(other)
        other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for number in range(3, 6):
            losses = [
                step(*pair, seed=number, progress=number / 6) for pair in ((whole, optimizer), (other, other_optimizer))
            ]
            assert losses[0] == losses[1]
        for name, value in whole.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name

    def test_a_small_step_down_the_gradient_lowers_the_loss(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind).double()
        losses = []
        for _ in range(2):
            torch.manual_seed(3)
            loss = method(batch_of(method, dtype=torch.float64))["loss"]
            losses.append(loss.item())
            method.zero_grad()
            loss.backward()
            moved = [parameter for parameter in method.parameters() if parameter.grad is not None]
            length = torch.stack([parameter.grad.norm() for parameter in moved]).norm()
            with torch.no_grad():
                for parameter in moved:
                    parameter -= 1e-4 / max(1, length) * parameter.grad
        assert losses[1] < losses[0]

    def test_bfloat16_stays_near_single_precision(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind)
        torch.manual_seed(0)
        exact = method(batch_of(method))["loss"].item()
        method = small_method(kind)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = method(batch_of(method))["loss"]
        rounded.backward()
        assert rounded.item() == pytest.approx(exact, rel=0.03, abs=0.02)  # logits are cosines times up to ten

    def test_channels_last_gives_the_same_loss(self, kind: type[MethodConfig]) -> None:
        losses = []
        for name, layout in MEMORY_FORMATS.items():
            method = small_method(kind).double().to(memory_format=layout)
            torch.manual_seed(3)
            batch = in_layout(batch_of(method, dtype=torch.float64), name)
            losses.append(method(batch)["loss"].item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-10)

    def test_images_become_a_batch(self, kind: type[MethodConfig], small_images: list[Image.Image]) -> None:
        """From decoded images to the loss, by the method's own transform and dataset; both pickle for workers."""

        class Six(Images):
            keys = tuple("abcdef")
            labels = np.array([0, 1, 2, 0, 1, 2])
            classes = ("x", "y", "z")
            fingerprint = "six"

            def __getitem__(self, index: int) -> Image.Image:
                return small_images[index]

        method = small_method(kind)
        assert pickle.loads(pickle.dumps(method.transform(16))) == method.transform(16)
        dataset: Batches = method.dataset(mined(Six()), 16, seed=5)
        batch = dataset[Request(epoch=2, indices=np.arange(6))]
        again = dataset[Request(epoch=2, indices=np.arange(6))]
        torch.testing.assert_close(batch.content, again.content, rtol=0, atol=0)
        assert torch.isfinite(method(dataset.on_device(batch.content))["loss"])

    def test_the_configuration_is_frozen_and_small(self, kind: type[MethodConfig]) -> None:
        config = small_config(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.hidden_dim = 3  # type: ignore[attr-defined,misc]


WITH_MAPS = [LewelBConfig, LewelMConfig, AlignedConfig, RoBConfig]
aligned = pytest.mark.parametrize("kind", WITH_MAPS, ids=lambda kind: kind.__name__)


@aligned
class TestLewelSwitches:
    @pytest.mark.parametrize(
        "choices",
        [
            {"coupled_head": False},
            {"semantic_head": "shared"},
            {"alignment": "random"},
            {"alignment": "uniform"},
            {"groups": 1},
            {"groups": 16},
            {"map_l2_norm": False},
            {"map_scale": 0.2},
            {"num_layers": 1},
            {"num_layers": 3},
            {"aligned_dim": 24},
            {"aligned_weight": 0.0},
            {"aligned_weight": 1.0},
            {"symmetric": True},
            {"key_bn": "ema", "target_bn": "plain"},
            {"gather_aligned_keys": False},
        ],
        ids=str,
    )
    def test_every_ablation_trains(self, kind: type[MethodConfig], choices: dict[str, object]) -> None:
        method = small_method(kind, **choices)
        loss = method(views())["loss"]
        loss.backward()
        method.on_step_end(0.0)
        assert torch.isfinite(loss)
        assert method.backbone.conv1.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize("alignment", ["predicted", "random", "uniform"])
    @pytest.mark.parametrize("coupled_head", [True, False])
    def test_all_that_is_trained_gets_a_gradient(
        self, kind: type[MethodConfig], alignment: str, coupled_head: bool
    ) -> None:
        """Or several processes would wait for one another's in vain."""
        method = small_method(kind, alignment=alignment, coupled_head=coupled_head)
        method(views())["loss"].backward()
        trained = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
        assert not [name for name, weight in trained.items() if weight.grad is None]

    def test_uniform_maps_are_the_mean(self, kind: type[MethodConfig]) -> None:
        method = small_method(kind, alignment="uniform")
        maps = method.alignment_maps(views()[0])
        torch.testing.assert_close(maps, torch.full_like(maps, 1 / maps[0, 0].numel()))

    def test_maps_sum_to_one(self, kind: type[MethodConfig]) -> None:
        maps = small_method(kind).alignment_maps(views()[0])
        assert maps.shape == (8, 16, 4, 4)
        torch.testing.assert_close(maps.sum((2, 3)), torch.ones(8, 16))

    def test_the_weight_mixes_the_losses(self, kind: type[MethodConfig]) -> None:
        scalars = small_method(kind, aligned_weight=0.3)(views())
        expected = 0.7 * scalars["global_loss"] + 0.3 * scalars["aligned_loss"]
        torch.testing.assert_close(scalars["loss"].detach(), expected)

    @pytest.mark.parametrize(
        ("choices", "words"),
        [
            ({"groups": 3}, "groups=3 must divide projection_dim=16; these do: 1, 2, 4, 8, 16"),
            ({"groups": 64, "projection_dim": 192, "aligned_dim": 64}, None),
            ({"groups": 6, "projection_dim": 24}, "groups=6 must divide the backbone's width=64; .*: 1, 2, 4, 8$"),
            ({"aligned_weight": 1.5}, "aligned_weight"),
            ({"map_scale": 0.0}, "map_scale"),
            ({"map_scale": float("inf")}, "map_scale must be positive and finite"),
            ({"alignment": "guessed"}, "alignment must be one of predicted, random, uniform"),
            ({"semantic_head": "none"}, "semantic_head must be one of separate, shared"),
            ({"semantic_head": "shared", "aligned_dim": 8}, "aligned_dim=8 must equal projection_dim=16"),
            ({"hidden_dim": 0}, "hidden_dim"),
        ],
        ids=str,
    )
    def test_a_wrong_choice_is_refused_in_words(
        self, kind: type[MethodConfig], choices: dict[str, object], words: str | None
    ) -> None:
        if words is None:
            small_method(kind, **choices)
            return
        with pytest.raises(ValueError, match=words):
            small_method(kind, **choices)


@pytest.mark.parametrize("kind", [MoCoV2Config, LewelMConfig], ids=lambda kind: kind.__name__)
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
            queued.append(torch.cat(method.queue.offered))
        torch.testing.assert_close(*queued)

    def test_no_groups_at_all_is_warned_about(self, kind: type[MethodConfig]) -> None:
        with pytest.warns(UserWarning, match="bn_splits of 2 or more"):
            small_method(kind, bn_splits=1)

    def test_a_batch_smaller_than_the_groups_is_refused(self, kind: type[MethodConfig]) -> None:
        with pytest.raises(ValueError, match="lower bn_splits"):
            small_method(kind, bn_splits=16)(views())


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
    optimizer = sgd(method)
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
