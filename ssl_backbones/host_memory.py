"""Large arrays that the processes of a machine hold in the same memory, instead of a copy each.

The first process of each machine makes memory without a name in any folder, which ends with the last process that has
it; the others find it below /proc. One that does not, as in a container of its own, has a copy.
"""

from __future__ import annotations

import io
import mmap
import os
import secrets
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from math import prod
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar, final

import numpy as np

from ssl_backbones.distributed import first_decides, first_here, gather_objects, world_size

T = TypeVar("T")
LEAST = 2**20
"""Bytes of an array from which on it is shared."""
PIECE = 2**26
"""Bytes that are sent from machine to machine at a time."""
Offer = tuple[int, int, str]
"""Memory that a process offers to others of its machine: the process, its descriptor there, and a name that no other
memory has, on any machine."""


@final
class SharedMap(mmap.mmap):
    """Memory that other processes have too, with its descriptor; what is written to it stays in this process."""

    descriptor: int


def mapped(descriptor: int, kind: str, shape: Sequence[int]) -> np.ndarray:
    """The array (...) of a type and shape in shared memory, which keeps the descriptor as its own."""
    content = SharedMap(descriptor, 0, access=mmap.ACCESS_COPY)
    content.descriptor = descriptor
    weakref.finalize(content, os.close, descriptor).atexit = False
    return np.frombuffer(content, kind, prod(shape)).reshape(shape)


def descriptor_of(array: np.ndarray) -> int | None:
    """The descriptor of the shared memory that an array (...) is all of; None for any other."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    content = base.obj if isinstance(base, memoryview) else base
    if not isinstance(content, SharedMap) or not array.flags.c_contiguous or array.nbytes != len(content):
        return None
    return content.descriptor


def new_memory(size: int) -> tuple[int, str]:
    """A descriptor of new memory of so many bytes, zeros, and its name."""
    name = secrets.token_hex(16)
    descriptor = os.memfd_create(name)
    os.truncate(descriptor, size)
    return descriptor, name


def taken_up(offer: Offer | None) -> int | None:
    """A descriptor of the memory that is offered; None where it is another machine's, or out of reach."""
    if offer is None:
        return None
    process, descriptor, name = offer
    path = f"/proc/{process}/fd/{descriptor}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if os.readlink(path) == f"/memfd:{name} (deleted)" else None
    except OSError:
        return None


@final
class HostArray:
    """An array (N, ...) that is filled once, and then read by all processes: those of a machine have it once.

    All processes make it together, write the same to it, and finish it together.
    """

    def __init__(self, shape: Sequence[int], kind: str = "<f4") -> None:
        """Of a shape and a type; small ones are each process's own."""
        self.row_bytes = prod(shape[1:]) * np.dtype(kind).itemsize
        size = shape[0] * self.row_bytes
        self.together = world_size() > 1 and size >= LEAST
        self.descriptor = shared_descriptor(size) if self.together else None
        self.fills = self.descriptor is None or first_here()
        self.array = np.empty(shape, kind) if self.descriptor is None else mapped(self.descriptor, kind, shape)
        self.sent = self.together and sum(gather_objects(self.fills)) > 1  # and the first may close what it offered

    def write(self, start: int, rows: np.ndarray) -> None:
        """Fill the rows (n, ...) from `start` on, which nobody has read yet; in one process of each machine."""
        if self.descriptor is None:
            self.array[start : start + len(rows)] = rows
        elif self.fills:
            content = np.ascontiguousarray(rows, self.array.dtype).reshape(-1).data.cast("B")
            offset = start * self.row_bytes
            while len(content):  # a system writes 2 GiB at a time
                done = os.pwrite(self.descriptor, content, offset)
                content, offset = content[done:], offset + done

    def finished(self) -> np.ndarray:
        """The array (N, ...), whose rows have been written; what a process changes of it, the others do not see."""
        if self.together:
            gather_objects(None)
        return self.array

    def taken(self, content: np.ndarray | None) -> np.ndarray:
        """The array (N, ...) filled with what the first process gives."""
        step = max(1, PIECE // max(1, self.row_bytes))
        for start in range(0, len(self.array), step):
            rows = None if content is None else content[start : start + step]
            if self.sent or not self.together:
                rows = first_decides(lambda rows=rows: rows)  # type: ignore[misc]
            if rows is not None:
                self.write(start, rows)
        return self.finished()


def shared_descriptor(size: int) -> int | None:
    """The descriptor of new memory that the processes of this machine have together; None where they cannot.

    Until all processes have met again, the first one of a machine must keep it open.
    """
    offer: Offer | None = None
    if first_here() and hasattr(os, "memfd_create"):
        descriptor, name = new_memory(size)
        offer = os.getpid(), descriptor, name
    offers = gather_objects(offer)
    if offer is not None:
        return offer[1]
    return next((found for found in map(taken_up, offers) if found is not None), None)


def made_once(make: Callable[[], T]) -> T:
    """The object that the first process makes, in all processes; its large arrays are those of the machine.

    All call it together. An error is raised in all.
    """
    if world_size() == 1:
        return make()
    arrays: list[np.ndarray] = []

    def packed() -> tuple[bytes, list[tuple[tuple[int, ...], str]]]:
        file = io.BytesIO()
        packer = Packer(file)
        packer.dump(make())
        arrays.extend(packer.arrays)
        return file.getvalue(), [(array.shape, array.dtype.str) for array in arrays]

    content, kinds = first_decides(packed)
    arrays.reverse()  # each is given up as soon as it is shared
    shared = [HostArray(*kind).taken(arrays.pop() if arrays else None) for kind in kinds]
    token = _SHARED.set(shared)
    try:
        made: T = ForkingPickler.loads(content)
    finally:
        _SHARED.reset(token)
    return made


_SHARED: ContextVar[Sequence[np.ndarray]] = ContextVar("shared", default=())


def shared_array(number: int) -> np.ndarray:
    """The array (...) that was left out of what is unpacked."""
    return _SHARED.get()[number]


@final
class Packer(ForkingPickler):
    """A pickler, for processes that trust each other, that leaves large arrays out and holds them by their numbers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.arrays: list[np.ndarray] = []
        self.numbers: dict[int, int] = {}

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray or value.nbytes < LEAST or value.dtype.hasobject:
            return NotImplemented
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.arrays)
            self.arrays.append(value)
        return shared_array, (self.numbers[id(value)],)
