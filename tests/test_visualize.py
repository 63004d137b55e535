"""From a network and images to a page and figures; and the page that a run ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import drawn_image
from image_sources import image_files
from PIL import Image
from runs import image_folder, run, run_whole, tiny
from scripts import script
from small_methods import leave_teacher
from test_gallery import Page

from ssl_backbones import commands, create_model
from ssl_backbones.commands import visualize
from ssl_backbones.evaluate.maps import MapOptions, method_of, opened_models
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import (
    DistilledConfig,
    LewelBConfig,
    Method,
    MethodConfig,
    PatchRotNetConfig,
    RoBConfig,
    method_from_run,
)
from ssl_backbones.models.teacher import TeacherError
from ssl_backbones.train import results
from ssl_backbones.visualizers import Scatter, save_figure, scatter_figure, scatter_panels, view_panels
from ssl_backbones.visualizers.figures import save_image
from ssl_backbones.visualizers.thumbnails import legend_names

__all__ = ["image_files"]


@pytest.fixture(scope="module")
def lewel(image_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run of LEWEL_B."""
    return run_whole(
        tiny(LewelBConfig, image_files, tmp_path_factory.mktemp("lewel") / "run", unreadable_share=0.5)
    ).path


def look(model: str | Path, images: Path, out: Path, *more: str) -> Page:
    """The page that the command leaves."""
    script("visualize", [str(model), "--data", str(images), "--out", str(out), "--map", "pca", "--count", "4", *more])
    return Page((out / "index.html").read_text(encoding="utf-8"))


def headings(page: Page) -> list[str]:
    return [words for tag, words in page.words if tag == "h2"]


