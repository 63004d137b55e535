"""Fine-tuning: everything learns, at rates of its own, and becomes what a plain loop makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import labelled_runs
import pytest
import torch
from labelled_runs import divided, killed_at, outcome, small, weights
from torch import nn
from torch.nn.functional import cross_entropy

import ssl_backbones
from ssl_backbones.data import Batches, Request, open_images
from ssl_backbones.evaluate.classification.finetune import Finetune, FinetuneConfig
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.evaluate.protocols import finetune
from ssl_backbones.train.optimization import build_optimizer, set_hyperparameters
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.views import permutation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("tinted"))


def backbone(seed: int = 3) -> nn.Module:
    """The random network of the small runs."""
    torch.manual_seed(seed)
    network: nn.Module = ssl_backbones.create_model("resnet8", num_classes=0)
    return network.eval()


def test_the_preset_is_the_source_to_the_letter() -> None:
    preset = finetune.PRESETS["patch"]
    optimizer = preset.optimizer
    assert (preset.epochs, preset.batch_size, preset.source_reports, preset.judge_every) == (20, 32, "last", 0)
    assert (optimizer.kind, optimizer.backbone_lr, optimizer.lr, optimizer.weight_decay) == ("adam", 1e-3, 1e-4, 1e-5)
    assert optimizer.lr_rule == "absolute"
    assert {preset.lr(step, 10) for step in range(200)} == {1e-4}
    assert preset.task == FinetuneConfig(hidden=256, views=LabelledViews(augment=False))


def test_backbone_and_head_have_rates_of_their_own() -> None:
    run = dataclasses.replace(finetune.PRESETS["patch"], size=16)
    method = Finetune(backbone(), FinetuneConfig(classes=3, hidden=256))
    optimizer = build_optimizer(method, run)
    assert set_hyperparameters(optimizer, run, 5, 10) == 1e-4
    rates = {id(weights): group["lr"] for group in optimizer.param_groups for weights in group["params"]}
    assert all(rates[id(weights)] == pytest.approx(1e-3) for weights in method.backbone.parameters())
    assert {rates[id(weights)] for weights in method.head.parameters()} == {1e-4}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-5}


def test_the_head_has_one_layer_or_two() -> None:
    two = Finetune(backbone(), FinetuneConfig(classes=3, hidden=256)).head
    assert [tuple(weights.shape) for weights in two.parameters()] == [(256, 64), (256,), (3, 256), (3,)]
    assert [type(layer) for layer in two] == [nn.Linear, nn.ReLU, nn.Linear]
    one = Finetune(backbone(), FinetuneConfig(classes=3)).head
    assert [tuple(weights.shape) for weights in one.parameters()] == [(3, 64), (3,)]


def test_the_head_follows_what_the_whole_backbone_gives() -> None:
    """A network whose output is wider than its last feature map."""
    network = ssl_backbones.create_model("mobilenetv3_small_050", num_classes=0)
    method = Finetune(network, FinetuneConfig(classes=3)).eval()
    assert network.num_features != method.head[0].in_features
    assert method.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_everything_learns(data: Path, tmp_path: Path) -> None:
    labelled_runs.run(finetune, small(finetune, "patch", data, tmp_path / "run"))
    before, after = backbone().state_dict(), weights(tmp_path / "run")
    for name, value in before.items():
        assert not torch.equal(after[f"backbone.{name}"], value), name


def test_the_network_is_what_a_plain_loop_makes_of_it(data: Path, tmp_path: Path) -> None:
    labelled_runs.run(finetune, small(finetune, "patch", data, tmp_path / "run", epochs=1))

    images, network = open_images(data), backbone()
    torch.manual_seed(3)
    head = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 3))
    network.train()
    groups: Any = [{"params": network.parameters(), "lr": 1e-3}, {"params": head.parameters(), "lr": 1e-4}]
    optimizer = torch.optim.Adam(groups, weight_decay=1e-5)
    batches = Batches(images, LabelledViews().to_test(network, 16), seed=3)
    order = permutation(3, 0, 36)
    for step in range(4):
        rows = order[9 * step : 9 * step + 9]
        shown = batches.on_device(batches[Request(0, rows)].content)
        optimizer.zero_grad()
        cross_entropy(head(network(shown)), torch.from_numpy(images.labels[rows])).backward()
        optimizer.step()
    ended = weights(tmp_path / "run")
    expected = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    expected |= {f"head.{name}": value for name, value in head.state_dict().items()}
    assert ended.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(ended[name].float(), value.float(), atol=2e-4), name


def test_it_learns_what_can_be_seen(data: Path, tmp_path: Path) -> None:
    results = labelled_runs.run(finetune, small(finetune, "patch", data, tmp_path / "run", epochs=15))
    assert results["numbers"]["top-1"]["value"] == 1.0


def test_a_run_that_was_killed_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    checkpoints = labelled_runs.Checkpoints(every_steps=3, every_minutes=0)
    options = small(finetune, "patch", data, tmp_path / "whole", checkpoints=checkpoints)
    labelled_runs.run(finetune, options)
    again = labelled_runs.elsewhere(options, tmp_path / "stopped")
    killed_at(5, finetune, again)
    labelled_runs.run(finetune, again)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_more_classes_than_the_head_are_refused(data: Path, tmp_path: Path) -> None:
    options = small(finetune, "patch", data, tmp_path / "run", task=FinetuneConfig(classes=2))
    with pytest.raises(UnfitError, match="3 classes and the head tells 2 apart"):
        labelled_runs.run(finetune, options)


@pytest.mark.parametrize(
    ("choices", "named"),
    [({"classes": -1}, "task.classes is -1"), ({"hidden": -1}, "task.hidden is -1"), ({"head_std": -1.0}, "head_std")],
)
def test_wrong_choices_are_refused(choices: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FinetuneConfig(**choices)
