"""The GPU of this machine, unless whoever started the process has excluded it."""

from __future__ import annotations

import os

import torch

USE_CPU = "ACCELERATE_USE_CPU"
"""The variable by which Accelerate, and its launcher, exclude the GPU; a yes is any of YES."""
YES = {"1", "true", "yes", "on", "y", "t"}


def gpu_excluded() -> bool:
    """True where the environment says that a run computes on the CPU."""
    return os.environ.get(USE_CPU, "").lower() in YES


def gpu_here() -> bool:
    """True where there is a CUDA device that is not excluded."""
    return torch.cuda.is_available() and not gpu_excluded()
