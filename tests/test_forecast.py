"""Forecasts: the time, memory and disk that a run takes, and dry runs that tell them."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import image_folder, run, tiny
from small_methods import STAND_INS, leave_teacher
from test_plan import CPU, alone, refused
from two_processes import run_two_processes

from ssl_backbones import commands
from ssl_backbones.data import Images, open_images
from ssl_backbones.data.cached import CachedImages
from ssl_backbones.methods import BYOLConfig, LewelMConfig, Method
from ssl_backbones.models.teacher import Teacher
from ssl_backbones.models.teacher_branch import BESIDE
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train import cache as cache_module
from ssl_backbones.train import forecast as forecast_module
from ssl_backbones.train import prepare as prepare_module
from ssl_backbones.train import pretrain as pretrain_module
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.cache_file import UnfinishedCache
from ssl_backbones.train.cost import learning, size_of_state, while_reading
from ssl_backbones.train.forecast import forecast, layout_on

pytestmark = pytest.mark.usefixtures(alone.__name__)


@pytest.mark.parametrize("kind", STAND_INS)
def test_every_method_has_a_forecast(kind: type, tmp_path: Path) -> None:
    recipe = tiny(kind, image_folder(tmp_path / "photos"), tmp_path / "run")
    found = forecast(recipe, open_images(recipe.data), CPU)
    assert (found.steps, found.steps_per_epoch) == (6, 3)
    assert found.seconds > 0
    assert found.memory > 4 * 77_392
    assert not (tmp_path / "run").exists()


def test_the_disk_is_that_of_the_checkpoints(tmp_path: Path) -> None:
    recipe = tiny(LewelMConfig, image_folder(tmp_path / "photos"), tmp_path / "run")
    method = pretrain_module.build(Beginning(recipe, None))
    run(recipe)
    found = [
        sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())
        for saved in (tmp_path / "run" / "checkpoints").glob("step-*")
    ]
    assert size_of_state(method) + 4 * learning(method) == pytest.approx(max(found), rel=0.15)


def test_memory_grows_with_what_is_scored_at_once(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos", 40)
    usual = tiny(BYOLConfig, data, tmp_path / "run", size=64, batch_size=32)
    images = open_images(str(data))
    whole, parts = (forecast(replace(usual, accumulation=parts), images, CPU).memory for parts in (1, 4))
    assert parts < whole / 2


def test_a_dry_run_tells_the_forecast_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "photos", 40)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["pretrain", "resnet8_moco_v2.own", "--data", str(data), "--dry_run", "--epochs", "7"]) == 0
    said = capsys.readouterr().out
    assert "epochs 7" not in said.partition("Forecast")[0].partition("by the rules")[2]
    assert re.search(
        r"^Forecast: 14 steps, 2 an epoch; .* in all \(timed on 4 images, cpu, .*\); about .* of disk\.$", said, re.M
    )
    assert f"Opening {data}\n" in said
    assert "Timing 4 images of " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_readers_share_the_cores_of_a_cpu_and_not_those_of_a_gpu() -> None:
    gpu = torch.device("cuda")
    assert while_reading(2.0, 6.0, 2, CPU) == 2 + 6 / 3
    assert while_reading(2.0, 6.0, 0, CPU) == while_reading(2.0, 6.0, 0, gpu) == 8
    assert (while_reading(2.0, 6.0, 2, gpu), while_reading(2.0, 6.0, 6, gpu)) == (3, 2)


def test_reading_is_told_as_of_one_process_where_several_shared_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "photos", 20), tmp_path / "run")
    clock = iter([10.0, 13.0, 20.0, 23.0])
    monkeypatch.setattr(prepare_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(prepare_module, "read_in_parts", lambda dataset, request, workers: dataset[request])
    told = []
    for workers in (0, 4):
        monkeypatch.setattr(prepare_module, "readers", lambda run, images, workers=workers: workers)
        monkeypatch.setattr(prepare_module, "parts_for", lambda count, workers: workers)
        method = pretrain_module.build(Beginning(recipe, None))
        told.append(prepare_module.read_batch(recipe, method, open_images(recipe.data), CPU)[1])
    assert told == [3, 12]


def timed_beside_a_busy_process(rank: int, place: str) -> list[int]:
    """The images of each timed batch, and the steps taken, of a process whose clock goes slower than the other's."""
    taken: list[int] = []

    def slow(work: Any, device: torch.device) -> float:
        work()
        taken.append(0)
        return 0.21 + 0.4 * rank * len(taken)

    def noting(run: Any, *given: Any) -> Any:
        taken.append(run.batch_size)
        return prepare_module.read_batch(run, *given)

    recipe = tiny(BYOLConfig, Path(place), Path(place) / "run", batch_size=64, size=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast_module, "PATIENCE", 8.0)
        patch.setattr(forecast_module, "timed", slow)
        patch.setattr(forecast_module, "read_batch", noting)
        forecast(recipe, open_images(recipe.data), CPU)
    return taken


