"""RoB: its four losses by hand, its refusals, and that runs of them go on, in every way that a run is made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import numpy as np
import pytest
import torch
from runs import elsewhere, image_folder, outcome, run, stop, tiny
from small_methods import SMALL, Drawn, batch_of, small_method
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ssl_backbones import create_model
from ssl_backbones.data import Request
from ssl_backbones.methods.rob import Found, Loss, RoB, RoBConfig
from ssl_backbones.models.backbone import feature_map
from ssl_backbones.models.teacher import TeacherError
from ssl_backbones.visualizers.alignment import HasAlignmentMaps

LOSSES = get_args(Loss)
every_loss = pytest.mark.parametrize("loss", LOSSES)


def rob(loss: str, **choices: Any) -> RoB:
    """The method around a ResNet-8 in double precision, its batch statistics standing still."""
    method = small_method(RoBConfig, loss=loss, **choices).double().eval()
    assert isinstance(method, RoB)
    if isinstance(method.comparison, Found):
        method.comparison.queue.keys = normalize(method.comparison.queue.keys, dim=1)
    return method


def keys_of(method: RoB) -> Tensor:
    """The keys (K, D) of past images; none where the loss has no negatives."""
    return method.comparison.queue.keys if isinstance(method.comparison, Found) else torch.zeros(0, 1)


def shown(method: RoB, count: int = 5) -> tuple[list[Tensor], Tensor | None]:
    """Two views of drawn images, and the teacher's features of them where those are kept."""
    dataset = method.dataset(Drawn(count), 16, 0)
    content = dataset.on_device(dataset[Request(0, np.arange(count))].content)
    views, features = content if method.config.kept else (content, None)
    return [view.double() for view in views], features


def cosine(first: Tensor, second: Tensor) -> float:
    return float((first @ second / (first.norm() * second.norm())).detach())


def held(loss: str, query: Tensor, own: Tensor, others: list[Tensor], temperature: float) -> float:
    """One prediction's loss, by its definition."""
    if loss in ("byol", "lewel_b"):
        return 2 - 2 * cosine(query, own)
    logits = [cosine(query, key) / temperature for key in (own, *others)]
    return -math.log(math.exp(logits[0]) / sum(map(math.exp, logits)))


def teacher_maps(method: RoB, view: Tensor) -> Tensor:
    """The teacher's maps (B, E, h, w) of a view by its own network, standardised."""
    network = create_model(SMALL["teacher"], pretrained=True).double().eval()
    maps = feature_map(network, method.branch.shown(view))
    return (maps - method.branch.map_centre[:, None, None]) / method.branch.map_scale


def pooled_by_hand(student: Tensor, teacher: Tensor, groups: int) -> Tensor:
    """The teacher's map of an image (E, H, W) pooled under the student's maps (c, h, w), block by block: (n, E)."""
    there = interpolate(student[None], teacher.shape[-2:], mode="bilinear", antialias=True)[0]
    count, width = len(student) // groups, len(teacher) // groups
    rows = torch.zeros(count, len(teacher), dtype=torch.float64)
    for k in range(count):
        for block in range(groups):
            weights = there[block * count + k]
            for channel in range(block * width, (block + 1) * width):
                rows[k, channel] = (teacher[channel] * weights).sum() / weights.sum()
    return rows


@every_loss
def test_the_loss_is_that_of_its_equations(loss: str) -> None:
    method = rob(loss, temperature=0.5, teacher_size=24)
    views, _ = shown(method)
    network = create_model(SMALL["teacher"], pretrained=True).double().eval()
    seen = [network(method.branch.shown(view)) - method.branch.centre for view in views]
    queue = list(keys_of(method))
    whole = part = 0.0
    for mine, other in ((0, 1), (1, 0)):
        features = feature_map(method.backbone, views[mine])
        if not method.aligned:
            predicted = method.predictor(method.projector(features.mean((2, 3))))
            whole += mean([held(loss, q, t, queue, 0.5) for q, t in zip(predicted, seen[other], strict=True)])
            continue
        student, there = method.head(features), method.head(feature_map(method.backbone, views[other]))
        predicted = method.predictor(student.projection)
        whole += mean([held(loss, q, t, queue, 0.5) for q, t in zip(predicted, seen[other], strict=True)])
        maps = zip(there.maps, teacher_maps(method, views[other]), strict=True)
        keys = torch.stack([pooled_by_hand(*pair, method.config.groups) for pair in maps])
        queries = method.aligned_predictor(student.aligned)
        losses = []
        for image in range(len(keys)):
            others = [key for number, rows in enumerate(keys) if number != image for key in rows]
            pairs = zip(queries[image], keys[image], strict=True)
            losses += [held(loss, query, key, others, 0.5) for query, key in pairs]
        part += mean(losses)
    scalars = method(views)
    if method.aligned:
        assert float(scalars["global_loss"]) == pytest.approx(whole, rel=1e-9)
        assert float(scalars["aligned_loss"]) == pytest.approx(part, rel=1e-9)
        whole = (whole + part) / 2
    assert scalars["loss"].item() == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("loss", ["byol", "moco_v2"])
def test_kept_features_stand_for_both_views(loss: str, tmp_path: Path) -> None:
    method = rob(loss, kept=str(tmp_path / "kept"))
    views, features = shown(method)
    assert features is not None
    target = features.double() - method.branch.centre
    queue = list(keys_of(method))
    expected = 0.0
    for view in views:
        predicted = method.predictor(method.projector(feature_map(method.backbone, view).mean((2, 3))))
        expected += mean([held(loss, q, t, queue, 0.2) for q, t in zip(predicted, target, strict=True)])
    assert method((views, features))["loss"].item() == pytest.approx(expected, rel=1e-9)


