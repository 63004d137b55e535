"""The distributions: a wheel with the package and nothing else, that installs small and imports soon."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from limits import HANG

import ssl_backbones
from ssl_backbones.data import open_images
from ssl_backbones.registry.tags import TAGS

LARGEST, ALL = 2_000_000, 8_000_000
"""Bytes of weights that ship, of one backbone and together."""


@dataclass(frozen=True)
class Built:
    """The files, and what was in the package when they were made."""

    wheel: Path
    archive: Path
    unpacked: Path
    """The folder that the archive holds."""
    package: dict[str, bytes]


def package() -> dict[str, bytes]:
    """Every file of the package by its path in the repository, less what python leaves behind."""
    found = (path for path in sorted((ROOT / "ssl_backbones").rglob("*")) if path.is_file())
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in found if "__pycache__" not in path.parts}


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a folder by the backend, without the network."""
    words = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The source archive of this repository, and the wheel of what the archive holds."""
    pytest.importorskip("hatchling", reason="builds with hatchling: pip install -e '.[test]'")
    place = tmp_path_factory.mktemp("built")
    held = package()
    archive = build("sdist", ROOT, place / "sdist")
    with tarfile.open(archive) as file:
        file.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    return Built(build("wheel", unpacked, place / "wheel"), archive, unpacked, held)


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as file:
        held = {name: file.read(name) for name in file.namelist()}
    about = f"ssl_backbones-{ssl_backbones.__version__}.dist-info"
    described = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert held.keys() == built.package.keys() | described
    assert [name for name, content in built.package.items() if held[name] != content] == []
    assert {"ssl_backbones/py.typed", "ssl_backbones/visualizers/gallery.css"} <= held.keys()
    assert held[f"{about}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_describes_itself(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        told = email.message_from_bytes(file.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (told["Name"], told["Version"]) == ("ssl-backbones", ssl_backbones.__version__)
    assert (told["License-Expression"], told["Requires-Python"]) == ("Apache-2.0", project["requires-python"])
    assert set(told.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    core = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(core) == len(project["dependencies"])
    assert told.get_payload() == (ROOT / "README.md").read_text()


def test_the_archive_holds_what_makes_and_tests_the_package(built: Built) -> None:
    with tarfile.open(built.archive) as file:
        held = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"][
        "include"
    ]
    assert {name.partition("/")[0] for name in held} == {
        *(name.removeprefix("/") for name in listed),
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }
    assert built.package.keys() <= held
    assert {"training/pretrain.py", "tests/test_wheel.py"} <= held
    assert not [name for name in held if name.endswith(".pyc") or name.startswith(("runs/", "dist/"))]


@pytest.mark.slow
def test_the_tests_of_the_archive_pass_or_say_what_it_lacks(built: Built) -> None:
    """Those that read what is beside the package."""
    files = [f"tests/test_{name}.py" for name in ("house", "shipping", "site")]
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files]
    place = os.environ | {"PYTHONPATH": str(built.unpacked)}
    done = subprocess.run(
        words, cwd=built.unpacked, env=place, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a source archive leaves out" in done.stdout
    assert "empty parameter set" not in done.stdout


def test_the_weights_that_ship_are_small_and_have_names(built: Built) -> None:
    sizes = {
        name: len(content) for name, content in built.package.items() if name.startswith("ssl_backbones/_weights/")
    }
    names = {tag.name for tag in TAGS}
    assert {name for name in sizes if Path(name).suffix != ".safetensors" or Path(name).stem not in names} == set()
    assert max(sizes.values(), default=0) <= LARGEST
    assert sum(sizes.values()) <= ALL
    assert {Path(name).stem for name in sizes} == {tag.name for tag in TAGS if tag.file}


LOAD = """
import ssl_backbones
for name in {shipped}: ssl_backbones.create_model(name, pretrained=True)
print(ssl_backbones.__file__, ssl_backbones.create_model("resnet8_lewel_b").num_features)
"""
HELD = "from importlib import metadata; print(*(found.name.lower() for found in metadata.distributions()))"


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the wheel and what it asks for, and an empty folder to work in."""

    scripts: Path
    work: Path

    def run(self, program: str, *words: object) -> str:
        """The output of a program of the environment, which knows nothing of this one; it has to succeed."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        path = os.pathsep.join([str(self.scripts), os.environ.get("PATH", "")])
        told = {"VIRTUAL_ENV": str(self.scripts.parent), "PATH": path}
        done = subprocess.run(
            [str(self.scripts / program), *map(str, words)],
            cwd=self.work,
            env=bare | told,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def install(wheel: Path, place: Path, extra: str = "") -> Installed:
    """The wheel in an environment that was empty; skips the test where pip reaches no package index."""
    venv.create(place / "empty", with_pip=True)
    installed = Installed(place / "empty" / ("Scripts" if os.name == "nt" else "bin"), place / "work")
    installed.work.mkdir()
    pip = [str(installed.scripts / "python"), "-m", "pip", "--no-input"]
    words = [*pip, "download", "--quiet", "--no-deps", "--dest", str(place / "index"), "safetensors"]
    if subprocess.run(words, capture_output=True, timeout=HANG, check=False).returncode:
        pytest.skip("installs from a package index, and pip reaches none")
    subprocess.run([*pip, "install", "--quiet", f"{wheel}{extra}"], check=True)  # torch alone may be gigabytes
    return installed


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(built: Built, tmp_path: Path) -> None:
    """It brings at most 20 distributions beyond torch's own, and is imported in less than three seconds."""
    installed = install(built.wheel, tmp_path)
    print(installed.run("python", ROOT / ".ci" / "check_installation.py"))
    shipped = [Path(name).stem for name in built.package if "/_weights/" in name]
    said = installed.run("python", "-W", "error", "-c", LOAD.format(shipped=shipped))
    assert str(tmp_path / "empty") in said
    assert said.split()[-1] == "64"


