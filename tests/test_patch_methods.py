"""Patch RotNet, Patch RelNet, RotNet and supervised training, against slow literal versions; and their recipes."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from small_methods import Drawn, batch_of, small_config, small_method
from torch import Tensor, nn

from ssl_backbones import recipes
from ssl_backbones.data import ImageSourceError, NumberedBatches, Request, UnreadableImageError
from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods import (
    Method,
    MethodConfig,
    PatchRelNetConfig,
    PatchRotNetConfig,
    RotNetConfig,
    SupervisedConfig,
)

SELF_SUPERVISED = [PatchRotNetConfig, PatchRelNetConfig, RotNetConfig]
every_turn = pytest.mark.parametrize("kind", SELF_SUPERVISED, ids=lambda kind: kind.__name__)


def settled(kind: type[MethodConfig], **choices: Any) -> Method:
    """The method in double precision and eval mode, in which a row does not depend on its neighbours."""
    method = small_method(kind, **choices).double()
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
    return method.eval()


def surprise(logits: Tensor, label: int) -> float:
    """-log of the probability of a label, term by term."""
    powers = [math.exp(logit) for logit in logits.tolist()]
    return -math.log(powers[label] / sum(powers))


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize(("kind", "views"), [(PatchRotNetConfig, 8), (RotNetConfig, 4)])
def test_each_view_is_told_from_the_others(kind: type[MethodConfig], views: int, head: str) -> None:
    method = settled(kind, head=head)
    batch = batch_of(method, count=3, dtype=torch.float64)
    assert len(batch) == 3 * views
    losses = []
    for view in range(views):  # 0 to 3 the whole image turned, 4 to 7 a patch turned
        for image in range(3):
            features = method.backbone(batch[view * 3 + image][None])
            losses.append(surprise(method.head(features)[0], view))
    assert method(batch)["loss"].item() == pytest.approx(sum(losses) / (3 * views), rel=1e-10)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_turned_image_is_paired_with_the_patch_turned_alike(head: str) -> None:
    method = settled(PatchRelNetConfig, head=head)
    batch = batch_of(method, count=3, dtype=torch.float64)
    losses = []
    for turn in range(4):
        for image in range(3):
            whole, patch = (method.backbone(batch[view * 3 + image][None]) for view in (turn, 4 + turn))
            losses.append(surprise(method.head(torch.cat([whole, patch], dim=1))[0], turn))
    assert method(batch)["loss"].item() == pytest.approx(sum(losses) / 12, rel=1e-10)


@every_turn
def test_all_views_pass_the_network_at_once(kind: type[MethodConfig]) -> None:
    """Its batch statistics are those of all kinds of views together."""
    method = small_method(kind)
    batch = batch_of(method)
    shapes: list[torch.Size] = []
    method.backbone.conv1.register_forward_hook(lambda module, args, output: shapes.append(args[0].shape))
    method(batch)
    assert shapes == [batch.shape]


@pytest.mark.parametrize(
    ("kind", "inputs", "classes"), [(PatchRotNetConfig, 64, 8), (PatchRelNetConfig, 128, 4), (RotNetConfig, 64, 4)]
)
def test_heads_are_the_papers_or_the_relation_module(kind: type[Any], inputs: int, classes: int) -> None:
    backbone = small_method(kind).backbone
    linear, mlp = (kind(head=head).build(backbone).head for head in ("linear", "mlp"))
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(inputs, classes)]
    assert [type(layer) for layer in mlp] == [nn.Linear, nn.BatchNorm1d, nn.LeakyReLU, nn.Linear]
    assert (mlp[0].in_features, mlp[0].out_features, mlp[3].out_features) == (inputs, 256, classes)


@every_turn
def test_the_loss_of_a_guess_is_chance(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    nn.init.zeros_(method.head[-1].weight)
    nn.init.zeros_(method.head[-1].bias)
    scalars = method(batch_of(method))
    classes = 8 if kind is PatchRotNetConfig else 4
    assert scalars["chance"] == pytest.approx(math.log(classes))
    assert scalars["loss"].item() == pytest.approx(math.log(classes), rel=1e-6)


@every_turn
def test_some_steps_teach_which_way_is_up(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    batch = batch_of(method, count=3)
    for _ in range(25):
        scalars = method(batch)
        optimizer.zero_grad()
        scalars["loss"].backward()
        optimizer.step()
    assert scalars["loss"] < 0.7 * scalars["chance"]
    assert scalars["accuracy"] > 2 * math.exp(-scalars["chance"])


@pytest.mark.parametrize("kind", [PatchRotNetConfig, PatchRelNetConfig], ids=lambda kind: kind.__name__)
class TestPatchChoices:
    @pytest.mark.parametrize(
        "choices", [{"ratio": 0.3}, {"positions": "per view"}, {"antialias": True}, {"crop_padding": 0.0}], ids=str
    )
    def test_every_choice_changes_the_views(self, kind: type[MethodConfig], choices: dict[str, Any]) -> None:
        usual, other = (batch_of(small_method(kind, **given)) for given in ({}, choices))
        assert usual.shape == other.shape
        assert not torch.equal(usual, other)

    @pytest.mark.parametrize(
        ("choices", "words"),
        [
            ({"ratio": 1.0}, r"must be in \(0, 1\), not 1.0"),
            ({"ratio": 0.0}, r"must be in \(0, 1\), not 0.0"),
            ({"positions": "anywhere"}, "positions must be one of per image, per view, not 'anywhere'"),
            ({"head": "deep"}, "head must be one of linear, mlp, not 'deep'"),
            ({"hidden_dim": 0}, "hidden_dim"),
            ({"crop_padding": 2.0}, "crop_padding"),
            ({"flip_p": -1.0}, "flip_p"),
        ],
        ids=str,
    )
    def test_a_wrong_choice_is_refused_in_words(
        self, kind: type[MethodConfig], choices: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            small_config(kind, **choices)

    def test_a_patch_without_a_pixel_is_refused(self, kind: type[MethodConfig]) -> None:
        with pytest.raises(ValueError, match="raise one of the two"):
            small_method(kind, ratio=0.1).transform(8)


# With labels


class Damaged(Drawn):
    """Every third image cannot be read."""

    def __getitem__(self, index: int) -> Any:
        if index % 3 == 0:
            raise UnreadableImageError("torn")
        return super().__getitem__(index)


def test_an_image_keeps_its_own_number_even_where_it_stands_in_for_another() -> None:
    images, transform = Damaged(9), small_method(SupervisedConfig).transform(16)
    dataset = NumberedBatches(images, transform, seed=0)
    batch = dataset[Request(0, np.arange(9))]
    _, rows = batch.content
    assert set(batch.unreadable) == {"0.png", "3.png", "6.png"}
    assert all(rows[index] == index for index in range(9) if index % 3)
    for index in (0, 3, 6):
        assert rows[index] % 3 != 0
        assert int(rows[index]) == dataset.read(index, {})[0]
    labels = NumberedBatches(images, transform, 0, images.labels + 10)[Request(0, np.arange(9))].content[1]
    assert torch.equal(labels, rows % 3 + 10)


def test_supervised_training_is_told_the_labels() -> None:
    method = settled(SupervisedConfig)
    images, labels = batch_of(method, count=5, dtype=torch.float64)
    assert labels.tolist() == [0, 1, 2, 0, 1]
    losses = [
        surprise(method.head(method.backbone(image[None]))[0], int(label))
        for image, label in zip(images, labels, strict=True)
    ]
    assert method((images, labels))["loss"].item() == pytest.approx(sum(losses) / 5, rel=1e-10)


def test_missing_labels_and_too_many_classes_are_refused() -> None:
    unlabelled = Drawn(6)
    unlabelled.labels = None
    with pytest.raises(ImageSourceError, match="supervised training needs labels, and these 6 images have none"):
        small_method(SupervisedConfig).dataset(unlabelled, 16, 0)
    with pytest.raises(ImageSourceError, match=r"the data have 3 classes and the head tells 2 apart: .* to 3"):
        small_method(SupervisedConfig, classes=2).dataset(Drawn(6), 16, 0)


def test_weights_count_rows_by_their_labels() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, weights = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([1.0, 0.25, 3.0], dtype=torch.float64)
    counted = sum(weights[label] * surprise(row, int(label)) for row, label in zip(logits, labels, strict=True))
    assert cross_entropy(logits, labels, weights).item() == pytest.approx(float(counted / weights[labels].sum()))
    right = sum(int(row.argmax() == label) for row, label in zip(logits, labels, strict=True))
    assert accuracy(logits, labels).item() == pytest.approx(right / 6)


# Recipes

TABLE_1 = """
deep_infomax 14.90 41.64
deepcluster 12.57 41.70
rotnet 16.32 60.48
patch_relnet_r30 17.35 59.09
patch_relnet_r40 16.04 60.28
patch_relnet_r50 14.50 59.54
patch_rotnet_r30 13.15 55.23
patch_rotnet_r40 11.70 54.55
patch_rotnet_r50 12.45 57.55
"""
TABLE_2 = """
deep_infomax 45.41
deepcluster 41.35
rotnet 52.25
patch_relnet_r30 50.15
patch_relnet_r40 45.76
patch_relnet_r50 42.38
patch_rotnet_r30 48.75
patch_rotnet_r40 52.63
patch_rotnet_r50 50.05
"""


def stated() -> dict[str, float]:
    """The linear accuracy of each row of the paper's tables, by the recipe's name."""
    found = {}
    for arch, table, sets in (("resnet8", TABLE_1, ("tiny", "stl10")), ("resnet32", TABLE_2, ("stl10",))):
        for line in table.split("\n")[1:-1]:
            row, *figures = line.split()
            method, share = re.fullmatch(r"(.*?)((?:_r\d+)?)", row).groups()  # type: ignore[union-attr]
            for data, figure in zip(sets, figures, strict=True):
                found[f"{arch}_{method}.{data}_200ep{share}"] = float(figure)
    return found


def test_every_row_of_the_tables_is_a_recipe() -> None:
    from ssl_backbones.recipes import patch

    ours = {recipe.name: recipe for recipe in patch.RECIPES}
    assert set(stated()) == {name for name in ours if "supervised" not in name}
    for name, figure in stated().items():
        assert ours[name].promise.linear_top1 == figure
    supervised = {name: recipe for name, recipe in ours.items() if "supervised" in name}
    assert len(supervised) == 3
    for name, recipe in supervised.items():
        figure = {"resnet8": {"stl10": 73.8, "tiny": 40.45}, "resnet32": {"stl10": 74.54}}[name.split("_")[0]][
            name.split(".")[1].split("_")[0]
        ]
        assert str(figure) in recipe.promise.result


@pytest.mark.parametrize("name", [name for name in recipes.names() if re.search(r"\.(stl10|tiny)_", name)])
def test_a_recipe_has_the_settings_of_the_paper(name: str) -> None:
    recipe = recipes.get(name)
    data = name.split(".")[1]
    assert recipe.size == (96 if data.startswith("stl10") else 64)
    assert recipe.epochs == 200
    if "supervised" in name:
        assert (recipe.optimizer.kind, recipe.peak_lr, recipe.optimizer.weight_decay) == ("sgd", 0.1, 0)
        assert [round(recipe.lr(epoch * 10, 10), 9) for epoch in (0, 99, 100, 149, 150, 199)] == [
            0.1,
            0.1,
            0.01,
            0.01,
            0.001,
            0.001,
        ]
        assert recipe.method.classes == (10 if data.startswith("stl10") else 200)  # type: ignore[attr-defined]
        return
    assert (recipe.optimizer.kind, recipe.batch_size) == ("adam", 64)
    assert {recipe.lr(step, 10) for step in (0, 1, 999, 1999)} == {1e-3}
    assert recipe.optimizer.weight_decay == (1e-4 if "infomax" in name else 0)
    share = re.search(r"_r(\d+)$", name)
    assert getattr(recipe.method, "ratio", None) == (int(share[1]) / 100 if share else None)
    if "deepcluster" in name:
        assert recipe.method.clusters == (100 if data.startswith("stl10") else 2000)  # type: ignore[attr-defined]
