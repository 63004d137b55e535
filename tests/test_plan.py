"""Plans and forecasts: what a folder of images is advised, what it will cost, and what is refused."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import drawn_image
from runs import forget, image_folder, run
from small_methods import Drawn

from ssl_backbones import commands
from ssl_backbones import recipes as known_recipes
from ssl_backbones.commands import plan as plan_command
from ssl_backbones.data import open_images
from ssl_backbones.data.survey import survey
from ssl_backbones.models.teacher_branch import TeacherConfig
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.facts import Facts
from ssl_backbones.recipes.own import settled
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train import forecast as forecast_module
from ssl_backbones.train import plan as plan_module
from ssl_backbones.train import prepare as prepare_module
from ssl_backbones.train.forecast import Forecast
from ssl_backbones.train.guards import MemoryShortError
from ssl_backbones.train.plan import FEW, WHY, plan, start_of

CPU = torch.device("cpu")
COST = Forecast(7200, 9, 0.5, 1e9, 1e8, "timed elsewhere")
"""An hour, in 800 epochs."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of a process of their own, whose forecasts time few images."""
    monkeypatch.setattr(forecast_module, "PATIENCE", 0.01)
    forget()
    yield
    forget()


def links(path: Path, count: int, side: int = 256) -> Path:
    """A folder of one image under many names."""
    path.mkdir(parents=True)
    drawn_image(0, side, side).save(path / "first.jpg")
    for number in range(1, count):
        os.link(path / "first.jpg", path / f"{number:05}.jpg")
    return path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The output of a plan."""
    assert commands.main(["plan", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence that a command is refused with."""
    assert commands.main(words) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


def commands_in(output: str) -> list[list[str]]:
    """The words after `pretrain` of every command of a plan."""
    return [shlex.split(line) for line in re.findall(r"^\d\. ssl-backbones pretrain (.*)$", output, re.M)]


def test_a_plan_for_a_few_images_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = image_folder(tmp_path / "my images", 40)
    output = told(capsys, "--data", str(data))
    assert "40 images, " in output
    assert "shorter side 24 to 28 px, median 26" in output
    assert "2 classes, from the folders bag, hat" in output
    assert "0 of 40 images decoded for a trial cannot be read (0%)" in output
    named = commands_in(output)
    assert [words[0] for words in named] == ["resnet18_moco_v2.own", "resnet8_moco_v2.own"]
    for words in named:
        recipe = read_recipe(words, "pretrain", None)
        assert (recipe.data, recipe.batch_size, recipe.epochs) == (str(data), 16, 800)
        assert f"learning rate {recipe.peak_lr:g}" in output
    forget()
    cut = ["--max_steps", "2", "--workers", "0", "--precision", "fp32", "--out", str(tmp_path / "run")]
    folder = run(read_recipe([*named[-1], *cut], "pretrain", None))
    assert folder.results.exists()


def test_a_plan_for_a_gpu_that_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_module, "forecast", lambda recipe, images, device: COST)
    data = links(tmp_path / "images", 2000)
    output = told(capsys, "--data", str(data), "--gpu_memory", "12", "--hours", "3")
    assert "1999 images are copies of others" in output
    assert "--hours is not used: the GPU is not here to be timed" in output
    first, second, third = commands_in(output)
    assert [words[0] for words in (first, second, third)] == [f"{arch}_moco_v2.own" for arch in WHY]
    recipe = read_recipe(first, "pretrain", None)
    facts = Facts(2000, 256, 0.8 * 12e9, gpu=True)
    assert (recipe.size, recipe.batch_size, recipe.accumulation, recipe.epochs) == (224, 64, 1, 300)
    assert settled(recipe, facts).method == settled(read_recipe(first[:1], "pretrain", None), facts).method
    assert "its hours cannot be timed from here" in output
    assert "--init resnet50_dino.in1k_800ep --optimizer.lr 0.02 begins with published weights (apache-2.0" in output
    assert re.search(
        r"--init resnet18\.\w+ --optimizer.lr \S+ begins with timm's weights \(apache-2.0, trained with labels\)",
        output,
    )


