"""CONTRIBUTING.md followed to the letter in a copy of the repository: a method, a recipe and a backbone are added."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from limits import HANG

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
"""The files that the guide shows, by their path."""
(DIFF,) = re.findall(r"^```diff\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
METHOD, RECIPE, BACKBONE = "align_uniform", "resnet8_align_uniform.imagenette96_100ep", "resnet26"
KIND = "AlignUniform"
IGNORED = (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def ignored(folder: str, names: list[str]) -> list[str]:
    """The names in a folder of the repository that git does not commit, and its many images and results."""
    patterns = [".git", "/training/sample_photos", "/benchmarks/results", *IGNORED]
    paths = {name: f"/{(Path(folder) / name).relative_to(ROOT).as_posix()}" for name in names}
    return [
        name
        for name, path in paths.items()
        if any(fnmatch(path if pattern.startswith("/") else name, pattern.rstrip("/")) for pattern in patterns)
    ]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, which need not be a checkout of git, with what the guide shows written into it."""
    folder = tmp_path_factory.mktemp("contributing") / "repository"
    shutil.copytree(ROOT, folder, ignore=ignored)
    for name, content in FILES.items():
        assert not (folder / name).exists(), f"{name} is in the repository: the guide has to show another"
        (folder / name).write_text(content, encoding="utf-8")
    subprocess.run(["git", "apply", "-"], input=DIFF, cwd=folder, check=True, text=True, timeout=HANG)
    return folder


def ran(folder: Path, *words: str) -> str:
    """Run a program of the copy and return its output; it imports the copy's package."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_the_guide_shows_a_method_a_recipe_and_a_backbone() -> None:
    assert set(FILES) == {f"ssl_backbones/{room}/{METHOD}.py" for room in ("methods", "recipes")}
    assert f'+    "{BACKBONE}",' in DIFF
    assert all(re.search(rf"`{room}`|`{room}/`", GUIDE) for room in ("catalogue", "evaluate", "train", "registry"))


def test_the_copy_holds_the_repository(copy: Path) -> None:
    assert (copy / "ssl_backbones" / "runs" / "checkpoint.py").is_file()
    assert not any((copy / name.strip("/")).exists() for name in (".git", ".venv", "/runs/"))


def test_what_was_added_is_found_by_being_there(copy: Path) -> None:
    said = ran(
        copy,
        "-c",
        "import ssl_backbones, timm; from ssl_backbones import recipes, methods, convert\n"
        "from ssl_backbones.methods import AlignUniform, AlignUniformConfig\n"
        "from ssl_backbones.registry.backbones import BACKBONES\n"
        f"print(ssl_backbones.__file__, {RECIPE!r} in recipes.names(), {METHOD!r} in methods.METHODS)\n"
        f"print(timm.create_model('{BACKBONE}_{METHOD}').num_features, '{BACKBONE}_byol' in timm.list_models())\n"
        f"print(ssl_backbones.describe({RECIPE!r}))\n",
    )
    assert said.startswith(f"{copy / 'ssl_backbones' / '__init__.py'} True True\n2048 True\n{RECIPE}\n")
    for fact in (
        "Alignment and uniformity",
        "arxiv.org/abs/2005.10242",
        f"ssl-backbones pretrain {RECIPE} --data FOLDER",
    ):
        assert fact in said


SHARED = {
    "tests/test_methods.py": (f"{KIND}Config", 10),
    "tests/test_recipes.py": (RECIPE, 2),
    "tests/test_registry.py": (f"{METHOD} or {BACKBONE}", 20),
    "tests/test_timm_models.py": (f"{BACKBONE} or {METHOD}", 30),
    "tests/test_run_every_method.py": (f"{KIND}Config", 5),
}
"""Files of shared tests, what names those that the additions bring, and how many those are at least."""


def test_every_shared_test_takes_in_what_was_added(copy: Path) -> None:
    words = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    found = ran(copy, *words, "-k", " or ".join(word for word, _ in SHARED.values()), *SHARED).splitlines()
    counts = {file: sum(line.startswith(f"{file}::") for line in found) for file in SHARED}
    assert all(counts[file] >= least for file, (_, least) in SHARED.items()), counts


def passed(copy: Path, *words: str) -> None:
    """Run tests of the copy, all of which pass."""
    said = ran(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words)
    assert re.search(r"[1-9]\d* passed", said), said


def test_the_shared_tests_of_a_method_and_a_recipe_pass(copy: Path) -> None:
    passed(copy, "-k", f"{KIND}Config or {RECIPE}", "tests/test_methods.py", "tests/test_recipes.py")


@pytest.mark.slow
@pytest.mark.parametrize("file", SHARED)
def test_all_shared_tests_of_what_was_added_pass(copy: Path, file: str) -> None:
    passed(copy, "-m", "slow or not slow", "-k", SHARED[file][0], file)


def test_what_the_guide_shows_keeps_the_rules_of_the_house(copy: Path) -> None:
    passed(copy, "-k", f"{METHOD} or rule", "tests/test_house.py", "tests/test_imports.py")


def test_what_the_guide_shows_pleases_the_linters(copy: Path) -> None:
    pytest.importorskip("ruff")
    ran(copy, "-m", "ruff", "check", *FILES)
    ran(copy, "-m", "ruff", "format", "--check", *FILES)
