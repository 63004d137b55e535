"""Large arrays of a data set, such as keys and labels, that reading processes share instead of getting a copy each.

A forked process has them anyway. One that is spawned, or forked from a server, gets all that it needs as a pickle, in
which an array is a descriptor of shared memory, made once for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import numpy as np

from ssl_backbones.host_memory import array_in, descriptor_of, is_shareable, mapped, new_memory, write_at


class Shared:
    """The arrays that are shared with the processes that start now, each with the descriptor of its memory."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[np.ndarray, int | None]] = {}

    def descriptor(self, array: np.ndarray) -> int | None:
        """The descriptor of memory that holds the array (...): its own, if other processes have it already.

        None where the system gives no such memory.
        """
        own = descriptor_of(array)
        if own is not None:
            return own
        if id(array) not in self.kept:
            self.kept[id(array)] = (array, copy_of(array))
        return self.kept[id(array)][1]

    def close(self) -> None:
        """Give the descriptors back; the processes that have started have their own."""
        for _, descriptor in self.kept.values():
            if descriptor is not None:
                os.close(descriptor)


def copy_of(array: np.ndarray) -> int | None:
    """The descriptor of new memory that holds the same as an array (...); None where the system gives none."""
    try:
        descriptor = new_memory(array.nbytes, "ssl_backbones")
    except OSError:
        return None
    write_at(descriptor, 0, array)
    return descriptor


SHARED: ContextVar[Shared | None] = ContextVar("shared", default=None)


@contextmanager
def arrays_shared() -> Iterator[None]:
    """Context manager: processes that are started meanwhile share large arrays, where the system knows such memory."""
    shared = Shared()
    token = SHARED.set(shared if hasattr(os, "memfd_create") else None)
    try:
        yield
    finally:
        SHARED.reset(token)
        shared.close()


def reduced(array: np.ndarray) -> Any:
    """The parts of the pickle of an array (...): a descriptor while processes start that share it, else its content."""
    shared = SHARED.get()
    if shared is None or get_spawning_popen() is None or not is_shareable(array):
        return array.__reduce_ex__(4)
    descriptor = shared.descriptor(array)
    if descriptor is None:
        return array.__reduce_ex__(4)
    return received, (DupFd(descriptor), array.dtype.str, array.shape)


def received(descriptor: Any, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array (...) of a type and shape in shared memory, which nobody writes to."""
    array = array_in(mapped(descriptor.detach()), shape, kind)
    array.flags.writeable = False
    return array


ForkingPickler.register(np.ndarray, reduced)