def test_a_plan_without_labels_is_of_commands_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the words that the plan itself offers."""
    monkeypatch.setattr(plan_module, "forecast", lambda recipe, images, device: COST)
    data = str(image_folder(tmp_path / "images", 40))
    offered = re.search(r": (--labels none) to leave them out", told(capsys, "--data", data))
    assert offered is not None
    output = told(capsys, "--data", data, *offered[1].split())
    assert "No labels: none are needed" in output
    started = [shlex.split(line) for line in re.findall(r"ssl-backbones pretrain (.*)$", output, re.M)]
    recipes = [read_recipe([word for word in line if word != "--dry_run"], "pretrain", None) for line in started]
    assert len(recipes) > 1
    assert {recipe.labels for recipe in recipes} == {"none"}


def test_a_plan_with_a_cache_is_of_commands_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed: list[Recipe] = []

    def forecast(recipe: Recipe, images: Any, device: Any) -> Forecast:
        timed.append(recipe)
        return COST

    monkeypatch.setattr(plan_module, "forecast", forecast)
    data, cache = str(image_folder(tmp_path / "images", 40)), str(tmp_path / "my cache")
    output = told(capsys, "--data", data, "--cache", cache, "--reencode", "24")
    started = [shlex.split(line) for line in re.findall(r"ssl-backbones pretrain (.*)$", output, re.M)]
    recipes = [read_recipe([word for word in line if word != "--dry_run"], "pretrain", None) for line in started]
    assert len(recipes) == len(timed) + 1  # and the one that has a teacher
    assert {(recipe.cache, recipe.reencode) for recipe in [*recipes, *timed]} == {(cache, 24)}
    assert not Path(cache).exists()
    sentence = refused(capsys, "plan", "--data", str(tmp_path / "none"), "--reencode", "24")
    assert "reencode is 24, but must be 0 without a folder for the cache" in sentence


@pytest.mark.parametrize("count", [39, 40])
@pytest.mark.parametrize("words", [(), ("--gpu_memory", "12")], ids=["here", "elsewhere"])
def test_every_command_that_is_told_can_be_started(
    words: tuple[str, ...],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Distillation first where images are few; every choice with the start that is told beside it."""
    monkeypatch.setattr(plan_module, "forecast", lambda recipe, images, device: COST)
    monkeypatch.setattr(plan_command, "survey", lambda images: SimpleNamespace(sentences=list))
    monkeypatch.setattr(plan_command, "TAUGHT_BELOW", 40)
    output = told(capsys, "--data", str(links(tmp_path / "my images", count)), *words)
    started = [shlex.split(line) for line in re.findall(r"ssl-backbones pretrain (.*)$", output, re.M)]
    recipes = [read_recipe([word for word in line if word != "--dry_run"], "pretrain", None) for line in started]
    assert {recipe.data for recipe in recipes} == {str(tmp_path / "my images")}
    taught = recipes[0 if count < 40 else -1]
    assert (taught.model.partition("_")[2], taught.method.teacher) == ("distilled", TeacherConfig.teacher)  # type: ignore[attr-defined]
    starts = re.findall(r"^\d\. ssl-backbones pretrain (.*)\n(?: .*\n)*? +Start: (--init \S+ --\S+ \S+)", output, re.M)
    assert starts
    for line, start in starts:
        usual, begun = (read_recipe(shlex.split(told), "pretrain", None) for told in (line, f"{line} {start}"))
        assert begun.optimizer.lr == pytest.approx(usual.optimizer.lr / 3, rel=0.1)
        assert begun.init


def test_features_of_images_that_lie_in_no_folder_are_kept_in_one_that_is_named(tmp_path: Path) -> None:
    recipe = known_recipes.get("resnet18_byol.own")
    for images, kept in ((Drawn(5), "features"), (open_images(str(image_folder(tmp_path / "photos"))), "beside")):
        words = plan_module.from_teacher(recipe, images).partition("ssl-backbones pretrain ")[2].split()
        assert read_recipe(words[:-1], "pretrain", None).method.kept == kept  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "refusal", [ValueError("too few"), MemoryShortError("out of memory")], ids=lambda one: str(one)
)
def test_a_network_that_does_not_fit_leaves_the_others(
    refusal: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forecast(recipe: Recipe, images: Any, device: Any) -> Forecast:
        if recipe.model.startswith("resnet50"):
            raise refusal
        return COST

    monkeypatch.setattr(plan_module, "forecast", forecast)
    folder = str(links(tmp_path / "images", 300))
    found = plan(open_images(folder), {"data": folder}, CPU, 12)
    assert [choice.recipe.model.partition("_")[0] for choice in found] == ["resnet18", "resnet8"]
    assert f"resnet50_moco_v2.own is left out: {refusal}" in capsys.readouterr().out


def test_the_method_follows_from_the_number_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "forecast", lambda recipe, images, device: COST)
    named = {}
    for count in (FEW - 1, FEW):
        folder = str(links(tmp_path / str(count), count))
        named[count] = plan(open_images(folder), {"data": folder}, CPU)[-1].recipe.name
    assert named == {FEW - 1: "resnet8_moco_v2.own", FEW: "resnet8_byol.own"}