def test_all_processes_time_the_same_steps_whatever_their_clocks_say(tmp_path: Path) -> None:
    """A step is taken together: a process that took another would wait for the others for ever."""
    image_folder(tmp_path, 100)
    first, second = run_two_processes(timed_beside_a_busy_process, str(tmp_path))
    assert first == second
    assert len([images for images in first if images]) == 2


@pytest.mark.parametrize("kept", [BESIDE, "features"])
def test_a_dry_run_keeps_no_features_and_tells_what_they_take(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher sees one image, and then a batch, of the 70 that there are."""
    teacher, looked = leave_teacher(tmp_path / "teacher"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "apart"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "apart").mkdir()
    data = image_folder(tmp_path / "photos", 70)
    look = Teacher.look
    monkeypatch.setattr(Teacher, "look", lambda self, images: [looked.append(len(images)), look(self, images)][1])
    words = ["--data", str(data), "--method.teacher", teacher, "--method.kept", kept, "--method.teacher_size", "32"]
    recipe = "resnet8_distilled.imagenette32_60ep_lite0"
    assert commands.main(["pretrain", recipe, *words, "--batch_size", "8", "--dry_run"]) == 0
    assert re.search(
        r"^Forecast: about .* for what is made of all images once; 480 steps, ", capsys.readouterr().out, re.M
    )
    assert sum(looked) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apart", "photos", "teacher"]
    assert list((tmp_path / "apart").iterdir()) == []


def test_the_views_that_are_timed_are_those_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    read_batch = prepare_module.read_batch

    def noting(run: Any, method: Any, images: Any, device: torch.device) -> Any:
        made.append(method.transform(run.size).engine)
        return read_batch(run, method, images, device)

    monkeypatch.setattr(forecast_module, "read_batch", noting)
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "photos"), tmp_path / "run", engine="device")
    forecast(recipe, open_images(recipe.data), CPU)
    assert set(made) == {"device"}


@pytest.mark.parametrize("layout", ["auto", "contiguous", "channels_last"])
def test_the_step_that_is_timed_is_the_one_that_a_run_takes(
    layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    laid_out = forecast_module.laid_out

    def noting(method: Any, layout: Any) -> Any:
        seen.append(layout)
        return laid_out(method, layout)

    monkeypatch.setattr(forecast_module, "PATIENCE", 0.0)
    monkeypatch.setattr(forecast_module, "laid_out", noting)
    monkeypatch.setattr(forecast_module, "set_switches", lambda run, device: seen.append((run.deterministic, device)))
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "photos"), tmp_path / "run", layout=layout, deterministic=True)
    for device, usual in (("cpu", "contiguous"), ("cuda", "channels_last")):
        monkeypatch.setattr(forecast_module, "layout_on", lambda _, device=device: layout_on(torch.device(device)))
        forecast(recipe, open_images(recipe.data), CPU)
        assert seen[0] == (True, CPU)
        assert set(seen[1:]) == {usual if layout == "auto" else layout}
        seen.clear()


def test_a_dry_run_refuses_an_engine_that_the_method_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["resnet8_rotnet.imagenette32_16ep", "--data", str(image_folder(tmp_path / "p")), "--engine", "device"]
    assert "rotnet makes its views by pillow alone" in refused(capsys, "pretrain", *words, "--dry_run")


@pytest.mark.parametrize("reencode", [0, 16])
def test_a_forecast_reads_the_images_as_the_cache_will_have_them(
    reencode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And tells what making it takes, unless it is there; it leaves none behind."""
    data, caches = image_folder(tmp_path / "photos", 40), tmp_path / "caches"
    recipe = tiny(BYOLConfig, data, tmp_path / "run", cache=str(caches), reencode=reencode)
    images, seen = open_images(str(data)), []
    read = prepare_module.read_batch

    def noted(run: Recipe, method: Method, images: Images, device: torch.device) -> tuple[Any, float]:
        seen.append(images)
        return read(run, method, images, device)

    monkeypatch.setattr(forecast_module, "read_batch", noted)
    found = forecast(recipe, images, CPU)
    assert (found.before > 0, found.steps_per_epoch) == (True, 5)
    assert {(type(one), len(one)) for one in seen} == {(CachedImages, 8)}
    assert not caches.exists()
    pretrain_module.kept_as_pixels(recipe, images, None)
    assert forecast(recipe, images, CPU).before == 0
    assert (type(seen[-1]), len(seen[-1])) == (CachedImages, 40)
    if not reencode:
        few = replace(recipe, cache=str(tmp_path / "others"), cache_limit=1e-9)
        assert forecast(few, images, CPU).before == 0, "images too large for it are read as they are"
        assert not isinstance(seen[-1], CachedImages)


def test_a_cache_is_told_to_take_what_putting_images_in_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what its size is estimated by, nor what is compared when it is there."""
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "photos", 40), tmp_path / "run", cache=str(tmp_path / "caches"))
    clock, content = [0.0], UnfinishedCache.content

    def slow(making: UnfinishedCache, at: int) -> Any:
        clock[0] += 2
        return content(making, at)

    monkeypatch.setattr(UnfinishedCache, "content", slow)
    monkeypatch.setattr(cache_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert forecast(recipe, open_images(recipe.data), CPU).before == 2 * 40
