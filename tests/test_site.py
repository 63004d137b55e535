"""The README and the pages of the site: their commands can be started, their snippets run, and help() tells fields."""

from __future__ import annotations

import os
import pydoc
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
import timm
import yaml
from conftest import ROOT, in_repository
from runs import image_folder, run, tiny
from scripts import script

from ssl_backbones import commands
from ssl_backbones.data.kept_arrays import VARIABLE, place_of
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import METHODS, LewelBConfig
from ssl_backbones.recipes import Recipe

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTED = re.compile(
    r"(?:^|-m |^docker run .* )(?:ssl-backbones|ssl_backbones|python training/|accelerate launch training/)"
    r"\s*([\w-]+)(?:\.py)?"
)


def fenced(path: Path, *languages: str) -> list[str]:
    """The blocks of a page in some languages."""
    return [text for language, text in FENCED.findall(path.read_text(encoding="utf-8")) if language in languages]


COMMANDS = sorted(
    {
        line.partition("  #")[0].rstrip(" &'")
        for path in PAGES
        for block in fenced(path, "", "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if STARTED.search(line)
    }
)
OTHERS = ("lightning", "segmentation_models_pytorch", "transformers")
"""Packages of snippets that are not always installed."""
SNIPPETS = [
    pytest.param(text, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, text in enumerate(fenced(path, "python"))
]


def test_there_are_commands_and_snippets() -> None:
    assert len(COMMANDS) > 30
    assert len(SNIPPETS) > 8


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_a_page_can_be_started(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = STARTED.search(line)
    assert found is not None
    command = found[1].replace("_", "-")
    words = shlex.split(line[found.end() :].replace("RECIPE RECIPE", "sample resnet8_byol.imagenette32_22ep"))
    module = import_module(f"ssl_backbones.commands.{commands.modules()[command]}")
    if {"--help", "--list"} & {*words}:
        with pytest.raises(SystemExit, match=r"^0$"):
            commands.options_of(module, words, command)
        assert capsys.readouterr().out
    else:
        assert is_dataclass(commands.options_of(module, words, command))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, and a run as the first command leaves it but for its size."""
    folder = tmp_path_factory.mktemp("site")
    run(tiny(LewelBConfig, image_folder(folder / "photos"), folder / "runs" / "sample"))
    words = [str(folder / "runs" / "sample"), "--data", str(folder / "photos"), "--workers", "0"]
    script("embed", [*words, "--out", str(folder / "features.parquet")])
    save_backbone(timm.create_model("resnet18", num_classes=0), folder / "runs" / "mine" / "backbone", "resnet18")
    return folder


@pytest.mark.parametrize("text", SNIPPETS)
def test_a_snippet_of_a_page_runs(
    text: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in re.findall(
        r"^(?:import|from) (lightning|segmentation_models_pytorch|transformers)", text, re.MULTILINE
    ):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'ssl-backbones[docs,ecosystem]'")
    for name in ("photos", "runs"):
        shutil.copytree(sample / name, tmp_path / name)
    shutil.copy(sample / "features.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "snippet", "exec"), {"__name__": "snippet"})


def test_what_a_container_keeps_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (cache,) = re.findall(r"^ENV .*XDG_CACHE_HOME=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    (kept,) = re.findall(r'--volume "\$PWD:(\S+)"', (ROOT / "docs" / "start.md").read_text(encoding="utf-8"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    place = place_of("images")
    assert place is not None
    assert place.is_relative_to(kept)


REPOSITORY = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]


@in_repository
@pytest.mark.parametrize("page", [*REPOSITORY, *(f"docs/{path.name}" for path in PAGES[1:] if path.stem != "index")])
def test_what_a_page_of_the_repository_links_to_is_there(page: str) -> None:
    """Pages that the site generates are not in the repository: they are named by their address."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


OURS = re.compile(r"https://(?:raw\.githubusercontent\.com/us/it|github\.com/us/it/blob)/v1/([^#]*).*")


@in_repository
@pytest.mark.skipif(sys.platform == "darwin", reason="the program is one for GNU's sed")
def test_the_readme_of_a_release_names_files_that_are_there(tmp_path: Path) -> None:
    """As PyPI shows it."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))["jobs"]
    (program,) = (step["run"] for step in jobs["build"]["steps"] if "README.md" in step.get("run", ""))
    shutil.copy(ROOT / "README.md", tmp_path)
    place = os.environ | {"GITHUB_REPOSITORY": "us/it", "GITHUB_REF_NAME": "v1"}
    subprocess.run(["bash", "-euc", program], cwd=tmp_path, env=place, check=True)
    links = re.findall(r"\]\(([^)]*)\)", (tmp_path / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    ours = [found[1] for found in map(OURS.fullmatch, links) if found]
    assert len(ours) > 10
    assert [path for path in ours if not (ROOT / path).exists()] == []


LINKED_BY_OTHERS = ("index", "data", "publish", "own_rules", "options", "channels")
"""Pages that the README may leave to other pages."""


def test_the_readme_is_one_screen_that_points_to_the_site() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 120
    for path in PAGES[1:]:
        assert path.stem in LINKED_BY_OTHERS or f"docs/{path.name}" in text


@pytest.mark.parametrize("kind", [*METHODS.values(), Recipe], ids=lambda kind: kind.__name__)
def test_help_tells_every_field(kind: type) -> None:
    told = pydoc.render_doc(kind, renderer=pydoc.plaintext)
    for field in fields(kind):
        assert re.search(rf"^ \|  - {field.name}: ", told, re.MULTILINE), field.name
