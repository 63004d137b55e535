"""The versions of the code that decides the last bits of a run."""

from __future__ import annotations

from functools import cache
from importlib import metadata

from ssl_backbones.version import __version__

LIBRARIES = ("timm", "numpy", "pillow", "torchvision", "opencv-python", "opencv-python-headless")
"""Libraries beside torch that compute a run, by the names they are installed by."""


@cache
def code_versions() -> dict[str, str | None]:
    """The versions of this package and of LIBRARIES, None for one that is not installed; nothing is imported."""
    return {"ssl-backbones": __version__, **{name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