@every_loss
def test_chance_is_the_loss_of_predictions_without_direction(loss: str) -> None:
    method = rob(loss)
    with torch.no_grad():
        for weights in method.parameters():
            weights.zero_()
    scalars = method(batch_of(method, dtype=torch.float64))
    assert scalars["loss"].item() == pytest.approx(scalars["chance"], rel=1e-9)


@every_loss
def test_the_teacher_is_no_part_of_what_is_trained(loss: str) -> None:
    method = rob(loss).train()
    views, _ = shown(method)
    method(views)["loss"].backward()
    assert not [name for name, weights in method.named_parameters() if weights.grad is None]
    assert not [name for name, _ in method.named_parameters() if name.startswith("branch.")]
    network = method.branch.teacher.network
    assert network is not None
    assert not network.training
    assert not any(weights.requires_grad for weights in network.parameters())
    assert isinstance(method, HasAlignmentMaps) == (loss in ("lewel_b", "lewel_m"))


@pytest.mark.parametrize(("kept", "count"), [(False, 10), (True, 5)])
def test_the_queue_holds_what_the_teacher_saw(kept: bool, count: int, tmp_path: Path) -> None:
    method = rob("moco_v2", kept=str(tmp_path / "kept") if kept else "").train()
    views, features = shown(method)
    before = keys_of(method).clone()
    method((views, features) if kept else views)
    assert torch.equal(keys_of(method), before)
    method.on_step_end(0.0)
    seen = (
        [features]
        if features is not None
        else [method.branch.teacher.look(method.branch.shown(view)).features for view in views]
    )
    keys = normalize(torch.cat(seen).double() - method.branch.centre, dim=1)
    torch.testing.assert_close(keys_of(method)[:count], keys)
    assert torch.equal(keys_of(method)[count:], before[count:])


# Runs


@pytest.mark.parametrize("loss", ["moco_v2", *(pytest.param(each, marks=pytest.mark.slow) for each in LOSSES[2:])])
def test_a_run_goes_on_where_it_stopped(loss: str, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    choices = {"loss": loss, "kept": "" if loss.startswith("lewel") else "beside"}
    recipe = tiny(RoBConfig, data, tmp_path / "whole", choices)
    whole = run(recipe, page=loss.startswith("lewel"))
    stop(elsewhere(recipe, tmp_path / "cut"), 4)
    assert outcome(run(elsewhere(recipe, tmp_path / "cut")).path) == outcome(whole.path)
    assert (whole.path / "alignment_maps.png").exists() == loss.startswith("lewel")
    results = json.loads((whole.path / "results.json").read_text())
    assert results["teacher"]["labels"] == "not recorded"
    assert results["taught"]["of"] == ("the middle square of each image, kept" if choices["kept"] else "every view")
    card = (whole.path / "README.md").read_text()
    assert "It learnt from the features of photos.teacher (resnet8)" in card
    assert "self-supervised" not in card


@pytest.mark.parametrize(
    ("loss", "engine", "accumulation", "precision"),
    [
        pytest.param("byol", "opencv", 2, "bf16", marks=pytest.mark.slow),
        pytest.param("moco_v2", "device", 2, "fp32", marks=pytest.mark.slow),
        ("lewel_m", "opencv", 1, "bf16"),
    ],
)
def test_every_engine_accumulation_and_bf16(
    loss: str, engine: Any, accumulation: int, precision: Any, tmp_path: Path
) -> None:
    data = image_folder(tmp_path / "photos")
    way = {"engine": engine, "accumulation": accumulation, "precision": precision}
    run(tiny(RoBConfig, data, tmp_path / "run", {"loss": loss}, max_steps=2, **way))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 2


# Refusals


@pytest.mark.parametrize("loss", ["lewel_b", "lewel_m"])
class TestRefused:
    def test_a_teacher_without_feature_maps(self, loss: str) -> None:
        with pytest.raises(TeacherError, match=rf"has no feature maps, which the loss of {loss} needs: set --method"):
            rob(loss, teacher="crossvit_9_240.in1k")

    def test_a_teacher_whose_maps_have_one_cell(self, loss: str) -> None:
        method = rob(loss, teacher_size=4)
        with pytest.raises(TeacherError, match=r"one cell of images of 4 px.*--method.teacher_size"):
            shown(method)

    def test_kept_features(self, loss: str) -> None:
        with pytest.raises(ValueError, match=rf"loss is '{loss}', but must be byol or moco_v2 where features are kept"):
            RoBConfig(loss=loss, kept="beside")  # type: ignore[arg-type]

    def test_groups_that_do_not_divide_the_teacher_s_width(self, loss: str) -> None:
        with pytest.raises(ValueError, match=r"groups=16 must divide the width of the teacher's maps=168"):
            rob(loss, teacher="edgenext_xx_small.in1k", groups=16)


def test_the_run_s_own_network_is_refused(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    (tmp_path / "run" / "backbone").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"given to rob is .*, but must be another network than the one that"):
        tiny(RoBConfig, data, tmp_path / "run", {"teacher": str(tmp_path / "run" / "backbone")})


def test_a_queue_longer_than_the_images_is_refused() -> None:
    rob("moco_v2", queue_size=40).check_data(30, 10)
    with pytest.raises(ValueError, match=r"queue_size is 41, but 30 images .* leave 40 keys .* at most 40$"):
        rob("lewel_m", queue_size=41).check_data(30, 10)
    rob("byol", queue_size=41).check_data(30, 10)
