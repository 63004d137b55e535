"""SwAV and DINO: recorded numbers, slow literal versions of their losses, queue, freezing, centre and schedules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import batch_of, small_method
from test_joint_embedding_methods import widths
from test_rivals import RECORDED, assert_recorded, raw, unit
from torch import Tensor, nn
from torch.nn.functional import normalize
from two_processes import run_two_processes

from ssl_backbones.distributed import gather
from ssl_backbones.losses import sinkhorn, swapped_prediction
from ssl_backbones.methods import DINOConfig, MethodConfig, SwAVConfig
from ssl_backbones.methods.dino import dino_head
from ssl_backbones.models.prototypes import Prototypes
from ssl_backbones.recipes import get
from ssl_backbones.recipes.dino import RECIPES as DINO_RECIPES
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.train.optimization import build_optimizer, clip_gradients
from ssl_backbones.views import SWAV_VIEWS
from ssl_backbones.weightless import weightless

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


class TestSwAV:
    @pytest.mark.parametrize("case", ["multi_crop", "two_views", "queue"])
    def test_recorded_numbers(self, case: str) -> None:
        given_, recorded = RECORDED[f"swav/{case}"]["inputs"], RECORDED[f"swav/{case}"]["outputs"]
        count, dim, past = given_["B"], given_["D"], given_["queue"]
        choices = {"prototypes": given_["K"], "projection_dim": dim, "queue_size": past, "crops": 0}
        method = small_method(SwAVConfig, **choices, frozen_steps=0).double()
        z = unit(given_["crops"] * count, dim, b=given_["b_z"]).requires_grad_()
        method.prototypes.weight.data.copy_(unit(given_["K"], dim, b=given_["b_C"]))
        queues = unit(2, past, dim, b=given_["b_q"]) if past else []
        for queue, keys in zip(method.queues, queues, strict=True):
            queue.keys.copy_(keys)
            queue.numbers.zero_()
        scores = method.prototypes(z).view(given_["crops"], count, -1)
        assigned = torch.stack([method.assign(view, z.view(-1, count, dim)[view], scores[view]) for view in range(2)])
        loss = swapped_prediction(scores, assigned, given_["temperature"])
        assert loss.item() == pytest.approx(recorded["loss"], rel=1e-9)
        assert assigned[0, 0].tolist() == pytest.approx(recorded["q_view1_row0"], rel=1e-9)
        assert assigned[1, -1].tolist() == pytest.approx(recorded["q_view2_last_row"], rel=1e-9)
        assert assigned[0].sum(0).tolist() == pytest.approx(recorded["q_view1_column_sums"], rel=1e-9)
        of_z, of_prototypes = torch.autograd.grad(loss, (z, method.prototypes.weight))
        assert_recorded(of_z, recorded["grad"]["z"])
        assert_recorded(of_prototypes, recorded["grad"]["C"])

    @settings(max_examples=20, deadline=None)
    @given(sizes, sizes, st.floats(0.005, 1), st.integers(1, 4), seeds)
    def test_sinkhorn_is_the_algorithm(
        self, count: int, prototypes: int, epsilon: float, turns: int, seed: int
    ) -> None:
        scores = torch.rand(count, prototypes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        q = [[math.exp(float(value) / epsilon) for value in row] for row in scores]
        whole = sum(map(sum, q))
        q = [[value / whole for value in row] for row in q]
        for _ in range(turns):
            columns = [sum(row[k] for row in q) for k in range(prototypes)]
            q = [[row[k] / columns[k] / prototypes for k in range(prototypes)] for row in q]
            q = [[value / sum(row) / count for value in row] for row in q]
        expected = torch.tensor(q, dtype=torch.float64) * count
        torch.testing.assert_close(sinkhorn(scores, epsilon, turns), expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("epsilon", [0.05, 0.005, 0.0005])
    def test_a_small_epsilon_leaves_single_precision_no_empty_row(self, epsilon: float) -> None:
        """Cosines far from 1, as all are at first: exp((s - 1) / epsilon) is 0 in single precision from 0.009 down."""
        scores = unit(12, 32, b=0.1) @ unit(20, 32, b=0.7).T
        found = sinkhorn(scores.float(), epsilon)
        torch.testing.assert_close(found.sum(1), torch.ones(12))
        torch.testing.assert_close(found.double(), sinkhorn(scores, epsilon), rtol=0, atol=1e-3)
        logits = torch.stack([scores, scores.flip(0)]).float()
        assert swapped_prediction(logits, found[None], 0.1) > 0

    def test_rows_that_do_not_count_change_nothing(self) -> None:
        scores = torch.rand(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        counted = torch.tensor([0.0] * 4 + [1.0] * 5, dtype=torch.float64)
        torch.testing.assert_close(sinkhorn(scores, 0.05, 3, counted)[4:], sinkhorn(scores[4:], 0.05, 3))

    @settings(max_examples=20, deadline=None)
    @given(st.integers(2, 4), st.integers(1, 2), sizes, sizes, st.floats(0.1, 1), seeds)
    def test_swapped_prediction_is_the_equation(
        self, views: int, assigned: int, count: int, prototypes: int, tau: float, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(views, count, prototypes, generator=generator, dtype=torch.float64)
        targets = torch.rand(assigned, count, prototypes, generator=generator, dtype=torch.float64)
        losses = []
        for s in range(assigned):
            for t in range(views):
                for b in range(count) if s != t else ():
                    shares = [math.exp(float(value) / tau) for value in logits[t, b]]
                    likely = [math.log(share / sum(shares)) for share in shares]
                    losses.append(-sum(float(q) * p for q, p in zip(targets[s, b], likely, strict=True)))
        found = swapped_prediction(logits, targets, tau).item()
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-9, abs=1e-12)

    def test_a_queue_counts_once_it_is_full_and_its_time_has_come(self) -> None:
        method = small_method(SwAVConfig, queue_size=16, queue_after=0.5).double()
        alone = small_method(SwAVConfig, queue_size=0).double()
        equal = []
        for number, progress in enumerate((0.0, 0.3, 0.6, 0.7)):
            alone.load_state_dict({name: method.state_dict()[name] for name in alone.state_dict()})
            batch = batch_of(method, dtype=torch.float64, seed=number)
            equal.append(method(batch)["loss"].item() == pytest.approx(alone(batch)["loss"].item(), rel=1e-12))
            method.on_step_end(progress)
        assert equal == [True, True, True, False]

    def test_prototypes_stay_on_the_sphere(self) -> None:
        method = small_method(SwAVConfig, frozen_steps=0)
        method.prototypes.weight.data.mul_(3)
        method.on_step_end(0.0)
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))

    @pytest.mark.parametrize(
        ("choices", "sentence"),
        [
            ({"prototypes": 3}, "prototypes is 3, but must be at least the 4 crops of an image"),
            ({"queue_size": -1}, "queue_size is -1, but must be at least 0"),
            ({"queue_after": 2.0}, "queue_after is a share"),
            ({"epsilon": 0.0}, "epsilon must be positive"),
        ],
        ids=str,
    )
    def test_a_wrong_choice_is_refused_in_words(self, choices: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            small_method(SwAVConfig, **choices)

    def test_a_queue_that_is_no_multiple_of_the_batch_is_refused_in_words(self) -> None:
        method = small_method(SwAVConfig, queue_size=12)
        with pytest.raises(ValueError, match=r"^queue_size is 12, but must be a multiple of the batch of 8 images"):
            method.check_data(100, 8)
        method.check_data(100, 4)


def assigned_in_parts(rank: int) -> Tensor:
    scores = torch.rand(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return sinkhorn(scores[4 * rank : 4 * rank + 4], gathered=gather)


def test_two_processes_assign_what_one_does() -> None:
    scores = torch.rand(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(torch.cat(run_two_processes(assigned_in_parts)), sinkhorn(scores), rtol=1e-12, atol=0)


class TestDINO:
    @pytest.mark.parametrize("case", ["sharp", "softer"])
    def test_recorded_numbers(self, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
        given_, recorded = RECORDED[f"dino/{case}"]["inputs"], RECORDED[f"dino/{case}"]["outputs"]
        count, outputs = given_["B"], given_["K"]
        student = (2 * raw(given_["crops"] * count, outputs, b=given_["b_s"])).requires_grad_()
        teacher = 2 * raw(2 * count, outputs, b=given_["b_t"])
        choices = {"teacher_temperature": given_["teacher_temp"], "teacher_temperature_start": given_["teacher_temp"]}
        method = small_method(DINOConfig, outputs=outputs, **choices).double()
        method.temperature.fill_(given_["teacher_temp"])
        method.center.copy_(0.3 * raw(outputs, b=given_["b_c"]))
        given_outputs = {method: student, method.teacher: teacher}
        monkeypatch.setattr(
            "ssl_backbones.methods.dino.outputs",
            lambda network, views: given_outputs[network].view(len(views), count, outputs),
        )
        loss = method([torch.zeros(count)] * given_["crops"])["loss"]
        assert loss.item() == pytest.approx(recorded["loss"], rel=1e-9)
        assert_recorded(torch.autograd.grad(loss, student)[0], recorded["grad"]["student"])
        method.on_step_end(0.0)
        assert method.center.tolist() == pytest.approx(recorded["center_after"], rel=1e-9)
        again = method([torch.zeros(count)] * given_["crops"])["loss"]
        assert again.item() == pytest.approx(recorded["loss_next_step_same_inputs"], rel=1e-9)

    def test_the_recorded_head(self) -> None:
        given_, recorded = RECORDED["dino_head/plain"]["inputs"], RECORDED["dino_head/plain"]["outputs"]
        head = dino_head(given_["in"], given_["hidden"], given_["bottleneck"], 3).double()
        last = Prototypes(given_["out"], given_["bottleneck"], weight_norm=True).double()
        for number, weight in enumerate([*head.parameters(), *last.parameters()]):
            weight.data.copy_(0.5 * raw(*weight.shape, b=given_["b"] + number))
        rows = last(normalize(head(unit(given_["B"], given_["in"], b=given_["b"] - 1)), dim=1))
        assert rows[0].tolist() == pytest.approx(recorded["row0"], rel=1e-9)
        assert rows.norm().item() == pytest.approx(recorded["norm"], rel=1e-9)

    @pytest.mark.parametrize("recipe", DINO_RECIPES, ids=lambda recipe: recipe.name)
    def test_the_first_step_turns_no_embedding_round(self, recipe: Recipe) -> None:
        """The bias before the last layer moves by less than embeddings are long, of whatever widths a head is."""
        torch.manual_seed(0)
        config: Any = recipe.method
        width = {"resnet8": 64, "resnet50": 2048}.get(recipe.model.partition("_")[0], 512)
        head = dino_head(width, config.hidden_dim, config.projection_dim, config.num_layers)
        last = Prototypes(min(config.outputs, 4096), config.projection_dim, weight_norm=True)
        embeddings = head((0.5 + 0.2 * torch.randn(2, 32, width)).relu())
        scores = last(normalize(embeddings, dim=2))
        targets = (scores / config.temperature_at(0.0)).softmax(2)
        swapped_prediction(scores, targets, config.student_temperature).backward()
        longest = min(float(recipe.optimizer.clip), float(head[-1].bias.grad.norm()))
        assert recipe.peak_lr * longest < 0.5 * float(embeddings.detach().norm(dim=2).mean())

    def test_the_recorded_momentum(self) -> None:
        given_ = RECORDED["dino_schedule/momentum"]["inputs"]
        steps = given_["epochs"] * given_["per_epoch"]
        found = [ema_momentum(step / steps, given_["base"], given_["final"]) for step in range(steps)]
        assert found == pytest.approx(RECORDED["dino_schedule/momentum"]["outputs"]["values"], rel=1e-11)

    def test_the_recorded_rate_after_its_warm_up(self) -> None:
        """Theirs rises from 0 before the first step, ours is at its peak in the last step of the rise."""
        given_ = RECORDED["dino_schedule/lr"]["inputs"]
        schedule = ScheduleConfig(
            warmup_epochs=given_["warmup"], per="step", end_share=given_["final"] / given_["base"]
        )
        steps = range(given_["epochs"] * given_["per_epoch"])
        found = [
            given_["base"] * schedule.factor(step, given_["per_epoch"], given_["epochs"], len(steps)) for step in steps
        ]
        recorded = RECORDED["dino_schedule/lr"]["outputs"]["values"]
        risen = given_["warmup"] * given_["per_epoch"]
        assert found[risen:] == pytest.approx(recorded[risen:], rel=1e-11)
        assert found[risen - 1] == recorded[risen - 1] == given_["base"]

    def test_the_temperature_rises_and_stays(self) -> None:
        method = small_method(DINOConfig, teacher_temperature=0.07, temperature_rise=0.5)
        found = [method.on_step_end(progress)["teacher_temperature"] for progress in (0.0, 0.25, 0.5, 0.9)]
        assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])

    def test_the_teacher_is_published(self) -> None:
        method = small_method(DINOConfig, target_momentum=1 - 1e-9)
        batch = batch_of(method)
        optimizer = torch.optim.SGD([weight for weight in method.parameters() if weight.requires_grad], lr=0.1)
        before = [weight.clone() for weight in method.published.parameters()]
        method(batch)["loss"].backward()
        optimizer.step()
        method.on_step_end(0.0)
        assert method.published is method.teacher.backbone
        torch.testing.assert_close([*method.published.parameters()], before, rtol=0, atol=1e-7)
        assert not torch.equal(method.backbone.conv1.weight, method.published.conv1.weight)


@pytest.mark.parametrize(("kind", "part"), [(SwAVConfig, "prototypes"), (DINOConfig, "last")])
def test_prototypes_stand_still_at_first(kind: type[MethodConfig], part: str) -> None:
    """Their gradient is exactly zero, and no weight decay or momentum turns them."""
    method = small_method(kind, frozen_steps=2)
    weight = getattr(method, part).weight
    weights = [value for value in method.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.5, momentum=0.9, weight_decay=0.1)
    turned = []
    for _ in range(4):
        before = normalize(weight.detach().clone(), dim=1)
        optimizer.zero_grad()
        method(batch_of(method))["loss"].backward()
        assert weight.grad is not None
        still = bool((weight.grad == 0).all())
        optimizer.step()
        method.on_step_end(0.0)
        alike = (before * normalize(weight.detach(), dim=1)).sum(1)
        turned.append((still, bool((alike > 1 - 1e-6).all())))
    assert turned[:2] == [(True, True)] * 2
    assert not any(still for still, _ in turned[2:])
    assert not any(same for _, same in turned[2:])


@pytest.mark.parametrize(
    ("config", "heads", "count"),
    [
        (SwAVConfig(), {"head": [2048, 2048, 128]}, 4_462_720 + 384_000),
        (DINOConfig(), {"head": [2048, 2048, 2048, 256]}, 2 * (2048 * 2049) + 2049 * 256 + 65536 * 256),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_heads_are_the_papers(config: MethodConfig, heads: dict[str, list[int]], count: int) -> None:
    with weightless():
        method = config.build(timm.create_model("resnet50", num_classes=0))
    assert {name: widths(getattr(method, name)) for name in heads} == heads
    learning = [weight for name, weight in method.named_parameters() if not name.startswith(("backbone", "teacher"))]
    assert sum(weight.numel() for weight in learning) == count


@pytest.mark.parametrize("kind", [SwAVConfig, DINOConfig], ids=lambda kind: kind.__name__)
def test_each_size_goes_through_the_network_once(kind: type[MethodConfig]) -> None:
    method = small_method(kind, crops=3)
    seen: list[tuple[int, ...]] = []
    method.backbone.conv1.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape)))
    method(batch_of(method, count=4, size=16))
    assert seen == [(8, 3, 16, 16), (12, 3, 8, 8)]


def test_the_rates_of_swav_are_the_papers() -> None:
    recipe = get("resnet50_swav.in1k_400ep")
    assert recipe.lr(0, 312) == pytest.approx(0.3 + 4.5 / 3120)
    assert recipe.lr(3120, 312) == pytest.approx(4.8)
    assert recipe.lr(400 * 312 - 1, 312) == pytest.approx(0.0048, rel=1e-3)
    small = get("resnet50_swav.in1k_200ep_bs256")
    assert (small.lr(0, 5004), small.method.queue_after) == (0.6, 15 / 200)  # type: ignore[attr-defined]
    assert SWAV_VIEWS[0].side(224) == 224
    assert [policy.side(224) for policy in recipe.method.policies] == [224] * 2 + [96] * 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_gradients_are_cut_as_torch_cuts_each(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, be they longer, shorter or zero; and not one after another."""
    shapes, scales = [(5, 3), (7,), (2, 3, 4, 4), (), (6,)], [9.0, 1e-3, 2.0, 5.0, 0.0]
    learning = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    expected = []
    for weights, scale in zip(learning, scales, strict=True):
        weights.grad = scale * torch.randn_like(weights)
        alone = nn.Parameter(torch.zeros_like(weights))
        alone.grad = weights.grad.clone()
        nn.utils.clip_grad_norm_(alone, 1.5)
        expected.append(alone.grad)
    without = nn.Parameter(torch.zeros(3))
    monkeypatch.delattr(nn.utils, "clip_grad_norm_")
    for chosen in ([without], [*learning, without]):
        clip_gradients(torch.optim.SGD(chosen, 0.1), 1.5, "parameter")
    assert all(torch.equal(weights.grad, cut) for weights, cut in zip(learning, expected, strict=True))
    assert without.grad is None


@pytest.mark.parametrize("kind", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("clip_per", ["parameter", "all"])
def test_gradients_are_cut_to_length_before_a_step(kind: Any, clip_per: Any) -> None:
    network = nn.Linear(3, 2)
    chosen = OptimizerConfig(kind, clip=3.0, clip_per=clip_per)
    optimizer = build_optimizer(network, replace(get("sample"), optimizer=chosen))
    network.weight.grad, network.bias.grad = torch.full((2, 3), 4.0), torch.full((2,), 0.1)
    optimizer.step()
    norms = [float(weight.grad.norm()) for weight in network.parameters() if weight.grad is not None]
    if clip_per == "parameter":
        assert norms == pytest.approx([3.0, 0.1 * math.sqrt(2)], rel=1e-4)
    else:
        assert np.hypot(*norms) == pytest.approx(3.0, rel=1e-4)
        assert norms[1] < 0.1
