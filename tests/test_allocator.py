"""Memory that a step frees is there for the next one, without a fault a page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from conftest import ROOT

COUNT = """
import resource, runpy, sys
import numpy as np

module = runpy.run_path(sys.argv[1])
if sys.argv[2] == "kept":
    module["keep_freed_memory"]()
def step():
    return [np.ones(2**20) for _ in range(3)]  # 24 MiB in blocks of 8
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: str, **variables: str) -> int:
    """Page faults of twenty steps, in a process of its own."""
    path = ROOT / "ssl_backbones" / "train" / "allocator.py"
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(path), kept], capture_output=True, text=True, check=True, env=variables
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept_unless_the_environment_rules() -> None:
    given_back = faults("as it is", MALLOC_MMAP_THRESHOLD_="131072")
    assert faults("kept") < given_back / 4
    assert faults("kept", MALLOC_MMAP_THRESHOLD_="131072") > given_back / 2
