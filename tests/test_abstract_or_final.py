"""A class is subclassed or made, never both: who is made is final, who is subclassed says that it is abstract."""

from __future__ import annotations

import inspect
from abc import ABC
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest

import ssl_backbones

MODULES = [
    found.name for found in walk_packages(ssl_backbones.__path__, "ssl_backbones.") if "__main__" not in found.name
]


def classes() -> list[type[Any]]:
    """Every class that the package defines."""
    found = [value for name in MODULES for value in vars(import_module(name)).values() if inspect.isclass(value)]
    return [kind for kind in dict.fromkeys(found) if kind.__module__ in MODULES]


def test_whatever_is_subclassed_is_abstract() -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("sklearn")
    kinds = [kind for kind in classes() if not issubclass(kind, Exception)]
    parents = {base for kind in kinds for base in kind.__bases__ if base.__module__ in MODULES}
    assert len(parents) > 10
    made = {base.__qualname__ for base in parents if not inspect.isabstract(base) and ABC not in base.__bases__}
    assert not made, f"subclassed, but not declared abstract: {', '.join(sorted(made))}"
