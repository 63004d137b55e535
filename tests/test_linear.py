"""A linear probe: the backbone stays bit for bit, the layer becomes what a plain loop makes of it, and it tells."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import labelled_runs
import numpy as np
import pytest
import runs
import torch
from labelled_runs import Chance, divided, killed_at, outcome, small, tinted, weights
from test_head_training import in_epoch
from torch.nn.functional import cross_entropy

import ssl_backbones
from ssl_backbones.data import Batches, ImageSourceError, Request, TooManyUnreadableError, open_images
from ssl_backbones.evaluate.classification import head_training
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.evaluate.classification.linear import LinearConfig, LinearProbe
from ssl_backbones.evaluate.protocols import linear
from ssl_backbones.metrics import wilson_interval
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.views import permutation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("tinted"))


def backbone(seed: int = 3) -> torch.nn.Module:
    """The random network of the small runs."""
    torch.manual_seed(seed)
    network: torch.nn.Module = ssl_backbones.create_model("resnet8", num_classes=0)
    return network.eval()


def probe(**choices: Any) -> LinearProbe:
    return LinearProbe(backbone(), LinearConfig(**{"classes": 3} | choices))


# What the presets say


@pytest.mark.parametrize(
    ("name", "rate", "batch", "epochs", "rest"),
    [
        ("moco_v2", 30.0, 256, 100, {"kind": "sgd", "milestones": (60, 80), "std": 0.01, "every": 0}),
        ("lewel_m", 3.2, 4096, 90, {"kind": "lars", "milestones": (), "std": 0.01, "every": 0}),
        ("lewel_b", 0.4, 256, 50, {"kind": "sgd", "milestones": (30, 40), "std": 0.01, "every": 5}),
        ("flags", 30.0, 256, 100, {"kind": "sgd", "milestones": (60, 80), "std": 0.01, "every": 1}),
        ("patch", 1e-3, 32, 100, {"kind": "adam", "milestones": (), "std": None, "every": 0}),
    ],
)
def test_presets_are_the_sources_to_the_letter(
    name: str, rate: float, batch: int, epochs: int, rest: dict[str, Any]
) -> None:
    preset = linear.PRESETS[name]
    assert (preset.peak_lr, preset.batch_size, preset.epochs) == (pytest.approx(rate), batch, epochs)
    optimizer, views = preset.optimizer, preset.task.views
    assert (optimizer.kind, optimizer.momentum, optimizer.weight_decay) == (rest["kind"], 0.9, 0.0)
    found = {
        "kind": optimizer.kind,
        "milestones": preset.schedule.milestones,
        "std": preset.task.head_std,
        "every": preset.judge_every,
    }
    assert found == rest
    assert views.augment == (name != "patch")
    assert (views.area, views.flip_p, views.interpolation) == ((0.08, 1.0), 0.5, "bilinear")
    assert preset.source_reports == ("best" if rest["every"] else "last")


def test_the_presets_rates_fall_as_stated() -> None:
    def rates(name: str) -> list[float]:
        return [linear.PRESETS[name].lr(epoch * 10, 10) for epoch in range(linear.PRESETS[name].epochs)]

    assert [rates("moco_v2")[epoch] for epoch in (0, 59, 60, 79, 80, 99)] == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    assert [rates("lewel_b")[epoch] for epoch in (29, 30, 39, 40)] == pytest.approx([0.4, 0.04, 0.04, 0.004])
    assert rates("lewel_m")[45] == pytest.approx(1.6)
    assert set(rates("patch")) == {1e-3}


# What is frozen, and what is learnt


def test_the_backbone_is_in_eval_mode_whatever_is_asked() -> None:
    method = probe().train()
    assert method.training
    assert method.head.training
    assert not any(module.training for module in method.backbone.modules())
    method.eval()
    assert not method.head.training


def test_the_layer_begins_as_asked() -> None:
    torch.manual_seed(0)
    layer = probe(classes=4000).head
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert layer.bias.count_nonzero() == 0
    torch.manual_seed(0)
    torchs_own = torch.nn.Linear(64, 3)
    network = backbone()
    torch.manual_seed(0)
    head = LinearProbe(network, LinearConfig(classes=3, head_std=None)).head
    assert torch.equal(head.weight, torchs_own.weight)
    assert torch.equal(head.bias, torchs_own.bias)


def test_the_backbone_stays_bit_for_bit(data: Path, tmp_path: Path) -> None:
    labelled_runs.run(linear, small(linear, "moco_v2", data, tmp_path / "run"))
    before, after = backbone().state_dict(), weights(tmp_path / "run")
    assert {name for name in after if not name.startswith("backbone.")} == {"head.weight", "head.bias"}
    for name, value in before.items():
        assert torch.equal(after[f"backbone.{name}"], value), name


def test_on_features_the_layer_alone_is_kept(data: Path, tmp_path: Path) -> None:
    labelled_runs.run(linear, small(linear, "patch", data, tmp_path / "run"))
    assert {name for name in runs.state(tmp_path / "run") if name.startswith("module/")} == {
        "module/weight",
        "module/bias",
    }


def test_features_of_images_up_to_another_size_are_others(data: Path, tmp_path: Path) -> None:
    for limit in (100_000, 200_000):
        labelled_runs.run(linear, small(linear, "patch", data, tmp_path / f"up_to_{limit}", max_pixels=limit))
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 4


@pytest.mark.parametrize("augment", [True, False])
def test_the_layer_is_what_a_plain_loop_makes_of_it(augment: bool, data: Path, tmp_path: Path) -> None:
    """The order of the images, their views, and Adam, written out; known features change nothing about it."""
    task = LinearConfig(head_std=None, views=LabelledViews(augment=augment))
    rate = OptimizerConfig("adam", 0.01, lr_rule="absolute", weight_decay=0.0)
    labelled_runs.run(linear, small(linear, "patch", data, tmp_path / "run", task=task, optimizer=rate))

    images, network = open_images(data), backbone()
    torch.manual_seed(3)
    head = torch.nn.Linear(64, 3)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    batches = Batches(images, task.views.to_train(network, 16), seed=3)
    for epoch in range(2):
        order = permutation(3, epoch, 36)
        for step in range(4):
            rows = order[9 * step : 9 * step + 9]
            shown = batches.on_device(batches[Request(epoch, rows)].content)
            with torch.no_grad():
                features = network(shown)
            optimizer.zero_grad()
            cross_entropy(head(features), torch.from_numpy(images.labels[rows])).backward()
            optimizer.step()
    ended = runs.state(tmp_path / "run")
    for name, value in head.state_dict().items():
        assert torch.allclose(ended[f"method/head.{name}" if augment else f"module/{name}"], value, atol=1e-5)


def test_views_differ_between_epochs_and_by_nothing_else(data: Path) -> None:
    method, images = probe(), open_images(data)
    dataset = method.dataset(images, 16, seed=7)

    def shown(epoch: int, rows: list[int]) -> torch.Tensor:
        levels, _ = dataset[Request(epoch, np.array(rows))].content
        return dataset.on_device((levels, torch.zeros(len(rows))))[0]

    together, alone = shown(1, [4, 9, 30]), shown(1, [30])
    assert together.shape == (3, 3, 16, 16)
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(shown(2, [30]), alone)
    plain = probe(views=LabelledViews(augment=False)).dataset(images, 16, seed=7)
    assert torch.equal(plain[Request(0, np.array([3]))].content[0], plain[Request(5, np.array([3]))].content[0])


# What it tells


def learning(out: Path, data: Path, **fields: Any) -> Any:
    """A probe with time enough."""
    rate = OptimizerConfig("adam", 0.03, lr_rule="absolute", weight_decay=0.0)
    return small(linear, "patch", data, out, **{"epochs": 40, "optimizer": rate} | fields)


def test_separable_features_are_told_apart(data: Path, tmp_path: Path) -> None:
    results = labelled_runs.run(linear, learning(tmp_path / "run", data))
    assert results["numbers"]["top-1"] == {"value": 1.0, "low": wilson_interval(27, 27).low, "high": 1.0} | {
        "correct": 27,
        "of": 27,
    }
    assert "top-5" not in results["numbers"]  # of three classes
    assert results["chance"] == pytest.approx(1 / 3)
    assert results["random_weights"]


def test_shuffled_labels_stay_at_chance(tmp_path: Path) -> None:
    """An image's folder says nothing about its colour any more."""
    data = divided(tmp_path / "photos", val=60)
    for part in ("train", "val"):
        files = sorted((tmp_path / "photos" / part).rglob("*.png"))
        folders = np.random.default_rng(5).permutation([file.parent for file in files])
        for number, (file, folder) in enumerate(zip(files, folders, strict=True)):
            shutil.move(file, Path(str(folder)) / f"shuffled_{number:03}.png")
    results = labelled_runs.run(linear, learning(tmp_path / "run", data))
    chance = Chance(classes=3, asked=180)
    assert chance.low < results["numbers"]["top-1"]["value"] < chance.high


