"""Slips that would cost hours: what is asked for and can never come of it is refused, or told, before the work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import image_folder, run, run_whole, stop, tiny
from small_methods import CONFIGS, Drawn, features_of, mined, small_config, small_method
from torch import nn

from ssl_backbones import commands, create_model, recipes
from ssl_backbones.catalogue.start import StartError, fill
from ssl_backbones.commands import compare
from ssl_backbones.commands.visualize import Options, visualize
from ssl_backbones.data import ImageSourceError, Request, check_apart, open_images
from ssl_backbones.evaluate.comparison.comparison import ComparisonError
from ssl_backbones.evaluate.maps import MapOptions, method_of, opened_models
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.losses import instance_exponentials, instance_nce
from ssl_backbones.methods import BYOLConfig, InstDiscConfig, LewelBConfig, MethodConfig, MoCoV2Config
from ssl_backbones.methods.instdisc import SHARPEST
from ssl_backbones.recipes.never_reached import never_reached
from ssl_backbones.registry.errors import UnknownModelError
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.train import pretrain as pretrain_module
from ssl_backbones.train.loader import MOST, WorkersError, reading_workers
from ssl_backbones.train.prepare import UnfitError

MOMENTA = [
    (kind, name)
    for kind in CONFIGS
    for name in ("momentum", "target_momentum", "memory_momentum")
    if hasattr(small_config(kind), name)
]


@pytest.mark.parametrize(("kind", "name"), MOMENTA, ids=lambda value: getattr(value, "name", value))
def test_a_momentum_at_which_nothing_moves_is_refused(kind: type[MethodConfig], name: str) -> None:
    small_config(kind, **{name: 0.999})
    with pytest.raises(ValueError, match=rf"{name} is a momentum and must be in \[0, 1\), as nothing moves at 1"):
        small_config(kind, **{name: 1.0})


ONE_SIZE = {"pixpro", "simclr", "supcon", "vicregl"}
"""Methods that pair positions of two views, or put both into one batch."""
TWO_VIEWS = [kind for kind in CONFIGS if len(getattr(small_config(kind), "views", None) or ()) > 1]


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("kind", TWO_VIEWS, ids=lambda kind: kind.name)
def test_views_of_two_sizes_are_scored_or_refused(kind: type[MethodConfig], at: int) -> None:
    views = small_config(kind).policies[:2]
    unlike = tuple(replace(view, size_share=0.5) if place == at else view for place, view in enumerate(views))
    if kind.name in ONE_SIZE:
        with pytest.raises(ValueError, match=r"size_share of 0\.5 and 1\.0, but this method takes one for all"):
            small_method(kind, views=unlike)
        return
    method = small_method(kind, views=unlike)
    dataset = method.dataset(mined(Drawn(8)), 32, 1)
    batch = dataset.on_device(dataset[Request(0, np.arange(8))].content)
    method.on_epoch_start(lambda: torch.randn(8, features_of(method)))
    assert method(batch)["loss"].isfinite()


def test_nce_is_a_number_at_every_temperature_that_is_accepted() -> None:
    keys = nn.functional.normalize(torch.randn(50, 8), dim=1)
    for temperature in (SHARPEST, 0.07):
        InstDiscConfig(temperature=temperature)
        at = torch.arange(50)[:, None].repeat(1, 3)
        exponentials = instance_exponentials(keys, keys, at, temperature)
        assert instance_nce(exponentials, 50 * exponentials.mean(), 50).isfinite()
    InstDiscConfig(temperature=0.001, noise=0)
    with pytest.raises(ValueError, match=r"at least 0\.0125 beside noise"):
        InstDiscConfig(temperature=0.012)


@pytest.mark.parametrize(
    ("name", "fields", "images", "said"),
    [
        ("resnet50_dino.in1k_100ep", {}, 5000, "frozen_steps is 2,502: what they hold still never moves"),
        ("resnet50_pcl.in1k_200ep", {"epochs": 10}, 5000, "instance_epochs is 20: prototypes are never made"),
        ("resnet50_instdisc.in1k_200ep", {"epochs": 100}, 5000, "is to fall after 120, 160: it never does"),
    ],
)
def test_settings_beyond_the_end_of_a_run_are_told(name: str, fields: dict[str, Any], images: int, said: str) -> None:
    recipe = replace(recipes.get(name), **fields)
    (sentence,) = never_reached(recipe, images // recipe.batch_size)
    assert said in sentence
    whole = recipes.get(name)
    assert never_reached(whole, 1_281_167 // whole.batch_size) == []


def test_no_recipe_has_settings_that_its_own_images_never_reach() -> None:
    for recipe in recipes.RECIPES.values():
        if recipe.promise.data == "ImageNet-1k":
            assert never_reached(recipe, 1_281_167 // recipe.batch_size) == [], recipe.name


def test_a_folder_of_another_run_is_refused_before_anything_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_folder(tmp_path / "photos")
    run(tiny(BYOLConfig, data, tmp_path / "run", epochs=1))

    def kept(*_: object) -> None:
        raise AssertionError("images are kept for a run that cannot be")

    monkeypatch.setattr(pretrain_module, "kept_as_pixels", kept)
    with pytest.raises(RunFolderError, match="holds the run of another recipe"):
        run(tiny(BYOLConfig, data, tmp_path / "run", epochs=2))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match=r"it holds letter\.txt but no recipe"):
        run(tiny(BYOLConfig, data, tmp_path / "mine", epochs=1))


ASKING: dict[str, Callable[[Path, Path], object]] = {
    "pretrain": lambda photos, _: run(tiny(BYOLConfig, photos, photos / "runs" / "mine")),
    "pretrain, validation": lambda photos, others: run(
        tiny(BYOLConfig, others, photos / "runs" / "mine", validation=str(photos))
    ),
    "visualize": lambda photos, _: visualize(Options("resnet8", str(photos), photos / "gallery", random=True)),
}


@pytest.mark.parametrize("asked", ASKING)
def test_outputs_among_the_images_are_refused_before_anything_is_written(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, others = image_folder(tmp_path / "photos"), image_folder(tmp_path / "others")
    monkeypatch.chdir(photos)
    before = sorted(photos.rglob("*"))
    for named in (photos, Path()):
        with pytest.raises(ImageSourceError, match=r"lies in the folder of images .*: name a folder outside of it"):
            ASKING[asked](named, others)
    assert sorted(photos.rglob("*")) == before


def test_outputs_beside_the_images_disturb_none(tmp_path: Path) -> None:
    images = open_images(image_folder(tmp_path / "photos"))
    for out in (tmp_path, tmp_path / "photos2", tmp_path / "photos" / ".runs" / "mine"):
        check_apart(out, images, None)


def test_a_state_is_taken_over_by_a_recipe_whose_sizes_follow_from_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "photos", 60)
    own = replace(
        recipes.get("resnet8_moco_v2.own"),
        data=str(data),
        out=str(tmp_path / "run"),
        max_steps=1,
        workers=0,
        precision="fp32",
        layout="contiguous",
    )
    stop(own, 1)
    run(own)
    run(replace(own, out=str(tmp_path / "onward"), init=str(tmp_path / "run"), with_state=True))
    said = capsys.readouterr().out
    assert "The state of moco_v2 is taken over" in said
    kept = json.loads((tmp_path / "onward" / "recipe.json").read_text())
    assert kept["method"]["queue_size"] < own.method.queue_size  # type: ignore[attr-defined]


def test_a_loss_that_is_no_number_is_refused_on_trial(tmp_path: Path) -> None:
    recipe = tiny(MoCoV2Config, image_folder(tmp_path / "photos"), tmp_path / "run", {"temperature": 1e-300})
    with pytest.raises(UnfitError, match=r"its loss is \w+ before any training"):
        run(recipe)
    assert not (tmp_path / "run").exists()


def test_a_start_that_holds_no_numbers_is_refused() -> None:
    network: Any = create_model("resnet8", num_classes=0)
    weights = network.state_dict()
    weights["conv1.weight"] = weights["conv1.weight"] * torch.nan
    start: Any = SimpleNamespace(weights=weights, provenance=SimpleNamespace(shown="mine", architecture="resnet8"))
    with pytest.raises(StartError, match=r"mine holds numbers that are not finite, in conv1\.weight"):
        fill(create_model("resnet8", num_classes=0), start)


def test_thousands_of_workers_are_a_slip() -> None:
    assert reading_workers(0) == 0
    assert reading_workers(MOST) == MOST
    with pytest.raises(WorkersError, match=r"workers is 100000, and \d+ cores have no use for more than"):
        reading_workers(100_000)


def test_a_folder_without_heads_is_measured_by_its_features_alone(tmp_path: Path) -> None:
    """A published one, and one that was trained with labels."""
    folder = run_whole(tiny(LewelBConfig, image_folder(tmp_path / "photos"), tmp_path / "run", epochs=1)).path

    def method(model: Path, random: bool = False) -> object:
        (opened,) = opened_models(MapOptions((str(model),), "", Path(), size=32, random=random))
        return method_of(opened, 0)

    assert method(folder) is not None
    assert method(folder, random=True) is not None
    for checkpoint in (folder / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / f"moved-{checkpoint.name}")
    assert method(folder) is None
    plain = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({name: value for name, value in plain.items() if name != "method"}))
    assert method(folder, random=True) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--protocol", "mlp"), "--protocol is for recipes, and none is named"),
        (("--sizes", "64"), "--sizes is for recipes"),
        (("--with_random",), "--with_random is for recipes"),
        (("--in_chans", "abc"), "--in_chans is abc, but must be a number of channels"),
        (("--in_chans",), "--in_chans is left empty"),
        (("--launch", "accelerate launch 'x"), "which is no command"),
    ],
)
def test_words_that_a_comparison_of_models_cannot_use(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    asked = ["--models", "resnet8_byol", "--data", str(data), "--out", str(tmp_path / "out"), "--protocols", "knn"]
    with pytest.raises(ComparisonError, match=said):
        compare.run(compare.parse([*asked, *words], "compare"))
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_of_a_comparison_is_found_before_its_recipes_are_trained() -> None:
    with pytest.raises(UnknownModelError):
        compare.comparison_of(compare.parse(["sample", "--models", "resnet8_boyl", "--data", "photos"], "compare"))


def test_the_folder_that_one_stands_in_is_carried_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(create_model("resnet8", num_classes=0), tmp_path / "mine", "resnet8")
    monkeypatch.chdir(tmp_path / "mine")
    assert commands.main(["bundle", ".", "--out", str(tmp_path / "carried")]) == 0
    assert (tmp_path / "carried" / "mine" / "model.safetensors").is_file()


def test_a_batch_of_more_images_than_there_are_is_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "photos", 40)
    words = ["--data", str(data), "--batch_size", "64", "--out", str(tmp_path / "run")]
    assert commands.main(["pretrain", "resnet8_swav.own", *words]) == 2
    assert "batch" in (said := capsys.readouterr().err)
    assert "queue_size" not in said
