"""The engine that makes the pixels of views: a matter of the data path that no method is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Literal, get_args

Engine = Literal["pillow", "opencv", "device"]
_CHOSEN: ContextVar[Engine] = ContextVar("view engine", default="pillow")


@contextmanager
def using_engine(engine: Engine) -> Iterator[None]:
    """Views whose transforms are made in this block without naming an engine are made by this one, for good."""
    token = _CHOSEN.set(engine)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen_engine() -> Engine:
    """The engine of the innermost `using_engine`; outside of any, the reference."""
    return _CHOSEN.get()


def check_engine(engine: str) -> None:
    """Raise ValueError for an engine that nobody knows or that is not installed."""
    if engine not in get_args(Engine):
        raise ValueError(f"engine is {engine!r}, but views are made by 'pillow' or 'opencv' or on the 'device'")
    if engine == "opencv" and not has_opencv():
        raise ValueError(
            "engine is 'opencv', but OpenCV is not installed: pip install 'ssl-backbones[fast]', or take 'pillow'"
        )


def has_opencv() -> bool:
    """True if OpenCV is installed."""
    return find_spec("cv2") is not None