def test_answers_are_those_of_the_network_that_was_left(data: Path, tmp_path: Path) -> None:
    results = labelled_runs.run(linear, small(linear, "lewel_b", data, tmp_path / "run"))
    method = probe()
    method.load_state_dict(weights(tmp_path / "run"))
    images = open_images(data.parent / "val")
    dataset = Batches(images, method.to_test(16), seed=0)
    with torch.no_grad():
        logits = method.eval().logits(dataset.on_device(dataset[Request(0, np.arange(27))].content))
    right = (logits.argmax(1) == torch.from_numpy(images.labels)).numpy()
    assert results["numbers"]["top-1"]["correct"] == right.sum()
    with np.load(tmp_path / "run" / "per_image.npz") as answers:
        assert answers["top-1"].tolist() == right.tolist()
        assert answers["keys"].tolist() == list(images.keys)


def test_the_best_epoch_is_told_as_such(data: Path, tmp_path: Path) -> None:
    results = labelled_runs.run(linear, small(linear, "flags", data, tmp_path / "run", epochs=4))
    tests = results["tests"]
    assert [test["epoch"] for test in tests] == [1, 2, 3, 4]
    best = results["numbers"]["top-1, best of every 1 epochs"]
    assert best["value"] == max(test["top-1"] for test in tests)
    assert best["epoch"] == next(test["epoch"] for test in tests if test["top-1"] == best["value"])
    assert results["numbers"]["top-1"]["value"] == tests[-1]["top-1"]
    assert results["source_reports"] == "best"