def test_a_run_is_shown_with_its_curves_and_its_own_maps(lewel: Path, image_files: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = look(lewel, image_files, tmp_path / "new" / "gallery", "--pdf", "--count", "17")
    assert headings(page) == [
        "Verdict",
        "The run",
        "Where the network looks",
        "Alignment maps",
        "The same maps on two views",
        "Nearest neighbours",
        "Where two images are alike",
        "Map of features",
    ]
    left = {str(path.relative_to(tmp_path / "new" / "gallery")) for path in (tmp_path / "new").rglob("*.*")}
    drawn = {"alignment_of_views", "features"}
    assert {f"figures/{name}.{kind}" for name in drawn for kind in ("png", "pdf")} <= left
    assert {"figures/alignment.png", "figures/neighbours.png", "index.html"} <= left
    assert (tmp_path / "new" / "gallery" / "figures" / "features.pdf").read_bytes().startswith(b"%PDF")
    assert "figures/views.png" not in left
    titles = [drawing["aria-label"] or "" for drawing in page.all("svg") if drawing.get("class") == "curve"]
    assert any(title.startswith("Loss: from") for title in titles)
    assert any("chance is" in title for title in titles)
    assert "script" not in {tag for tag, _ in page.found}
    assert "b" not in {tag for tag, _ in page.found}
    assert any("alert('1')" in words for _, words in page.words)
    assert any("1 more could not be read" in words for _, words in page.words)


def test_a_run_ends_with_its_page(lewel: Path) -> None:
    page = Page((lewel / "gallery.html").read_text(encoding="utf-8"))
    assert headings(page)[:4] == ["Verdict", "The run", "Where the network looks", "Alignment maps"]
    after = json.loads((lewel / "results.json").read_text())["numbers"]["knn"]["value"]
    assert any(f"{100 * after:.1f} % [" in words for _, words in page.words)
    assert (lewel / "gallery.html").stat().st_size < 2e6


def test_a_picture_that_fails_loses_no_run(
    image_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **choices: Any) -> None:
        raise ZeroDivisionError("no ink")

    monkeypatch.setattr(results, "draw_page", fail)
    ended = run_whole(tiny(PatchRotNetConfig, image_files, tmp_path / "run", unreadable_share=0.5))
    assert ended.results.exists()
    left = (ended.path / "gallery.html").read_text(encoding="utf-8")
    assert headings(Page(left)) == ["Verdict", "The run"]
    assert "refresh" not in left
    assert (
        "the images of gallery.html were not drawn, and all else is there (ZeroDivisionError('no ink'))"
        in capsys.readouterr().out
    )
    page = look(ended.path, image_files, tmp_path / "gallery")
    told = [words for tag, words in page.words if tag == "bdi" and "taken for" in words]
    assert len(told) == 8 * 3


def test_a_name_with_random_weights_and_images_without_classes(tmp_path: Path) -> None:
    page = look("resnet8", image_folder(tmp_path / "photos", 3, ()), tmp_path / "out", "--random", "--size", "16")
    assert headings(page) == [
        "Where the network looks",
        "Nearest neighbours",
        "Where two images are alike",
    ]
    assert any("resnet8 with random weights" in words for _, words in page.words)
    one = look("resnet8", image_folder(tmp_path / "one", 1, ()), tmp_path / "single", "--random")
    assert headings(one) == ["Where the network looks"]


def test_the_same_command_gives_the_same_page(image_files: Path, tmp_path: Path) -> None:
    for name in "ab":
        look("resnet8", image_files, tmp_path / name, "--random", "--seed", "4")
    first, second = ((tmp_path / name / "index.html").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resnet8"], "no weights are published"),
        (["resnett8", "--random"], "near it are"),
        (["resnet8", "--random", "--data", "nowhere"], "'nowhere' does not exist"),
        (["resnet8", "--random", "--count", "0"], "count is 0, but must be at least 1"),
        (["resnet8", "--random", "--map", "mds"], "--map"),
        (["resnet8", "--random", "--out", "taken"], "exists: choose another folder"),
        (["resnet8", "--random", "--out", "paper"], "features.png exists: choose another folder"),
        (["resnet8", "--random", "--beside", "resnett8"], "near it are"),
        (["resnet8", "--random", "--beside", "resnet20", "--bank", "3", "--count", "3"], "no weights are published"),
        (["resnet8", "--random", "--out", "file/below"], "cannot be written to"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(
    arguments: list[str],
    sentence: str,
    image_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "index.html").write_text("mine")
    (tmp_path / "file").write_text("")
    (tmp_path / "paper" / "figures").mkdir(parents=True)
    (tmp_path / "paper" / "figures" / "features.png").write_bytes(b"somebody's")
    with pytest.raises(SystemExit, match="2"):
        script("visualize", ["--data", str(image_files), "--out", "out", *arguments])
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert said.startswith("visualize.py: ")
    assert "Traceback" not in said
    assert (tmp_path / "taken" / "index.html").read_text() == "mine"


def test_a_damaged_run_is_refused(
    lewel: Path, image_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "run" / "recipe.json").write_bytes((lewel / "recipe.json").read_bytes())
    with pytest.raises(SystemExit, match="2"):
        look(tmp_path / "run", image_files, tmp_path / "out")
    assert "step-00000001: it has no MANIFEST.json" in capsys.readouterr().err


def test_figures_are_not_written_into_a_folder_behind_a_link(
    image_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "figures").symlink_to(tmp_path / "outside")
    words = ["resnet8", "--random", "--data", str(image_files), "--out", str(tmp_path / "page")]
    assert commands.run("visualize", words, "visualize") == 2
    assert "nothing is written through links" in capsys.readouterr().err
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("kind", [DistilledConfig, RoBConfig])
def test_a_run_whose_teacher_was_moved_is_shown_and_measured_without_heads(
    kind: type[MethodConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = leave_teacher(tmp_path / "teacher")
    recipe = tiny(kind, image_folder(tmp_path / "photos", 16), tmp_path / "run", {"teacher": teacher}, epochs=1)
    folder = run(recipe).path
    (tmp_path / "teacher").rename(tmp_path / "moved")
    with pytest.raises(TeacherError, match=r"/teacher'"):
        method_from_run(folder)
    for random in (False, True):
        asked = visualize.Options(str(folder), data="photos", out=tmp_path / "page", random=random)
        assert not isinstance(visualize.viewer_of(asked).model, Method)
        (opened,) = opened_models(MapOptions((str(folder),), "", Path(), size=32, random=random))
        assert method_of(opened, 0) is None
        assert capsys.readouterr().out.count("is used without its heads, as its teacher cannot be had: ") == 2


def test_figures_of_another_network_do_not_stay(image_files: Path, tmp_path: Path, lewel: Path) -> None:
    out = tmp_path / "page"
    look(lewel, image_files, out)
    assert (out / "figures" / "alignment.png").exists()
    for left in ("networks.png", "networks.pdf", "features.pdf", "mine.png"):
        (out / "figures" / left).write_bytes(b"")
    look("resnet8", image_files, out, "--random", "--size", "16", "--overwrite")
    assert {path.name for path in (out / "figures").iterdir()} == {"features.png", "neighbours.png", "mine.png"}


def test_vectors_without_matplotlib_are_refused_before_any_work(
    image_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(visualize, "open_images", lambda spec: pytest.fail("images were opened"))
    with pytest.raises(SystemExit, match="2"):
        look("resnet8", image_files, tmp_path, "--random", "--pdf")
    assert "pip install 'ssl-backbones[viz]'" in capsys.readouterr().err


def test_figures_are_drawn_without_a_window_or_global_state(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    views = [drawn_image(n, 20, 20) for n in range(3)]
    names = [r"$\frac$", "帽子_b", "<b>"]
    panels = view_panels(views, np.random.default_rng(0).random((3, 4, 4)), names, ["$x", "y", "z"])
    for number, figure in enumerate(
        (panels.figure(), scatter_figure(np.eye(2)[[0, 1, 0]], [0, 1, 2], names, title="$"))
    ):
        for kind in ("png", "pdf"):
            path = tmp_path / f"{number}.{kind}"
            save_figure(figure, path)
            assert path.stat().st_size > 1000
        pixels = np.asarray(Image.open(tmp_path / f"{number}.png").convert("L"))
        assert pixels.std() > 5
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    assert panels.picture().width > 60
    with pytest.raises(ValueError, match="2 maps for 3 views"):
        view_panels(views, np.zeros((2, 4, 4)))


def test_networks_stand_side_by_side(image_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    tuned = save_backbone(create_model("resnet8", num_classes=0), tmp_path / "private" / "tuned", "resnet8")
    drawn: list[Any] = []

    def kept(panels: Sequence[Scatter], *others: Any, **more: Any) -> Any:
        drawn.extend(panels)
        return scatter_panels(panels, *others, **more)

    monkeypatch.setattr(visualize, "scatter_panels", kept)
    name = "resnet8_byol.imagenette32_60ep"
    look(name, image_files, tmp_path / "out", "--beside", str(tuned), name, "--pdf", "--size", "16")
    assert [panel.title for panel in drawn] == [f"{name} with random weights", name, "tuned", name]
    assert np.array_equal(drawn[1].places, drawn[3].places)
    assert len({panel.places.tobytes() for panel in drawn}) == 3
    assert all(panel.caption.startswith("nearest image of the same class: ") for panel in drawn)
    left = tmp_path / "out" / "figures"
    assert (left / "networks.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(left / "networks.png") as picture:
        assert picture.width > 4 * picture.height
    drawn.clear()
    look(name, image_files, tmp_path / "random", "--random", "--beside", name, "--size", "16")
    assert [panel.title for panel in drawn] == [f"{name} with random weights", name]


def test_a_legend_names_classes_of_any_name() -> None:
    classes = ["_a", "$b$", "c" * 300, "d"]
    panel = Scatter(np.zeros((4, 2)), "A")
    legend = scatter_panels([panel], [0, 1, 2, 3], classes).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        name.replace("$", r"\$") for name in legend_names([0, 1, 2, 3], classes)
    ]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_page_that_was_interrupted_is_drawn_by_the_same_command(
    failing: int, image_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(1, 100))

    def written(path: Path, drawn: Any) -> Path:
        if next(count) == failing:
            raise KeyboardInterrupt
        save_image(drawn, path)
        return path

    words = ["resnet8", "--random", "--data", str(image_files), "--out", str(tmp_path / "page"), "--size", "16"]
    with monkeypatch.context() as patched:
        patched.setattr("ssl_backbones.commands.visualize.written", written)
        assert commands.run("visualize", words, "visualize") == 130
    assert commands.run("visualize", words, "visualize") == 0


def test_one_legend_serves_all_panels() -> None:
    pytest.importorskip("matplotlib")
    places = np.random.default_rng(0).normal(size=(12, 2))
    panels = [Scatter(places, "one $name"), Scatter(-places, "other", "told"), Scatter(places)]
    figure = scatter_panels(panels, np.arange(12) % 3 - 1, ["bag", "h$at"])
    legends = [axes.get_legend() for axes in figure.axes]
    assert legends[:2] == [None, None]
    assert [text.get_text() for text in legends[2].get_texts()] == ["bag", r"h\$at"]
    assert [axes.get_title() for axes in figure.axes] == ["one $name", "other", ""]
    assert figure.axes[1].get_xlabel() == "told"
