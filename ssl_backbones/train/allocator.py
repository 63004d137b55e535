"""The C library's allocator, which keeps for the next step what one step frees."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of mallopt's settings, as malloc.h of glibc numbers them."""
LARGEST_ON_HEAP = 32 * 2**20
"""Bytes of the largest block that is taken from the heap: the most that glibc takes for this setting."""
KEPT = 2**31 - 1
"""Bytes at the heap's end that are kept when they are free: the most that the setting holds."""


def keep_freed_memory() -> None:
    """Keep what is freed, on glibc, instead of giving it back to a system that would clear it anew for every step.

    Whoever sets MALLOC_... or GLIBC_TUNABLES in the environment keeps their own settings.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ) or not sys.platform.startswith(
        "linux"
    ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(MMAP_THRESHOLD, LARGEST_ON_HEAP)
    mallopt(TRIM_THRESHOLD, KEPT)
