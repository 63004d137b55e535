"""The versions that a run or an evaluation was computed with."""

from __future__ import annotations

import platform

import accelerate
import timm
import torch

from ssl_backbones.version import __version__


def versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    return {
        "ssl-backbones": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
    }
