"""A recipe: what it refuses, how it is written and read, and the optimiser it asks for."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.optimizers import LARS
from ssl_backbones.recipes.recipe import FREE, Recipe
from ssl_backbones.recipes.settings import Checkpoints, Monitoring, OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.train.optimization import build_optimizer, parameter_groups, set_hyperparameters


@dataclass(frozen=True)
class Ring:
    width: int = 2
    colours: tuple[float, float] = (0.1, 0.2)


@dataclass(frozen=True)
class JugglingConfig(MethodConfig):
    name: ClassVar[str] = "juggling"

    balls: int = 3
    rings: tuple[Ring, Ring] = (Ring(), Ring(3))

    def __post_init__(self) -> None:
        if self.balls < 1:
            raise ValueError(f"balls must be positive, not {self.balls}")

    def build(self, backbone: nn.Module) -> Method:
        raise NotImplementedError


PROMISE = Promise("A paper", "Table 1", "photos", 3, "a laptop", None, "not measured")


def made(**choices: Any) -> Recipe:
    return Recipe(name="juggling.test", model="resnet8_juggling", method=JugglingConfig(), promise=PROMISE, **choices)


RECIPES = st.builds(
    made,
    size=st.integers(1, 512),
    epochs=st.integers(11, 1000),
    batch_size=st.integers(1, 4096),
    optimizer=st.builds(
        OptimizerConfig,
        kind=st.sampled_from(["sgd", "lars", "adamw", "adam"]),
        lr=st.floats(1e-6, 10),
        lr_rule=st.sampled_from(["per 256", "absolute"]),
        momentum=st.floats(0, 1, exclude_max=True),
        weight_decay=st.floats(0, 1),
        exclude_norm_and_bias=st.booleans(),
        trust=st.sampled_from(["sum", "update"]),
    ),
    schedule=st.builds(
        ScheduleConfig,
        kind=st.sampled_from(["cosine", "step", "constant"]),
        warmup_epochs=st.integers(0, 10),
        milestones=st.lists(st.integers(1, 100), unique=True).map(lambda epochs: tuple(sorted(epochs))),
    ),
    seed=st.integers(0, 2**63 - 1),
    workers=st.none() | st.integers(0, 64),
    trackers=st.lists(st.sampled_from(["tensorboard", "wandb"])).map(tuple),
    monitoring=st.builds(Monitoring, knn_every=st.integers(0, 10)),
    checkpoints=st.builds(Checkpoints, every_minutes=st.floats(0, 100)),
    out=st.text(max_size=5),
)


@given(RECIPES)
@settings(max_examples=50, deadline=None)
def test_survives_json(recipe: Recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict(), allow_nan=False))) == recipe


def test_nested_parts_survive_json_with_their_class():
    method = JugglingConfig(5, (Ring(7, (0.5, 1.0)), Ring()))
    plain = json.loads(json.dumps(replace(made(), method=method).to_dict()))
    assert plain["method"]["type"] == "JugglingConfig"
    assert Recipe.from_dict(plain).method == method


def edited(path: str, value: Any) -> dict[str, Any]:
    """A recipe's plain form with one value put at a dotted path."""
    plain: Any = json.loads(json.dumps(made().to_dict()))
    *way, last = path.split(".")
    part = plain
    for name in way:
        part = part[int(name)] if isinstance(part, list) else part[name]
    part[last] = value
    return dict(plain)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("epochs", "3", "epochs is '3', but must be a whole number."),
        ("epochs", 3.5, "epochs is 3.5, but must be a whole number."),
        ("epochs", True, "epochs is True, but must be a whole number."),
        ("compile", 1, "compile is 1, but must be true or false."),
        ("workers", "many", "workers is 'many', but must be a whole number or None."),
        ("trackers", [1], "trackers.0 is 1, but must be text."),
        ("trackers", "wandb", "trackers is 'wandb', but must be any number of values, each text."),
        ("optimizer.betas", [0.9], "optimizer.betas is [0.9], but must be 2 values, each a number."),
        ("optimizer.trust", "ratio", "optimizer.trust is 'ratio', but must be one of sum, update."),
        ("optimizer", 3, "optimizer is 3, but must hold the fields of OptimizerConfig."),
        ("epoch", 3, "epoch is not a field of Recipe; the nearest: epochs."),
        ("optimizer.momentums", 0.5, "optimizer.momentums is not a field of OptimizerConfig; the nearest: momentum."),
        ("method.rings.1.width", "x", "method.rings.1.width is 'x', but must be a whole number."),
        ("method.balls", 0, "balls must be positive, not 0"),
    ],
)
def test_reading_refuses_in_a_sentence(path: str, value: Any, sentence: str):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - compared to the letter
        Recipe.from_dict(edited(path, value))
    assert str(refusal.value) == sentence


def test_reading_names_the_methods_there_are_and_what_is_missing():
    with pytest.raises(ValueError, match=r"^method.type is 'Jugling', but must be one of .*JugglingConfig.*\.$"):
        Recipe.from_dict(edited("method.type", "Jugling"))
    plain = made().to_dict()
    del plain["model"]
    with pytest.raises(ValueError, match=r"not complete.*'model'"):
        Recipe.from_dict(plain)


