"""The claim of a folder that holds a run: what may differ from it, and the images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import runs
from runs import STEPS, elsewhere, image_folder, outcome, run, stop, tiny
from whole_runs import Whole, contents, cut, data, noisy

from ssl_backbones import create_model
from ssl_backbones.data import ImageSourceError
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.registry.errors import UnknownModelError
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.train import pretrain as pretrain_module

__all__ = ["cut", "data", "noisy"]


def test_another_recipe_or_other_data_is_refused(noisy: Whole, cut: Path, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, shutil.copytree(cut, tmp_path / "run"))
    other = image_folder(tmp_path / "other", classes=("bag", "coat"))
    for there in (tmp_path / "run", noisy.path):
        before = contents(there)
        with pytest.raises(RunFolderError, match=r"another recipe \(seed is 5 there and 6 here\)"):
            run(dataclasses.replace(recipe, seed=6, out=str(there)))
        with pytest.raises(ImageSourceError, match=r"not those that the run in .* began with"):
            run(dataclasses.replace(recipe, data=str(other), out=str(there)))
        assert contents(there) == before


def test_other_data_are_refused_before_anything_is_made_of_them(
    noisy: Whole, cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither pixels nor what a method makes of all images, as a teacher's features."""
    other = image_folder(tmp_path / "other", 20)
    for making in ("kept_as_pixels", "resident", "prepare"):
        monkeypatch.setattr(pretrain_module, making, lambda *_: pytest.fail("something was made of other images"))
    for there in (cut, noisy.path):
        with pytest.raises(ImageSourceError, match=r"\(20 images of fingerprint \w+ instead of 26 images of"):
            run(dataclasses.replace(noisy.recipe, data=str(other), out=str(there)))


@pytest.mark.parametrize("end", [4, 5])
def test_a_stopped_run_may_end_where_it_stands(end: int, noisy: Whole, cut: Path, tmp_path: Path) -> None:
    """Or later; not before, and not once more when it is finished."""
    recipe = elsewhere(noisy.recipe, shutil.copytree(cut, tmp_path / "run"))
    with pytest.raises(UnknownModelError, match=r"at step 4 and not finished, .* --max_steps 4 to end it there"):
        create_model(recipe.folder, pretrained=True)
    with pytest.raises(RunFolderError, match=r"trained up to step 4, and a run of 3 steps .* --max_steps 4"):
        run(dataclasses.replace(recipe, max_steps=3))
    folder = run(dataclasses.replace(recipe, max_steps=end))
    assert json.loads(folder.results.read_text())["steps"] == end
    trained = {f"method/backbone.{name}": kept for name, kept in create_model(folder.path, True).state_dict().items()}
    saved = runs.state(folder.path)
    assert runs.sha(trained) == runs.sha({name: saved[name] for name in trained})
    with pytest.raises(RunFolderError, match=rf"another recipe \(max_steps is {end} there and 0 here\)"):
        run(recipe)


def test_the_same_data_may_lie_elsewhere(noisy: Whole, cut: Path, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, shutil.copytree(cut, tmp_path / "run"))
    run(dataclasses.replace(recipe, data=str(image_folder(tmp_path / "moved"))))
    moved, whole = outcome(tmp_path / "run"), outcome(noisy.path)
    assert moved["results"]["data"].pop("source") != whole["results"]["data"].pop("source")  # the folder's name
    assert moved == whole


def test_what_is_measured_may_change_on_the_way(data: Path, tmp_path: Path) -> None:
    k5 = tiny(BYOLConfig, data, tmp_path / "k5", monitoring=Monitoring(k=5, bank=20))
    run(k5)
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    stop(recipe, 4)
    stop(elsewhere(k5, tmp_path / "run"), 5)
    run(elsewhere(k5, tmp_path / "run"))
    changed, whole = (outcome(tmp_path / name)["results"] for name in ("run", "k5"))
    assert changed["trend"]["steps"] == [STEPS]
    assert changed == whole
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["monitoring"]["k"] == 5
