"""Check that an installation is small and imports soon: ENVIRONMENT/bin/python .ci/check_installation.py.

It asks the environment that runs it, which holds the wheel, its dependencies, and at most pip and setuptools besides.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from importlib import metadata

from packaging.requirements import Requirement

NAME = "ssl-backbones"
AT_MOST = 20
"""Distributions beyond torch and what it brings."""
SECONDS = 3.0
"""CPU seconds for the import once its bytecode is compiled; on a busy machine, which makes processors slow too, `BUSY`
times what the dependencies take there."""
BUSY = 1.25
DEPENDENCIES = "torch, timm, huggingface_hub, safetensors.torch"


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(name: str) -> set[str]:
    """A distribution and all that installing it alone brings."""
    found: set[str] = set()
    waiting = [(normal(name), "")]
    asked: set[tuple[str, str]] = set()
    while waiting:
        distribution, extra = asked_for = waiting.pop()
        if asked_for in asked:
            continue
        asked.add(asked_for)
        found.add(distribution)
        for line in metadata.requires(distribution) or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [(normal(wanted.name), one) for one in ("", *wanted.extras)]
    return found


def seconds(modules: str) -> float:
    """The processor's time of a python that imports modules and ends: the clock's too, where nobody else works."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> int:
    """0 if both are so."""
    here = {normal(distribution.name) for distribution in metadata.distributions()} - {"pip", "setuptools", "wheel"}
    added = brought_by(NAME) - brought_by("torch") - {NAME}
    print(f"{len(added)} distributions beyond torch and its own, of at most {AT_MOST}: {', '.join(sorted(added))}")
    complaints = [f"{len(added)} distributions are more than {AT_MOST}"] if len(added) > AT_MOST else []
    complaints += [f"{name} is here and nothing asks for it" for name in sorted(here - brought_by(NAME))]
    seconds("ssl_backbones")  # compiles the bytecode and warms the disk's cache
    takes = [(seconds("ssl_backbones"), seconds(DEPENDENCIES)) for _ in range(3)]
    whole, theirs = (statistics.median(each) for each in zip(*takes, strict=True))
    print(f"import ssl_backbones takes {whole:.2f} s, its dependencies alone {theirs:.2f} s (medians of 3)")
    if whole > max(SECONDS, BUSY * theirs):
        complaints.append(f"the import takes {whole:.2f} s, more than {SECONDS} s and than {BUSY} x {theirs:.2f} s")
    print("\n".join(complaints) or "the installation is as small and as quick as it should be")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