def test_what_was_altered_is_told(data: Path, tmp_path: Path) -> None:
    altered = labelled_runs.run(linear, small(linear, "lewel_b", data, tmp_path / "run"))["altered"]
    assert altered["epochs"] == [50, 2]
    assert altered["batch_size"] == [256, 9]
    assert "optimizer.lr" not in altered
    assert not {"model", "random", "seed", "data", "out"} & set(altered)


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    data = divided(tmp_path / "photos")
    (data.parent / "val" / "red" / "red_03.png").write_bytes(b"no image")
    (data / "green" / "green_05.png").write_bytes(b"no image")
    fields = {"unreadable_share": 0.05}
    for preset in ("moco_v2", "patch"):
        results = labelled_runs.run(linear, small(linear, preset, data, tmp_path / preset, **fields))
        assert results["numbers"]["top-1"]["of"] == 26
    assert results["data"]["images"] == 35  # whose features are known
    (data / "green" / "green_05.png").unlink()
    with pytest.raises(TooManyUnreadableError, match=r"red_03\.png"):
        labelled_runs.run(linear, small(linear, "moco_v2", data, tmp_path / "strict", unreadable_share=0.0))


# Runs that stop


def test_a_run_that_was_killed_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    checkpoints = labelled_runs.Checkpoints(every_steps=3, every_minutes=0)
    options = small(linear, "moco_v2", data, tmp_path / "whole", judge_every=1, epochs=3, checkpoints=checkpoints)
    labelled_runs.run(linear, options)
    again = labelled_runs.elsewhere(options, tmp_path / "stopped")
    killed_at(8, linear, again)
    labelled_runs.run(linear, again)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("ends", [runs.killed, runs.asked_to_stop])
def test_a_run_on_features_goes_on_bit_for_bit(
    ends: Callable[[], None], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_training, "EVERY", -1.0)
    options = small(linear, "patch", data, tmp_path / "whole", judge_every=1, epochs=4, max_steps=14)
    whole = labelled_runs.run(linear, options)
    assert [(test["epoch"], test["step"]) for test in whole["tests"]] == [(1, 4), (2, 8), (3, 12), (4, 14)]
    again = labelled_runs.elsewhere(options, tmp_path / "stopped")
    for epoch in (0, 2):
        with in_epoch(epoch, ends), pytest.raises((runs.Killed, SystemExit)):
            labelled_runs.run(linear, again)
        assert not (tmp_path / "stopped" / "results.json").exists()
    others = dataclasses.replace(
        again, data=str(tinted(tmp_path / "others", seed=7)), validation=str(data.parent / "val")
    )
    with pytest.raises(ImageSourceError, match="the images are not those that the training in"):
        labelled_runs.run(linear, others)
    labelled_runs.run(linear, again)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_a_finished_run_is_left_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = small(linear, "patch", data, tmp_path / "run")
    first = labelled_runs.run(linear, options)
    made = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    assert labelled_runs.run(linear, options) == first
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == made
    assert "holds the finished run" in capsys.readouterr().out


# What it is shown


def test_test_images_follow_the_description_unless_told_otherwise() -> None:
    network = backbone()
    cfg = network.pretrained_cfg
    own = LabelledViews().to_test(network, 16)
    assert (own.crop_pct, own.interpolation, own.mean) == (cfg["crop_pct"], cfg["interpolation"], tuple(cfg["mean"]))
    other = LabelledViews(test_crop_pct=0.5, test_interpolation="bicubic").to_test(network, 16)
    assert (other.crop_pct, other.interpolation) == (0.5, "bicubic")
