"""The versions of the code that decides the numbers of an evaluation and the last bits of a run."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

import torch

from ssl_backbones.version import __version__

LIBRARIES = ("timm", "numpy", "pillow", "torchvision", "opencv-python", "opencv-python-headless")
"""Libraries beside torch that compute a run, by the names they are installed by."""


def versions() -> dict[str, str | None]:
    """The versions that numbers depend on; nothing is imported for it, as results are read without extras."""
    return {
        "ssl-backbones": __version__,
        "torch": torch.__version__,
        "timm": version_of("timm"),
        "accelerate": version_of("accelerate"),
        "python": platform.python_version(),
    }


def code_versions() -> dict[str, str | None]:
    """The versions of this package and of LIBRARIES, None for one that is not installed."""
    return {"ssl-backbones": __version__, **{name: version_of(name) for name in LIBRARIES}}


@cache
def version_of(library: str) -> str | None:
    """The version of an installed library, by the name it is installed by; None where it is not."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
