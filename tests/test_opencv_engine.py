"""The OpenCV engine against the Pillow engine, per operation and together, and how a run chooses between the two."""

from __future__ import annotations

import json
import pickle
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drawn_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runs import forget, image_folder, outcome, run, state, stop, tiny
from small_methods import CONFIGS

from ssl_backbones import views
from ssl_backbones.data import open_images
from ssl_backbones.data.exchanged import views_and_places
from ssl_backbones.methods import FlagsConfig, LewelMConfig, MoCoV2Config
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.runs.run_folder import RunFolder, RunFolderError
from ssl_backbones.train.beginning import begin
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.train.pretrain import build, start
from ssl_backbones.train.results import altered
from ssl_backbones.train.settle import engine_of, views_sentence
from ssl_backbones.views import MultiView, Policy, uniform, using_engine
from ssl_backbones.views import pillow_engine as pillow
from ssl_backbones.views.policy import UNIFORMS

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
opencv = pytest.importorskip("ssl_backbones.views.opencv_engine")

SAMPLE = Path(__file__).parents[1] / "training" / "sample_photos" / "validation.parquet"
STILL = Policy(area=(1.0, 1.0), flip_p=0, jitter_p=0, grey_p=0, blur_p=0, solarize_p=0)
ANY_CROP = replace(STILL, area=(0.05, 1.0), flip_p=0.5)


@pytest.fixture(scope="module")
def sample() -> list[Image.Image]:
    """Real images, 72 px and more."""
    images = open_images(SAMPLE)
    return [images[at] for at in range(100)]


@pytest.fixture(scope="module")
def squares(sample: list[Image.Image]) -> list[Image.Image]:
    return [picture.resize((64, 64)) for picture in sample]


def pattern(side: int, kind: str, seed: int) -> Image.Image:
    stream = np.random.default_rng(seed)
    if kind == "noise":
        return Image.fromarray(stream.integers(0, 256, (side, side, 3), dtype=np.uint8))
    if kind == "flat":
        return Image.new("RGB", (side, side), tuple(stream.integers(0, 256, 3).tolist()))
    return drawn_image(seed, side, side)


def apart(batch: list[Image.Image], policy: Policy, size: int, seed: int = 0) -> np.ndarray:
    """The differences between the engines' views (B, S, S, 3), in levels."""
    drawn = policy.draw(uniform(seed, 0, np.arange(len(batch)), 0, UNIFORMS))
    theirs = pillow.render(batch, policy, drawn, size)
    ours = opencv.render(batch, policy, drawn, size)
    assert (ours.shape, ours.dtype) == ((len(batch), size, size, 3), np.uint8)
    return np.abs(ours.astype(np.int64) - theirs)


def check(found: np.ndarray, mean: float, p99: int, most: int) -> None:
    """The tolerance, in levels."""
    assert found.mean() <= mean
    assert np.percentile(found, 99) <= p99
    assert found.max() <= most


def jitter(column: int, strength: float) -> dict[str, Any]:
    return {"jitter_p": 1.0, "jitter": tuple(strength * (column == other) for other in range(4))}


