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

from ssl_backbones.host_memory import LEAST, descriptor_of, mapped


class Shared:
    """The arrays that are shared with the processes that start now, each with the descriptor of its memory."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[np.ndarray, int]] = {}

    def descriptor(self, array: np.ndarray) -> int:
        """The descriptor of memory that holds the array (...): its own, if other processes have it already."""
        own = descriptor_of(array)
        if own is not None:
            return own
        if id(array) not in self.kept:
            descriptor = os.memfd_create("ssl_backbones")
            with open(descriptor, "wb", closefd=False) as file:
                file.write(np.ascontiguousarray(array).data)
            self.kept[id(array)] = (array, descriptor)
        return self.kept[id(array)][1]

    def close(self) -> None:
        """Give the descriptors back; the processes that have started have their own."""
        for _, descriptor in self.kept.values():
            os.close(descriptor)


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
    if shared is None or get_spawning_popen() is None or array.nbytes < LEAST or array.dtype.hasobject:
        return array.__reduce_ex__(4)
    return received, (DupFd(shared.descriptor(array)), array.dtype.str, array.shape)


def received(descriptor: Any, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array (...) of a type and shape in shared memory; what is written to it stays in this process."""
    return mapped(descriptor.detach(), kind, shape)


ForkingPickler.register(np.ndarray, reduced)