def image_folder(place: Path, source: str, count: int) -> Path:
    """A folder of images that ship with the repository, those of a class in a folder of its name."""
    images = open_images(ROOT / "training" / "sample_photos" / source)
    assert images.labels is not None
    for row in range(count):
        below = place / str(images.classes[int(images.labels[row])])
        below.mkdir(parents=True, exist_ok=True)
        images[row].save(below / f"{row}.png")
    return place


FEW = ("--size", 32, "--batch_size", 16, "--max_steps", 3, "--workers", 0, "--precision", "fp32")
STARTED = {
    "ssl-backbones": ("ssl-backbones",),
    "python": ("python", "-m", "ssl_backbones"),
    "accelerate": ("accelerate", "launch", "--cpu", "-m", "ssl_backbones"),
}


@pytest.mark.slow
def test_a_wheel_pretrains_evaluates_and_makes_the_page(built: Built, tmp_path: Path) -> None:
    """All that the extra [train] promises, outside of any checkout, on folders of images."""
    installed = install(built.wheel, tmp_path, "[train]")
    held = set(installed.run("python", "-c", HELD).split())
    assert {"ssl-backbones", "accelerate", "datasets"} <= held
    assert not {"matplotlib", "scikit-learn", "scipy", "pytest"} & held  # timm brings torchvision
    images, others = (image_folder(tmp_path / name, f"{name}.parquet", 64) for name in ("train", "validation"))
    results = {}
    for name, words in STARTED.items():
        out = tmp_path / name
        installed.run(*words, "pretrain", "resnet8_byol.imagenette96_100ep", "--data", images, "--out", out, *FEW)
        results[name] = (out / "backbone" / "model.safetensors").read_bytes()
        asked = ("knn", out, "--data", images, "--validation", others, "--out", out / "knn", "--size", 32)
        installed.run(*words, "evaluate", *asked, "--workers", 0)
        numbers = json.loads((out / "knn" / "results.json").read_text())["numbers"]
        assert all(0 <= number["low"] <= number["value"] <= number["high"] <= 1 for number in numbers.values())
    assert len(set(results.values())) == 1
    run = tmp_path / "python"
    said = installed.run("ssl-backbones", "visualize", run, "--data", others, "--out", tmp_path / "page")
    assert f"Open {tmp_path / 'page' / 'index.html'}" in said
    assert "data:image/" in (tmp_path / "page" / "index.html").read_text()
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} >= {"features.png", "neighbours.png"}
