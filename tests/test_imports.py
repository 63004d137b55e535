"""Imports point one way, from the scripts down to the lowest room, and the library is imported with little else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from house_rules import tree
from warm_processes import run_program, without

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ssl_backbones"
SCRIPTS = {path.stem for folder in ("training", "benchmarks") for path in (ROOT / folder).glob("*.py")}

FLOORS = (
    {"checks", "credentials", "devices", "narrator", "products", "shared_disk", "version", "weightless"},
    {"refusal"},
    {"files", "registry"},
    {"cleanup", "convert", "cores", "distributed", "invocation", "locks", "losses", "metrics"}
    | {"optimizers", "outputs", "schedules", "typed", "version", "views"},
    {"ends", "host_memory"},
    {"data", "fetch", "k_means", "shares"},
    {"mining", "models", "runs"},
    {"methods"},
    {"recipes"},
    {"catalogue"},
    {"__init__"},
    {"hub", "visualizers"},
    {"train"},
    {"evaluate"},
    {"commands"},
    {"__main__"},
)
"""The rooms of the package, lowest floor first: a room imports from lower floors. A new room is entered here."""

LATE = {"accelerate", "datasets", "matplotlib", "cv2", "sklearn", "tensorboard"}
"""Not part of a plain installation: imported with the module only in the rooms of WITH_EXTRA, elsewhere where used."""

WITH_EXTRA = {"runs", "train", "evaluate", "commands"}
"""Rooms that need the extra for training; of what `create_model` and the methods import from them, nothing does."""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that the import statements of a tree bring in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs when a module is imported: everything but the inside of functions."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from at_import(child)


def floor_of(room: str) -> int | None:
    """The number of a room's floor; None for what is no room."""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def room_meant(name: str) -> str:
    """The room that a dotted name of the package lies in; `__init__` for what the package itself offers."""
    _, *rest = name.split(".")
    return rest[0] if rest and floor_of(rest[0]) is not None else "__init__"


def wrong_imports(room: str, source: ast.AST) -> list[str]:
    """Imports that a file of a room may not make, a sentence each."""
    own = floor_of(room)
    assert own is not None, f"{room} is new: enter it in FLOORS"
    found = []
    for line, name in imported(source):
        first = name.split(".")[0]
        if not first:
            found.append(f"line {line}: {name} is relative; name it from ssl_backbones on")
        elif first in SCRIPTS | {"training", "benchmarks", "tests"}:
            found.append(f"line {line}: {name} is a script, which imports the package and not the reverse")
        elif first == "ssl_backbones" and room_meant(name) != room:
            there = floor_of(room_meant(name))
            if there is None or there >= own:
                found.append(f"line {line}: {room} may not know {room_meant(name)}")
    for node in at_import(source):
        for line, name in imported(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if name.split(".")[0] in LATE and room not in WITH_EXTRA:
                found.append(f"line {line}: {name} is imported with the module; import it where it is used")
    return found


def room_of(path: Path) -> str:
    """The room of the package that a file lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}


def test_no_import_points_upward() -> None:
    wrong = (
        f"{path.relative_to(ROOT)}, {found}" for path in SOURCES for found in wrong_imports(room_of(path), tree(path))
    )
    assert list(wrong) == []


def graph() -> dict[str, set[str]]:
    """Each module of the package and those that it imports, for a type checker's eyes only included."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        names = [name for _, name in imported(tree(path))]
        meant = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        found[module] = (meant & MODULES.keys()) - {module}
    return found


def test_no_module_imports_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", sorted((ROOT / "training").glob("*.py")), ids=lambda path: path.name)
def test_a_script_is_thin(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 30
    names = {name for _, name in imported(ast.parse(source))}
    assert names == {"sys", "pathlib.Path", "ssl_backbones.commands.run"}


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_imports_no_script(path: Path) -> None:
    names = {name.split(".")[0] for _, name in imported(tree(path))}
    assert not names & {"training", *(script.stem for script in (ROOT / "training").glob("*.py"))}


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("losses", "from ssl_backbones.methods import BYOL", "losses may not know methods"),
        ("registry", "def f():\n    from ssl_backbones.models import heads", "registry may not know models"),
        ("views", "from ssl_backbones import data", "views may not know data"),
        ("models", "import ssl_backbones", "models may not know __init__"),
        ("data", "from ssl_backbones import create_model", "data may not know __init__"),
        ("data", "from .images import Images", "relative"),
        ("train", "from ssl_backbones.evaluate.model import EvaluatedModel", "train may not know evaluate"),
        ("methods", "def f():\n    from pretrain import main", "is a script"),
        ("methods", "import training.pretrain", "is a script"),
        ("data", "import datasets", "with the module"),
        ("data", "try:\n    from datasets import load_dataset\nexcept ImportError:\n    pass", "with the module"),
        ("visualizers", "class A:\n    import matplotlib.pyplot as plt", "with the module"),
    ],
)
def test_a_wrong_import_is_seen(room: str, source: str, complaint: str) -> None:
    assert [complaint in found for found in wrong_imports(room, ast.parse(source))] == [True]


@pytest.mark.parametrize(
    ("room", "source"),
    [
        (
            "data",
            "import numpy\nfrom ssl_backbones.views import engine\nfrom ssl_backbones.data import keys",
        ),
        ("data", "def f():\n    from datasets import load_dataset"),
        ("train", "import accelerate\nimport ssl_backbones"),
        ("__init__", "from ssl_backbones import models as models"),
    ],
)
def test_a_right_import_is_let_through(room: str, source: str) -> None:
    assert wrong_imports(room, ast.parse(source)) == []


def test_models_are_made_where_there_are_no_locks_of_posix_and_a_lock_says_what_is_needed(tmp_path: Path) -> None:
    code = (
        f"{without('fcntl')}"
        "import ssl_backbones\n"
        "ssl_backbones.create_model('resnet8_byol', pretrained=True)\n"
        "from pathlib import Path\n"
        "from ssl_backbones.locks import Lock\n"
        f"try: Lock(Path({str(tmp_path)!r}) / 'lock')\n"
        "except OSError as error: print(error)\n"
    )
    done = run_program(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("this system has no locks of POSIX, which training")


def test_importing_the_library_registers_its_models_and_brings_in_nothing_heavy() -> None:
    """It takes no name from timm, and its modules but for those of the extras leave the heavy libraries alone."""
    light = sorted(
        module
        for module, path in MODULES.items()
        if room_of(path) not in WITH_EXTRA | {"__main__", "hub", "visualizers"}
    )
    code = (
        "import importlib, sys, timm\n"
        "before = set(timm.list_models())\n"
        "import ssl_backbones\n"
        "new = set(ssl_backbones.list_models())\n"
        "assert len(new) >= 36 and not new & before, new & before\n"
        "assert before | new == set(timm.list_models())\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        f"print(sorted({LATE!r} & set(sys.modules)))\n"
    )
    # From another folder, with nothing but what is installed: that is how the library is used.
    words = [sys.executable, "-W", "error:Overwriting", "-c", code]
    done = subprocess.run(words, cwd=PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
