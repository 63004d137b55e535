"""The versions that a run or an evaluation was computed with."""

from __future__ import annotations

import platform
from importlib import metadata

import timm
import torch

from ssl_backbones.version import __version__


def versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    return {
        "ssl-backbones": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "accelerate": metadata.version("accelerate"),  # not imported, as results are read without it
        "python": platform.python_version(),
    }
