"""Views that grow with the epochs: their sides, their draws, what they cost, and runs that go on bit for bit."""

from __future__ import annotations

import dataclasses
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import elsewhere, image_folder, outcome, run, stop, tiny
from small_methods import CONFIGS, Drawn, mined, small_config, small_method
from torch import Tensor

from ssl_backbones.data import Batches, Request
from ssl_backbones.data.parts import Exchange
from ssl_backbones.data.progressive import ProgressiveBatches, progressive
from ssl_backbones.methods import BYOLConfig, LewelMConfig, MethodConfig
from ssl_backbones.recipes.progressive import Progressive
from ssl_backbones.runs.log import RunLog
from ssl_backbones.train.growth import effort, growth, pixels
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import MOCO_V2_VIEWS, CenterCrop, Engine, MultiView

GROWING = Progressive(start=8, step=16)
"""In a run of two epochs at 16 px: the first at 8 px."""


@pytest.mark.parametrize(
    ("choices", "size", "epochs", "expected"),
    [
        ({}, 64, 3, (64, 64, 64)),
        ({"start": 32, "step": 16}, 64, 8, (32, 32, 32, 48, 48, 48, 64, 64)),
        ({"start": 32, "step": 16, "whole_from": 1.0}, 64, 5, (32, 32, 48, 48, 64)),
        ({"start": 128, "whole_from": 0.6}, 224, 10, (128, 128, 160, 160, 192, 192, 224, 224, 224, 224)),
        ({"start": 20, "step": 32}, 32, 4, (20, 20, 20, 32)),
        ({"start": 16, "step": 16}, 64, 2, (16, 64)),
        ({"start": 16}, 64, 1, (64,)),
    ],
)
def test_sides_grow_in_equal_parts_and_end_whole(
    choices: dict[str, Any], size: int, epochs: int, expected: tuple[int, ...]
) -> None:
    assert Progressive(**choices).sides(size, epochs) == expected


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"start": 16}, "progressive.start is 16, but must be below the size of the run, 16, or 0"),
        ({"start": -1}, "progressive.start is -1, but must be at least 0"),
        ({"start": 8, "step": 8}, "progressive.step .*8"),
        ({"start": 8, "whole_from": 0.0}, "progressive.whole_from is 0.0, but must be above 0 and at most 1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_words(choices: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(BYOLConfig, tmp_path, tmp_path, progressive=Progressive(**choices))


def tensors(content: Any) -> list[Tensor]:
    """All tensors of a batch, in order."""
    if isinstance(content, Tensor):
        return [content]
    inside = content.values() if isinstance(content, dict) else content
    return [tensor for part in inside for tensor in tensors(part)]


def unblurred(config: MethodConfig) -> MethodConfig:
    """The configuration with views whose lengths are all shares of their sides."""
    known = {field.name: getattr(config, field.name) for field in fields(config)}
    clear: dict[str, Any] = {}
    if known.get("views"):
        clear["views"] = tuple(replace(policy, blur_p=0.0) for policy in known["views"])
    if "crop" in known:
        clear["crop"] = replace(known["crop"], blur_p=0.0)
    return replace(config, **clear)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_methods_views_at_a_side_are_those_of_a_run_of_that_size(kind: type[MethodConfig]) -> None:
    """Exchanged, paired and numbered ones, several sizes and patches included: the draws know no side."""
    method = unblurred(small_config(kind)).build(small_method(kind).backbone)
    images, rows = mined(Drawn(8)), np.arange(4)
    request = Request(1, rows, Exchange(np.arange(4, 8), np.array([4, 5, 6, 7, 0, 1, 2, 3])))
    small, large = method.dataset(images, 16, 3), method.dataset(images, 32, 3)
    expected = tensors(small.on_device(small[request].content))
    found = tensors((at := large.at(16)).on_device(at[request].content))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert large.at(32).transform == large.transform


@pytest.mark.parametrize("engine", ["pillow", "opencv", "device"])
def test_a_growing_view_shows_the_same_part_of_the_image_in_the_same_colours(engine: Engine) -> None:
    """And is blurred in proportion."""
    transform = MultiView(MOCO_V2_VIEWS, 64, engine)
    rows = np.arange(50)
    for large, small in zip(transform.draw(1, 2, rows), transform.at(16).draw(1, 2, rows), strict=True):
        for field in dataclasses.fields(large):
            one, other = getattr(large, field.name), getattr(small, field.name)
            np.testing.assert_allclose(other, one / 4 if field.name == "sigma" else one, rtol=1e-12)
    assert transform.at(16).engine == engine


def test_an_epochs_batches_have_its_side() -> None:
    whole = Batches(Drawn(8), MultiView(MOCO_V2_VIEWS, 32), seed=0)
    assert progressive(whole, (32, 32)) is whole
    growing = progressive(whole, (16, 24, 32))
    assert isinstance(growing, ProgressiveBatches)
    seen = []
    for (batch,) in Loader(growing, 4, 0).steps(1, 6):
        seen.append([view.shape[-1] for view in growing.on_device(batch.content)])
    assert seen == [[16] * 2, [24] * 2, [24] * 2, [32] * 2, [32] * 2]


def test_views_that_have_one_side_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="CenterCrop makes views of one side alone, not of 8 px as well"):
        Batches(Drawn(2), CenterCrop(16), seed=0).at(8)


@pytest.mark.parametrize("kind", [BYOLConfig, pytest.param(LewelMConfig, marks=pytest.mark.slow)])
def test_a_run_whose_views_grow_goes_on_bit_for_bit(
    kind: type[MethodConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From within either epoch; it says the sides at the start, and other sides make another run."""
    data = image_folder(tmp_path / "photos")
    recipe = tiny(kind, data, tmp_path / "whole", progressive=GROWING)
    run(recipe)
    assert "Views grow: 8 px for 1 epoch, then 16 px for 1 epoch, in all 62% of the pixels" in capsys.readouterr().out
    for step in (2, 5) if kind is LewelMConfig else (2,):
        again = elsewhere(recipe, tmp_path / f"stopped{step}")
        stop(again, step)
        run(again)
        assert outcome(again.folder) == outcome(recipe.folder)
    with pytest.raises(Exception, match=r"progressive"):
        run(replace(recipe, progressive=Progressive()))


def test_the_work_of_a_run_follows_the_pixels(tmp_path: Path) -> None:
    """And so does the time that its log says is left."""
    recipe = tiny(BYOLConfig, tmp_path, tmp_path, epochs=4, progressive=replace(GROWING, whole_from=0.5))
    assert pixels(recipe) == [0.25, 0.25, 1, 1]
    assert [effort(recipe, 3, step) for step in (0, 1, 6, 7, 12)] == [0, 0.25, 1.5, 2.5, 7.5]
    assert growth(replace(recipe, compile=True)).endswith("; the network is compiled anew for each side.")
    assert growth(replace(recipe, progressive=Progressive())) == ""
    seconds = iter([0.0, 10.0])
    log = RunLog(tmp_path, 12, 8, clock=lambda: next(seconds))
    log.effort = partial(effort, recipe, 3)
    for _ in range(4):
        log.advance()
    assert log.left_at(10.0) == pytest.approx(10 * (7.5 - 1) / 1)
    log.close()