OPERATIONS: dict[str, tuple[dict[str, Any], float, int, int]] = {
    "nothing": ({}, 0, 0, 0),
    "flip": ({"flip_p": 0.5}, 0, 0, 0),
    "flip last": ({"flip_p": 0.5, "flip_last": True}, 0, 0, 0),
    "turn": ({"turn_p": 0.75}, 0, 0, 0),
    "solarize": ({"solarize_p": 0.5}, 0, 0, 0),
    "solarize from 90": ({"solarize_p": 0.5, "threshold": 90}, 0, 0, 0),
    "brightness": (jitter(0, 0.9), 0.001, 0, 1),
    "contrast": (jitter(1, 0.9), 0.001, 0, 1),
    "saturation": (jitter(2, 1.2), 0.001, 0, 2),
    "grey": ({"grey_p": 0.5}, 0.001, 0, 1),
    "hue": (jitter(3, 0.1), 0.01, 0, 6),
    "any hue": (jitter(3, 0.5), 0.01, 0, 6),
    "blur": ({"blur_p": 0.9, "sigma": (0.1, 2.0)}, 0.4, 2, 3),
}
"""Operations of a policy with their differences from Pillow: on average, for 99 values in 100, and at most."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_images(squares, name):
    does, *tolerance = OPERATIONS[name]
    check(apart(squares, replace(STILL, **does), 64), *tolerance)


@pytest.mark.parametrize("kind", ["noise", "photo", "flat"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_patterns(name, kind):
    does, mean, _, most = OPERATIONS[name]
    found = apart([pattern(48, kind, seed) for seed in range(12)], replace(STILL, **does), 48, seed=1)
    assert found.max() <= most
    assert kind == "flat" or found.mean() <= max(mean, 0.5 * (name == "blur"))


@pytest.mark.parametrize(
    ("size", "mean", "most"), [(8, 0, 0), (32, 0.1, 1), (64, 0.2, 1), (96, 0.25, 1), (224, 0.25, 1)]
)
def test_a_crop_on_images(sample, size, mean, most):
    """72 px and more to 8 px shrinks all of them, to 224 px none."""
    check(apart(sample[:50], ANY_CROP, size), mean, most, most)
    check(apart(sample[:50], replace(ANY_CROP, interpolation="bicubic"), size), 0, 0, 0)


def test_a_crop_that_shrinks_one_side_and_stretches_the_other():
    wide = [drawn_image(seed, 120, 20 + seed) for seed in range(8)]
    check(apart(wide, replace(STILL, ratio=(0.1, 10.0)), 48), 0.3, 1, 1)


@given(
    side=st.integers(1, 60),
    kind=st.sampled_from(["noise", "photo", "flat"]),
    size=st.integers(1, 60),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_of_anything(side, kind, size, seed):
    assert apart([pattern(side, kind, seed)], ANY_CROP, size, seed).max() <= 1


@pytest.mark.parametrize("name", [name for name in dir(views) if name.endswith("_VIEWS")])
def test_whole_policies_on_images(sample, name):
    """Colours may differ by more than any operation alone: what one leaves a level apart, contrast and hue spread."""
    for policy in set(getattr(views, name)):
        check(apart(sample, policy, 64, seed=2), 0.5, 3, 16)


@given(kind=st.sampled_from(["noise", "flat"]), seed=st.integers(0, 99), sigma=st.floats(0.05, 6))
@settings(max_examples=60, deadline=None)
def test_a_blur_of_any_width_keeps_what_is_flat(kind, seed, sigma):
    image = pattern(24, kind, seed)
    found = np.abs(opencv.blur(pillow.pixels(image), sigma).astype(int) - pillow.pixels(pillow.blur(image, sigma)))
    assert found.max() <= (0 if kind == "flat" else 3)


def test_each_image_has_its_own_order():
    policy = replace(STILL, jitter_p=1.0, jitter=(0.8, 0.8, 0.8, 0.3))
    batch = [pattern(32, "noise", 0)] * 24
    assert (apart(batch, policy, 32) > 0).mean() < 0.03
    drawn = policy.draw(uniform(0, 0, np.arange(24), 0, UNIFORMS))
    turned = replace(drawn, order=drawn.order[:, ::-1])
    assert (opencv.render(batch, policy, drawn, 32) != opencv.render(batch, policy, turned, 32)).mean() > 0.3


def test_images_stay_as_they_are_and_so_do_opencvs_threads(sample):
    before, threads = [picture.tobytes() for picture in sample[:6]], cv2.getNumThreads()
    transform = MultiView(views.BYOL_VIEWS, 72, engine="opencv")
    drawn = transform.draw(0, 0, np.arange(6))
    first = transform.on_host(sample[:6], drawn)
    assert all(
        torch.equal(view, again) for view, again in zip(first, transform.on_host(sample[:6], drawn), strict=True)
    )
    assert [picture.tobytes() for picture in sample[:6]] == before
    with pytest.raises(AttributeError):
        opencv.render([None], STILL, STILL.draw(uniform(0, 0, [0], 0, UNIFORMS)), 8)
    assert cv2.getNumThreads() == threads


# The choice


def test_batches_are_uint8_and_normalised_as_pillows(sample):
    transform = pickle.loads(pickle.dumps(MultiView(views.MOCO_V2_VIEWS, 32, engine="opencv")))
    drawn = transform.draw(0, 3, np.arange(5))
    content = transform.on_host(sample[:5], drawn)
    assert [(view.shape, view.dtype) for view in content] == [(torch.Size([5, 32, 32, 3]), torch.uint8)] * 2
    reference = replace(transform, engine="pillow")
    shown, expected = (way.on_device(way.on_host(sample[:5], drawn)) for way in (transform, reference))
    for view, other in zip(shown, expected, strict=True):
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert (view - other).abs().mean() < 0.01
    empty = transform.on_host([], transform.draw(0, 0, np.arange(0)))
    assert all(len(view) == 0 for view in transform.on_device(empty))


def test_made_by_is_for_transforms_that_name_no_engine():
    assert MultiView(views.BYOL_VIEWS, 16).engine == "pillow"
    with using_engine("opencv"):
        chosen = MultiView(views.BYOL_VIEWS, 16)
        named = MultiView(views.BYOL_VIEWS, 16, engine="pillow")
        with using_engine("pillow"):
            assert MultiView(views.BYOL_VIEWS, 16).engine == "pillow"
        with pytest.raises(RuntimeError), using_engine("device"):
            raise RuntimeError
        assert MultiView(views.BYOL_VIEWS, 16).engine == "opencv"
    assert MultiView(views.BYOL_VIEWS, 16).engine == "pillow"
    assert (chosen.engine, named.engine) == ("opencv", "pillow")
    assert pickle.loads(pickle.dumps(chosen)) == chosen


def test_without_opencv_the_engine_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    sentence = r"engine is 'opencv', but OpenCV is not installed: pip install 'ssl-backbones\[fast\]', or take 'pillow'"
    with pytest.raises(ValueError, match=sentence):
        MultiView(views.BYOL_VIEWS, 16, engine="opencv")
    data = image_folder(tmp_path / "photos")
    with pytest.raises(UnfitError, match="engine is 'opencv', but OpenCV is not installed here: pip install"):
        start(tiny(MoCoV2Config, data, tmp_path / "run", engine="opencv"))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_a_method_has_an_engine_or_refuses_it(kind, photos, tmp_path):
    method = build(begin(tiny(kind, photos, tmp_path / "run")))
    for engine in ("opencv", "device"):
        recipe = tiny(kind, photos, tmp_path / "run", engine=engine)
        assert Recipe.from_dict(recipe.to_dict()) == recipe  # what a run has left can be read all the same
        with using_engine(engine):
            transform = method.transform(16)
        if engine in transform.engines:
            assert engine_of(recipe, method) == engine
            continue
        with pytest.raises(UnfitError, match=f"engine is '{engine}', but {kind.name} makes its views by pillow alone"):
            start(recipe)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [LewelMConfig, FlagsConfig])
def test_a_runs_views_are_made_by_its_engine(kind, tmp_path):
    data = image_folder(tmp_path / "photos")
    made = {}
    for engine in ("pillow", "opencv", "device"):
        forget()
        begun, *_ = start(tiny(kind, data, tmp_path / engine, engine=engine))
        assert not isinstance(begun, RunFolder)
        loop, log = begun
        with closing(log), loop.folder:
            assert loop.dataset.transform.engine == engine
            (batch,) = next(loop.loader.steps(0, 1))
        shown = loop.dataset.on_device(batch.content)
        made[engine] = views_and_places(shown[0] if kind is FlagsConfig else shown)[0]
    forget()
    for engine in ("opencv", "device"):
        differences = [(a - b).abs() for a, b in zip(made["pillow"], made[engine], strict=True)]
        assert all(0 < difference.mean() < 0.02 for difference in differences)


@pytest.mark.parametrize("engine", ["opencv", "device"])
def test_a_run_by_another_engine_that_is_stopped_goes_on_bit_identical_in_workers_too(engine, tmp_path):
    data = image_folder(tmp_path / "photos")
    whole = tiny(MoCoV2Config, data, tmp_path / "whole", engine=engine)
    run(whole)
    parted = replace(whole, out=str(tmp_path / "parted"), workers=1)
    stop(parted, 2)
    run(parted)
    assert outcome(tmp_path / "parted")["backbone"] == outcome(tmp_path / "whole")["backbone"]
    for name in ("recipe.json", "results.json"):
        assert json.loads((tmp_path / "whole" / name).read_text())["engine"] == engine


# The choice of a run that leaves it open


def engine_at_start(recipe: Recipe) -> str:
    """The engine of a run that is started, or goes on, and is left at once."""
    forget()
    loop, log = start(recipe)[0]
    with closing(log), loop.folder:
        return loop.dataset.transform.engine


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_opencv_makes_the_views_where_it_is_installed_and_can(kind, photos, tmp_path, monkeypatch):
    recipe = tiny(kind, photos, tmp_path / "run", engine="auto")
    method = build(begin(recipe))
    for installed in (True, False):
        if not installed:
            monkeypatch.setitem(sys.modules, "cv2", None)
        can = "opencv" in method.transform(16).engines
        assert engine_of(recipe, method) == ("opencv" if installed and can else "pillow"), installed
        said = views_sentence(replace(recipe, engine=engine_of(recipe, method)), method)
        assert ("OpenCV" in said) == (installed and can)
        assert ("pip install" in said) == (can and not installed)


def test_a_run_keeps_its_engine_whatever_is_installed_later(tmp_path, monkeypatch, capsys):
    """Begun without OpenCV it goes on by Pillow, begun with it it goes on by that or says in a sentence what lacks."""
    data = image_folder(tmp_path / "photos")
    slow, fast = (tiny(MoCoV2Config, data, tmp_path / name, engine="auto") for name in ("slow", "fast"))
    with monkeypatch.context() as without_opencv:
        without_opencv.setitem(sys.modules, "cv2", None)
        stop(slow, 1)
    stop(fast, 1)
    capsys.readouterr()
    assert engine_at_start(slow) == "pillow"
    said = "Views by Pillow, the reference; for faster ones start a new run (--out) with --engine opencv.\n"
    assert said in capsys.readouterr().out
    with monkeypatch.context() as without_opencv:
        without_opencv.setitem(sys.modules, "cv2", None)
        with pytest.raises(UnfitError, match="makes its views by OpenCV, which is not installed here: pip install"):
            start(fast)
    with pytest.raises(RunFolderError, match='engine is "opencv" there and "pillow" here'):
        start(replace(fast, engine="pillow"))
    assert engine_at_start(replace(fast, engine="opencv")) == "opencv"  # as it was found
    for recipe, engine in ((slow, "pillow"), (fast, "opencv")):
        written = Recipe.from_dict(json.loads((recipe.folder / "recipe.json").read_text()))
        assert written.engine == engine
        assert not altered(written)


# Runs that were begun before there was a choice


def without(path: Path, *fields: str) -> None:
    """Make a run's recipe one that was written when some fields did not exist."""
    recipe = json.loads((path / "recipe.json").read_text())
    for field in fields:
        *outer, last = field.split(".")
        part = recipe
        for name in outer:
            part = part[name]
        del part[last]
    (path / "recipe.json").write_text(json.dumps(recipe))


