"""CONTRIBUTING.md followed to the letter in a copy of the repository: a method, a recipe and a backbone are added."""

from __future__ import annotations

import json
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
IGNORED = [line for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split() if "__pycache__" not in line]


def ignored(folder: str, names: list[str]) -> list[str]:
    """The names in a folder of the repository that git does not commit, and its many images."""
    patterns = [".git", "/training/sample_photos", *IGNORED]
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


SHARED = {
    "tests/test_methods.py": (f"{KIND}Config", 10),
    "tests/test_recipes.py": (RECIPE, 2),
    "tests/test_registry.py": (f"{METHOD} or {BACKBONE}", 20),
    "tests/test_timm_models.py": (f"{BACKBONE} or {METHOD}", 20),
    "tests/test_run_every_method.py": (f"{KIND}Config", 5),
    "tests/test_step_cost.py": (f"{KIND}Config", 3),
    "tests/test_faults_shapes.py": (f"{KIND}Config", 1),
}
"""Files of shared tests, what names those that the additions bring, and how many those are at least."""
FOUND = f"""
import timm
import ssl_backbones
from ssl_backbones import recipes
from ssl_backbones.methods import METHODS, {KIND}, {KIND}Config
from ssl_backbones.registry.backbones import BACKBONES

def test_what_was_added_is_found():
    assert ssl_backbones.__file__ == {{package!r}}
    assert {RECIPE!r} in recipes.names() and {BACKBONE!r} in BACKBONES and METHODS[{METHOD!r}] is {KIND}Config
    assert timm.create_model("{BACKBONE}_{METHOD}").num_features == 2048
    assert "{BACKBONE}_byol" in timm.list_models()
    described = str(ssl_backbones.describe({RECIPE!r}))
    assert "Alignment and uniformity" in described and "arxiv.org/abs/2005.10242" in described
    assert "ssl-backbones pretrain {RECIPE} --data FOLDER" in described
"""
RUN = {
    "tests/test_found.py": [""],
    "tests/test_methods.py": [f"{KIND}Config"],
    "tests/test_recipes.py": [RECIPE],
    "tests/test_imports.py": ["upward", "circle"],
}
"""Files of tests, and the words that name those that are run in the copy."""
RUN_SLOWLY = {
    "tests/test_step_cost.py": [f"{KIND}Config"],
    "tests/test_faults_resume.py": ["every_method_was", "signal_was"],
    "tests/test_benchmarks.py": ["table_of", "told", "of_its_file"],
    "tests/test_house.py": [METHOD, "rule"],
}
CHOOSING = """
import json
from pathlib import Path

def chosen(test):
    return any(word in test for word in {run}.get(test.split("::")[0], []))

def pytest_collection_modifyitems(items):
    Path("collected.json").write_text(json.dumps([item.nodeid for item in items]))
    items[:] = [item for item in items if chosen(item.nodeid)]
"""


def passed_of(copy: Path, run: dict[str, list[str]], *others: str) -> list[str]:
    """The tests that passed in the copy, all that were chosen, in one process that collects those of others too."""
    (copy / "choosing.py").write_text(CHOOSING.format(run=run))
    words = ("-m", "pytest", "-v", "--no-header", "-p", "choosing", "-p", "no:cacheprovider", "--assert=plain")
    said = ran(copy, *words, *dict.fromkeys([*run, *others]))
    return re.findall(r"^(\S+) PASSED", said, re.MULTILINE)


@pytest.fixture(scope="module")
def passed(copy: Path) -> list[str]:
    (copy / "tests" / "test_found.py").write_text(FOUND.format(package=str(copy / "ssl_backbones" / "__init__.py")))
    return passed_of(copy, RUN)


@pytest.fixture(scope="module")
def passed_slowly(copy: Path) -> list[str]:
    return passed_of(copy, RUN_SLOWLY, *SHARED)


@pytest.mark.parametrize("file", RUN)
def test_the_tests_of_a_method_and_a_recipe_pass(file: str, passed: list[str]) -> None:
    assert any(test.startswith(f"{file}::") for test in passed)


@pytest.mark.slow
@pytest.mark.parametrize("file", RUN_SLOWLY)
def test_so_do_the_rules_of_the_house_and_what_takes_long(file: str, passed_slowly: list[str]) -> None:
    assert any(test.startswith(f"{file}::") for test in passed_slowly)


@pytest.mark.slow
@pytest.mark.usefixtures("passed_slowly")
def test_every_shared_test_takes_in_what_was_added(copy: Path) -> None:
    found = json.loads((copy / "collected.json").read_text())
    for file, (words, least) in SHARED.items():
        named = [test for test in found if test.startswith(f"{file}::") and any(w in test for w in words.split(" or "))]
        assert len(named) >= least, file


@pytest.mark.slow
def test_all_tests_of_what_was_added_pass(copy: Path) -> None:
    words = ("-q", "-p", "no:cacheprovider", "-m", "slow or not slow", "-k", f"{KIND} or {METHOD} or {BACKBONE}")
    said = ran(copy, "-m", "pytest", *words, "tests")
    assert re.search(r"[1-9]\d* passed", said), said


def test_what_the_guide_shows_pleases_the_linters(copy: Path) -> None:
    pytest.importorskip("ruff")
    ran(copy, "-m", "ruff", "check", *FILES)
    ran(copy, "-m", "ruff", "format", "--check", *FILES)