@pytest.mark.parametrize(
    ("part", "choice"),
    [
        *[(Recipe, {name: 0}) for name in ("size", "epochs", "batch_size", "log_every")],
        (Recipe, {"accumulation": -1}),
        (Recipe, {"epochs": 2.5}),
        (Recipe, {"epochs": "3"}),
        (Recipe, {"batch_size": 10, "accumulation": 3}),
        (Recipe, {"precision": "fp8"}),
        (Recipe, {"seed": -1}),
        (Recipe, {"workers": -1}),
        (Recipe, {"unreadable_share": 1.5}),
        (Recipe, {"optimizer": "sgd"}),
        (Recipe, {"trackers": "tensorboard"}),
        (Recipe, {"epochs": 10, "schedule": ScheduleConfig(warmup_epochs=10)}),
        (OptimizerConfig, {"kind": "rmsprop"}),
        (OptimizerConfig, {"lr": 0.0}),
        (OptimizerConfig, {"lr": math.nan}),
        (OptimizerConfig, {"lr": math.inf}),
        (OptimizerConfig, {"momentum": 1.0}),
        (OptimizerConfig, {"betas": (0.9, 1.0)}),
        (OptimizerConfig, {"weight_decay": -1e-4}),
        (OptimizerConfig, {"trust_coefficient": 0.0}),
        (ScheduleConfig, {"per": "minute"}),
        (ScheduleConfig, {"warmup_epochs": -1}),
        (ScheduleConfig, {"milestones": (40, 30)}),
        (ScheduleConfig, {"milestones": (0, 30)}),
        (ScheduleConfig, {"decay": 0.0}),
        (ScheduleConfig, {"power": 0.0}),
        (ScheduleConfig, {"warmup_steps": -1}),
        (ScheduleConfig, {"warmup_steps": 3}),
        (ScheduleConfig, {"kind": "step", "warmup_steps": 3, "warmup_epochs": 1}),
        (ScheduleConfig, {"kind": "step", "milestone_steps": (9, 3)}),
        (ScheduleConfig, {"kind": "step", "milestone_steps": (9,), "milestones": (1,)}),
        (Recipe, {"max_steps": -1}),
        (OptimizerConfig, {"backbone_lr": 0.0}),
        (Monitoring, {"knn_every": -1}),
        (Monitoring, {"k": 0}),
        (Monitoring, {"bank": 0}),
        (Checkpoints, {"every_steps": -1}),
        (Checkpoints, {"every_minutes": math.nan}),
        (Checkpoints, {"keep": 0}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "-".join(map(str, value)),
)
def test_making_refuses_in_a_sentence(part: Any, choice: dict[str, Any]):
    with pytest.raises(ValueError, match=r"^[a-z_.]+ is .+, but must be .+\.$"):
        (made if part is Recipe else part)(**choice)


def test_the_rate_rule_and_its_sentence():
    scaled = made(batch_size=1024, optimizer=OptimizerConfig("lars", 0.9))
    assert scaled.peak_lr == 3.6
    assert scaled.lr_sentence() == "Learning rate 0.9 per 256 images x 1024 images = 3.6."
    fixed = made(batch_size=1024, optimizer=OptimizerConfig("lars", 0.9, lr_rule="absolute"))
    assert fixed.peak_lr == 0.9
    assert "0.9, as given" in fixed.lr_sentence()


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (ScheduleConfig(), [1.0, 1.0, 0.75, 0.75, 0.25, 0.25]),
        (ScheduleConfig(per="step"), [1.0, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
        (ScheduleConfig(warmup_epochs=1), [0.5, 1.0, 1.0, 1.0, 0.5, 0.5]),
        (ScheduleConfig("constant", warmup_epochs=1), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (ScheduleConfig("step", milestones=(1, 2)), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
        (ScheduleConfig("step", warmup_steps=2, milestone_steps=(3, 5)), [0.5, 1.0, 1.0, 0.1, 0.1, 0.01]),
        (ScheduleConfig("poly", power=1.0), [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        (ScheduleConfig("poly", power=2.0, warmup_steps=2), [0.5, 25 / 36, 16 / 36, 9 / 36, 4 / 36, 1 / 36]),
    ],
)
def test_rates_of_three_epochs_of_two_steps(schedule: ScheduleConfig, rates: list[float]):
    recipe = made(epochs=3, schedule=schedule, optimizer=OptimizerConfig(lr=2.0, lr_rule="absolute"))
    optimizer = torch.optim.SGD([{"params": [torch.ones(1)]}, {"params": [torch.ones(1)], "lr_scale": 0.5}], 9.0)
    for step, rate in enumerate(rates):
        assert set_hyperparameters(optimizer, recipe, step, 2) == pytest.approx(2 * rate)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2 * rate, rate])


def test_a_run_may_end_within_its_epochs():
    assert made(epochs=3).total_steps(7) == 21
    run = made(epochs=3, max_steps=10, schedule=ScheduleConfig("poly", power=1.0), optimizer=OptimizerConfig(lr=1.0))
    assert run.total_steps(7) == 10
    assert [run.lr(step, 7) for step in (0, 9)] == pytest.approx([1.0, 1 - 9 / 21])  # as of the whole run


def test_the_folder():
    assert str(made().folder) == "runs/juggling.test"
    assert str(made(out="elsewhere").folder) == "elsewhere"


def test_what_may_change_is_a_field():
    names = {field.name for field in dataclasses.fields(Recipe)}
    assert names >= FREE
    assert names - FREE >= {"model", "method", "size", "epochs", "batch_size", "optimizer", "schedule", "seed"}


class Network(nn.Module):
    """A backbone and a head, with a frozen copy and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.again = self.head
        self.target = nn.Linear(4, 5).requires_grad_(False)


def grouped(**choices: Any) -> list[set[str]]:
    """The names of the parameters in each group."""
    network = Network()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, OptimizerConfig(**choices))
    assert [group.get("weight_decay") for group in groups[1:]] == [0.0] * (len(groups) - 1)
    return [{names[id(parameter)] for parameter in group["params"]} for group in groups]


CONVOLVED = {"backbone.0.weight", "head.0.weight"}
PLAIN = {"backbone.1.weight", "backbone.1.bias", "head.0.bias", "head.1.bias"}


def test_nothing_is_excluded_by_default_and_what_is_frozen_never_learns():
    assert grouped() == [CONVOLVED | PLAIN | {"head.1.weight"}]


def test_norms_and_biases_are_excluded_and_the_heads_scale_by_choice():
    assert grouped(exclude_norm_and_bias=True) == [CONVOLVED, PLAIN | {"head.1.weight"}]
    assert grouped(exclude_norm_and_bias=True, exclude_head_norm=False) == [CONVOLVED | {"head.1.weight"}, PLAIN]


def test_those_excluded_may_have_a_rate_of_their_own():
    """As Barlow Twins has it: 0.2 for weights and 0.0048 for the rest, both for 256 images."""
    config = OptimizerConfig("lars", 0.2, exclude_norm_and_bias=True, norm_and_bias_lr=0.0048)
    recipe = made(batch_size=2048, optimizer=config)
    optimizer = build_optimizer(Network(), recipe)
    set_hyperparameters(optimizer, recipe, 0, 2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1.6, 0.0384])
    with pytest.raises(ValueError, match=r"^optimizer.norm_and_bias_lr is 0.0, but must be above 0, or None\.$"):
        OptimizerConfig(norm_and_bias_lr=0.0)


def test_the_backbone_may_have_a_rate_of_its_own():
    """As finetuning on few labels has it, where it is hundreds of times lower than the classifier's."""
    config = OptimizerConfig(lr=1.0, lr_rule="absolute", backbone_lr=0.0001, exclude_norm_and_bias=True)
    groups = parameter_groups(Network(), config)
    assert [group.get("lr_scale", 1.0) for group in groups] == [1.0, 1.0, 0.0001, 0.0001]
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, None, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 3, 1, 2]


def test_the_rate_of_a_part_may_stay_at_its_peak():
    """As SimSiam has it of its predictor."""
    config = OptimizerConfig(lr=2.0, lr_rule="absolute", constant_part="head")
    recipe = made(epochs=3, schedule=ScheduleConfig(warmup_epochs=1), optimizer=config)
    optimizer = build_optimizer(Network(), recipe)
    rest, head = [], []
    for step in range(6):
        set_hyperparameters(optimizer, recipe, step, 2)
        for rates, group in zip((rest, head), optimizer.param_groups, strict=True):
            rates.append(group["lr"])
    assert rest == pytest.approx([1.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    assert head == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    with pytest.raises(ValueError, match=r"^optimizer.constant_part is 'predictor', but no part of the method"):
        build_optimizer(Network(), made(optimizer=OptimizerConfig(constant_part="predictor")))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sgd", torch.optim.SGD), ("lars", LARS), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_optimiser_is_the_recipes(kind: Any, expected: type):
    config = OptimizerConfig(
        kind, 0.5, momentum=0.8, betas=(0.5, 0.6), weight_decay=0.3, exclude_norm_and_bias=True, trust="update"
    )
    optimizer = build_optimizer(Network(), made(batch_size=512, optimizer=config))
    decayed, plain = optimizer.param_groups
    assert type(optimizer) is expected
    assert (decayed["lr"], decayed["weight_decay"], plain["weight_decay"]) == (1.0, 0.3, 0.0)
    assert decayed.get("momentum", 0.8) == 0.8
    assert decayed.get("betas", (0.5, 0.6)) == (0.5, 0.6)
    if kind == "lars":
        assert (decayed["adapt"], plain["adapt"], decayed["trust"]) == (True, False, "update")


def test_a_model_is_named_after_its_method() -> None:
    """Or a run would be published under another method's name."""
    with pytest.raises(ValueError, match="model is 'resnet8_byol', but must be resnet8_juggling"):
        Recipe(name="juggling.test", model="resnet8_byol", method=JugglingConfig(), promise=PROMISE)
