"""Print the oldest versions that pyproject.toml allows, as constraints for pip: python .ci/floors.py."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

FLOOR = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?>=([0-9][0-9.]*)")


def floors() -> dict[str, str]:
    """The floor of each dependency, those of the extras included."""
    settings = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    return {found[1]: found[2] for one in wanted if (found := FLOOR.match(one))}


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}.*" for name, version in sorted(floors().items())))
