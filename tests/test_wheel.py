"""The distributions: a wheel with the package and nothing else, that installs small and imports soon."""

from __future__ import annotations

import email
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
from ssl_backbones.registry.tags import TAGS

LARGEST, ALL = 2_000_000, 8_000_000
"""Bytes of weights that ship, of one backbone and together."""


@dataclass(frozen=True)
class Built:
    """The files, and what was in the package when they were made."""

    wheel: Path
    archive: Path
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
    return Built(build("wheel", unpacked, place / "wheel"), archive, held)


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
    assert {name.partition("/")[0] for name in held} == {*listed, "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert built.package.keys() <= held
    assert {"training/pretrain.py", "tests/test_wheel.py"} <= held
    assert not [name for name in held if name.endswith(".pyc") or name.startswith(("runs/", "dist/"))]


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


def index_answers(pip: list[str], folder: Path) -> bool:
    """True if one small distribution can be had."""
    words = [*pip, "download", "--quiet", "--no-deps", "--dest", str(folder), "safetensors"]
    return subprocess.run(words, capture_output=True, timeout=HANG, check=False).returncode == 0


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(built: Built, tmp_path: Path) -> None:
    """Of at most 20 distributions beyond torch's own, imported in less than three seconds."""
    venv.create(tmp_path / "empty", with_pip=True)
    python = str(tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "--no-input"]
    if not index_answers(pip, tmp_path):
        pytest.skip("installs from a package index, and pip reaches none")
    # torch alone may be gigabytes.
    subprocess.run([*pip, "install", "--quiet", str(built.wheel)], check=True, timeout=HANG)
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    run = {"cwd": tmp_path, "env": bare, "capture_output": True, "text": True, "timeout": HANG, "check": False}
    done = subprocess.run([python, str(ROOT / ".ci" / "check_installation.py")], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    shipped = [Path(name).stem for name in built.package if "/_weights/" in name]
    done = subprocess.run([python, "-W", "error", "-c", LOAD.format(shipped=shipped)], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "empty") in done.stdout
    assert done.stdout.split()[-1] == "64"
