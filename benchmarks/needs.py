"""Packages that a benchmark on a machine with little wants: importing this ends a program where they are not there."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = ("accelerate", "pyarrow", "tqdm")
"""Packages that training wants, beside those that the package always wants."""


def lacking(packages: dict[str, str]) -> list[str]:
    """Words on each package, by its name and its oldest version, that is absent or older."""
    words = []
    for name, oldest in packages.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            words.append(f"{name} is not installed, and {oldest} or newer is wanted")
            continue
        if numbers(found) < numbers(oldest):
            words.append(f"{name} is {found}, and {oldest} or newer is wanted")
    return words


def numbers(of: str) -> tuple[int, ...]:
    """The numbers of a release, such as (2, 11, 0) of 2.11.0+cu128."""
    return tuple(int(part) for part in re.findall(r"\d+", of.partition("+")[0]))


def wanted() -> dict[str, str]:
    """The packages to have, and the oldest version of each that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    training = [one for one in project["optional-dependencies"]["train"] if one.startswith(BESIDE)]
    return dict(one.split(">=") for one in project["dependencies"] + training)


if missing := lacking(wanted()):
    sys.exit(f"{'; '.join(missing)}: bring wheels of them, and pip install --no-index --no-deps them first")