def test_hours_shorten_a_run_or_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, slow = replace(COST, seconds=0.1), replace(COST, seconds=10.0)
    costs = {"resnet18_moco_v2": slow, "resnet8_moco_v2": quick}
    monkeypatch.setattr(plan_module, "forecast", lambda recipe, images, device: costs[recipe.model])
    data = links(tmp_path / "images", 300)
    output = told(capsys, "--data", str(data), "--hours", "0.11")
    assert "resnet18_moco_v2.own is left out: --hours is 0.11, and 80 epochs" in output
    ((name, *words),) = commands_in(output)
    assert (name, words[-2:]) == ("resnet8_moco_v2.own", ["--epochs", "400"])
    assert "400 epochs" in output
    assert "3600 steps" in output
    said = refused(capsys, "plan", "--data", str(data), "--hours", "0.01")
    assert "--hours is 0.01, and 80 epochs, a tenth of what so many images want, take 0.022 hours" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("plan --data few", "10 images are too few to learn from: resnet8_moco_v2.own wants 32 at least"),
        ("plan --data photos --gpu_memory 0.4", "take about 0.5 GB with resnet8_moco_v2, and 0.3 GB may be filled"),
        ("plan --data photos --gpu_memory -1", "gpu_memory is -1.0, but must be above 0, or 0 for no bound"),
        ("plan --data nowhere", "'nowhere' does not exist"),
        ("pretrain resnet8_byol.own --data few --dry_run", "10 images are too few to learn from"),
        ("pretrain resnet8_byol.own --data photos --batch_size 1", "a batch of 1 images of 32 px cannot be scored"),
        (
            "pretrain resnet8_byol.own --data photos --batch-size 50 --dry-run",
            "40 images are fewer than the batch of 50",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path / "photos", 40)
    image_folder(tmp_path / "few", 10, ())
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *words.split())
    assert not (tmp_path / "runs").exists()


def test_an_odd_batch_on_two_processes_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare_module, "world_size", lambda: 2)
    data = image_folder(tmp_path / "photos", 40)
    words = ["pretrain", "resnet8_byol.own", "--data", str(data), "--batch_size", "17", "--dry_run"]
    assert "a batch of 17 images cannot be shared evenly by 2 processes x 1" in refused(capsys, *words)


def test_a_survey_counts_what_is_wrong(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", 20, ())
    (folder / "00.jpg").write_bytes(b"no image")
    (folder / "copy.jpg").write_bytes((folder / "01.jpg").read_bytes())
    found = survey(open_images(str(folder)))
    assert (found.images, found.copies, found.unreadable, found.labels) == (21, 1, (1, 21), "")
    assert "1 of 21 images decoded for a trial cannot be read (5%)." in found.sentences()


def test_large_images_are_advised_a_cache(tmp_path: Path) -> None:
    assert any("--reencode" in line for line in survey(open_images(str(links(tmp_path / "a", 2, 1500)))).sentences())
    assert not any("--reencode" in line for line in survey(open_images(str(links(tmp_path / "b", 2)))).sentences())


@pytest.mark.parametrize("name", WHY)
def test_a_start_is_one_that_allows_commercial_use(name: str) -> None:
    said = start_of(name, 0.3)
    whose = "(published|timm's) weights"
    assert said == "" or re.match(
        rf"^Start: --init \S+ --optimizer.lr 0.1 begins with {whose} \((apache-2.0|mit)", said
    )
