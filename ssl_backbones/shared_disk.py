"""Files that one machine writes and another reads: a shared file system may take its time to show them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

VISIBLE_WITHIN = 120.0
"""Seconds until what one machine wrote must be seen by another that shares the file system."""


def seen(path: Path) -> bool:
    """True if a path can be seen; its folder is listed first, since NFS remembers absent names for a minute."""
    with suppress(OSError):
        os.listdir(path.parent)
    return path.exists()


def appears(path: Path) -> bool:
    """True once a path can be seen from this machine; False where it is not in time."""
    give_up = time.monotonic() + VISIBLE_WITHIN
    while not seen(path):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True
