"""Imports point one way, and importing the library costs no more than it must."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ssl_backbones"
TRAINING = ROOT / "training"

BELOW = {
    "papers": set(),
    "photos": set(),
    "zoo": set(),
    "tags": {"photos", "zoo"},
    "errors": {"tags"},
    "configs": {"errors"},
    "description": {"papers", "tags"},
    "registry": {"tags", "papers", "errors", "configs", "description"},
    "convert": set(),
    "fetch": {"registry", "convert"},
    "checks": set(),
    "clustering": set(),
    "distributed": set(),
    "schedules": set(),
    "losses": set(),
    "metrics": set(),
    "optimizers": set(),
    "views": set(),
    "visualizers": {"methods"},
    "data": {"views"},
    "mining": {"data", "views", "checks"},
    "models": {"registry", "fetch", "distributed", "checks"},
    "methods": {"models", "losses", "views", "data", "schedules", "distributed", "checks", "clustering", "mining"}
    | {"registry"},
    "hub": {"photos", "registry"},
    "__init__": {"models", "registry"},
    "commands": {"registry", "convert", "fetch", "hub"},
    "__main__": {"registry", "commands", "convert", "hub"},
}
"""Each part of the package, and the other parts it may know. A new part is entered here, or the test fails."""

LATE = {"accelerate", "datasets", "matplotlib", "cv2", "sklearn", "tyro", "tensorboard"}
"""Not part of a plain installation: to be imported, if at all, inside the function that needs them."""

ABOVE = {path.stem for path in TRAINING.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} | {
    "training"
}
"""Modules of the scripts, which import the library and are never imported by it."""


def imported(nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that the import statements among nodes bring in."""
    for node in nodes:
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


def wrong_imports(part: str, source: str) -> list[str]:
    """What a file of a part of the package imports that it may not."""
    tree = ast.parse(source)
    found = []
    for line, name in imported(ast.walk(tree)):
        first, *rest = name.split(".")
        if not first:
            found.append(f"line {line}: {name} is relative; name it from ssl_backbones on")
        elif first in ABOVE:
            found.append(f"line {line}: {name} belongs to training, which imports the library and not the reverse")
        elif first == "ssl_backbones" and (not rest or rest[0] not in BELOW):
            found.append(f"line {line}: {name} brings in the whole package; import from the part that is meant")
        elif first == "ssl_backbones" and rest[0] not in BELOW[part] | {part}:
            found.append(f"line {line}: {part} may not know {rest[0]}")
    for line, name in imported(at_import(tree)):
        if name.split(".")[0] in LATE:
            found.append(f"line {line}: {name} is imported with the module; import it where it is used")
    return found


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_upward(path: Path) -> None:
    assert part_of(path) in BELOW, f"{part_of(path)} is new: say in BELOW which parts it may import"
    assert wrong_imports(part_of(path), path.read_text(encoding="utf-8")) == []


def test_the_order_has_no_cycle() -> None:
    done: set[str] = set()
    while rest := {part for part in BELOW if part not in done}:
        free = {part for part in rest if BELOW[part] <= done}
        assert free, f"{sorted(rest)} import one another in a circle"
        done |= free


@pytest.mark.parametrize(
    ("part", "source", "complaint"),
    [
        ("losses", "from ssl_backbones.methods import BYOL", "losses may not know methods"),
        ("registry", "def f():\n    from ssl_backbones.models import heads", "registry may not know models"),
        ("views", "from ssl_backbones import data", "views may not know data"),
        ("hub", "import ssl_backbones", "the whole package"),
        ("hub", "from ssl_backbones import create_model", "the whole package"),
        ("data", "from .images import Images", "relative"),
        ("methods", "def f():\n    from loop import Loop", "belongs to training"),
        ("methods", "import training.recipe", "belongs to training"),
        ("data", "import datasets", "with the module"),
        ("data", "try:\n    from datasets import load_dataset\nexcept ImportError:\n    pass", "with the module"),
        ("visualizers", "class A:\n    import matplotlib.pyplot as plt", "with the module"),
    ],
)
def test_a_wrong_import_is_seen(part: str, source: str, complaint: str) -> None:
    assert [complaint in found for found in wrong_imports(part, source)] == [True]


@pytest.mark.parametrize(
    ("part", "source"),
    [
        (
            "data",
            "import numpy\nfrom ssl_backbones.views.transform import Transform\nfrom ssl_backbones.data import keys",
        ),
        ("data", "def f():\n    from datasets import load_dataset"),
        ("__init__", "from ssl_backbones import models as models"),
    ],
)
def test_a_right_import_is_let_through(part: str, source: str) -> None:
    assert wrong_imports(part, source) == []


def test_importing_everything_brings_in_nothing_heavy() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))]
    modules = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted({LATE | ABOVE!r} & set(sys.modules)))\n"
    )
    # From another folder, with nothing but what is installed: that is how the library is used.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
