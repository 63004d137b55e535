"""The threads that compute on a CPU: one for each core of this process, asleep while they wait.

`accelerate launch` leaves one thread to every process, however many cores there are; and OpenMP's threads by default
spin while they wait, which costs several times the computation where readers or neighbours want the cores.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

VARIABLE = "SSL_BACKBONES_THREADS"
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The share of the CPUs that a container may use: microseconds, or "max", of a period."""


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, if this process is a program of ours that has not imported torch yet.

    OpenMP reads its policy once, when torch is imported. Whoever imports the package as a library keeps their own.
    """
    if "torch" not in sys.modules and is_a_program_of_ours():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def threads_spin() -> bool:
    """True if several threads of this process spin while they wait: nobody said otherwise before torch was imported."""
    return threads_here() > 1 and "OMP_WAIT_POLICY" not in os.environ


def is_a_program_of_ours() -> bool:
    """True for `ssl-backbones`, `python -m ssl_backbones` and the scripts in training/."""
    program = Path(sys.argv[0] if sys.argv else "")
    as_module = sys.argv[:1] == ["-m"] and "ssl_backbones" in sys.orig_argv
    return as_module or program.stem == "ssl-backbones" or program.absolute().parent == scripts()


def scripts() -> Path:
    """The folder of the scripts beside the package, in a checkout."""
    return Path(__file__).resolve().parents[1] / "training"


def threads_here() -> int:
    """The threads for this process: its share of the cores it may use, or what SSL_BACKBONES_THREADS says."""
    if given := os.environ.get(VARIABLE, ""):
        return max(1, int(given)) if given.isdecimal() else 1
    return cores_here()


def cores_here() -> int:
    """The cores for this process: its share of those that the machine, or the container, leaves to its processes."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = QUOTA.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return max(1, int(cores) // processes_here())


def processes_here() -> int:
    """The processes that a launcher says it has started on this machine; 1 where none says so."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(said) if said.isdecimal() and int(said) else 1


wait_passively()