def test_a_run_begun_without_a_field_goes_on_with_its_default_and_with_no_other_value(tmp_path):
    data = image_folder(tmp_path / "photos")
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", engine="pillow")
    stop(recipe, 2)
    without(tmp_path / "run", "engine", "optimizer.trust_coefficient", "method.momentum")
    with pytest.raises(RunFolderError, match='engine is "pillow" there and "opencv" here'):
        run(replace(recipe, engine="opencv"))
    run(replace(recipe, engine="auto"))
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["engine"] == "pillow"
    whole = replace(recipe, out=str(tmp_path / "whole"))
    run(whole)
    assert all(torch.equal(tensor, state(tmp_path / "run")[name]) for name, tensor in state(tmp_path / "whole").items())


def test_a_field_that_was_there_still_counts_and_so_does_one_that_is_unknown(tmp_path):
    data = image_folder(tmp_path / "photos")
    recipe = tiny(MoCoV2Config, data, tmp_path / "run")
    stop(recipe, 2)
    without(tmp_path / "run", "seed")  # was 5, its default is 0
    with pytest.raises(RunFolderError, match=r"\(seed is 0 there and 5 here\)"):
        run(recipe)
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(written | {"seed": 5, "turbo": 1}))
    with pytest.raises(RunFolderError, match="turbo is 1 there and null here"):
        run(recipe)
