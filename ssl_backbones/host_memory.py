"""Large arrays that the processes of a machine hold in the same memory, instead of a copy each.

The first process of each machine makes memory without a name in any folder, which ends with the last process that has
it; the others find it below /proc. One that does not, as in a container of its own, has a copy; so have all where the
system gives no such memory.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import secrets
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from math import prod
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar, final

import numpy as np
import torch

from ssl_backbones.distributed import first_decides, first_here, gather_objects, world_size

T = TypeVar("T")
RAN_OUT = re.compile(
    r"can't allocate memory|not enough memory|DefaultCPUAllocator"
    r"|CUDA error: out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
)
"""Words of torch when memory runs out that have no type of their own: the host's, and a GPU's beside its allocator."""
LEAST = 2**20
"""Bytes of an array from which on it is shared."""
PIECE = 2**26
"""Bytes that are sent from machine to machine at a time."""
Offer = tuple[int, int, str]
"""Memory that a process offers to others of its machine: the process, its descriptor there, and a name that no other
memory has, on any machine."""
Kind = tuple[tuple[int, ...], str]
"""The shape and the type of an array."""


def is_out_of_memory(error: Exception) -> bool:
    """True for an error by which Python or torch tell that the memory of the host, or of a device, has run out."""
    of_torch = isinstance(error, RuntimeError) and bool(RAN_OUT.search(str(error)))
    return of_torch or isinstance(error, MemoryError | torch.OutOfMemoryError)


@final
class SharedMap(mmap.mmap):
    """Memory that other processes have too, with its descriptor; what is written to it stays in this process."""

    descriptor: int


def mapped(descriptor: int) -> SharedMap:
    """The memory of a descriptor, which is closed with it, or at once where it cannot be mapped: OSError."""
    try:
        content = SharedMap(descriptor, 0, access=mmap.ACCESS_COPY)
    except OSError:
        os.close(descriptor)
        raise
    content.descriptor = descriptor
    weakref.finalize(content, os.close, descriptor).atexit = False
    return content


def array_in(content: SharedMap, shape: Sequence[int], kind: str) -> np.ndarray:
    """The array (...) of a shape and a type that shared memory holds."""
    return np.frombuffer(content, kind, prod(shape)).reshape(shape)


def is_shareable(value: object) -> bool:
    """True for an array that is worth sharing, and whose type can be named in a word."""
    return type(value) is np.ndarray and value.nbytes >= LEAST and not value.dtype.hasobject and not value.dtype.names


def descriptor_of(array: np.ndarray) -> int | None:
    """The descriptor of the shared memory that an array (...) is all of; None for any other.

    One that may be written to is another: what this process wrote is in no memory but its own.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    content = base.obj if isinstance(base, memoryview) else base
    if not isinstance(content, SharedMap) or not array.flags.c_contiguous or array.nbytes != len(content):
        return None
    return None if array.flags.writeable else content.descriptor


def new_memory(size: int, name: str) -> int:
    """A descriptor of new memory of so many bytes, zeros, which are there for certain; OSError where they are not."""
    descriptor = os.memfd_create(name)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def taken_up(offer: Offer | None) -> SharedMap | None:
    """The memory that is offered; None where it is another machine's, or out of reach."""
    if offer is None:
        return None
    process, descriptor, name = offer
    path = f"/proc/{process}/fd/{descriptor}"
    with suppress(OSError):
        if os.readlink(path) == f"/memfd:{name} (deleted)":
            return mapped(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return None


@final
class HostArray:
    """An array (N, ...) that is filled once, and then read by all processes: those of a machine have it once.

    All processes make it together, write the same to it, and finish it together.
    """

    def __init__(self, shape: Sequence[int], kind: str = "<f4") -> None:
        """Make an array of a shape and a type; small ones are each process's own."""
        self.row_bytes = prod(shape[1:]) * np.dtype(kind).itemsize
        size = shape[0] * self.row_bytes
        self.together = world_size() > 1 and size >= LEAST
        memory = shared_memory(size) if self.together else None
        self.descriptor = None if memory is None else memory.descriptor
        self.fills = memory is None or first_here()
        self.array = np.empty(shape, kind) if memory is None else array_in(memory, shape, kind)
        filling = gather_objects(self.fills) if self.together else []  # and the first may close what it offered
        self.sent = sum(filling) != 1 or not filling[0]

    def write(self, start: int, rows: np.ndarray) -> None:
        """Fill the rows (n, ...) from `start` on, which nobody has read yet; in one process of each machine."""
        if self.descriptor is None:
            self.array[start : start + len(rows)] = rows
        elif self.fills:
            write_at(self.descriptor, start * self.row_bytes, np.asarray(rows, self.array.dtype))

    def finished(self) -> np.ndarray:
        """The array (N, ...), whose rows have been written; what a process changes of it, the others do not see."""
        if self.together:
            gather_objects(None)
        return self.array

    def taken(self, content: np.ndarray | None) -> np.ndarray:
        """The array (N, ...) filled with what the first process gives, which nobody writes to any more."""
        step = max(1, PIECE // max(1, self.row_bytes))
        for start in range(0, len(self.array), step):
            rows = None if content is None else content[start : start + step]
            if self.sent:
                rows = first_decides(lambda rows=rows: rows)  # type: ignore[misc]
            if rows is not None:
                self.write(start, rows)
        self.array.flags.writeable = False
        return self.finished()


def write_at(descriptor: int, offset: int, array: np.ndarray) -> None:
    """Write an array (...) to a file, from a place in bytes on."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while len(content):  # a system writes 2 GiB at a time
        done = os.pwrite(descriptor, content, offset)
        content, offset = content[done:], offset + done


def shared_memory(size: int) -> SharedMap | None:
    """New memory that the processes of this machine have together; None where this one cannot.

    Until all processes have met again, the first one of a machine must keep it open.
    """
    own: SharedMap | None = None
    offer: Offer | None = None
    if first_here() and hasattr(os, "memfd_create"):
        name = secrets.token_hex(16)
        with suppress(OSError):  # not allowed, or no room for it
            own = mapped(new_memory(size, name))
            offer = os.getpid(), own.descriptor, name
    offers = gather_objects(offer)
    if own is not None:
        return own
    return next((found for found in map(taken_up, offers) if found is not None), None)


def made_once(make: Callable[[], T]) -> T:
    """The object that the first process makes, in all processes; its large arrays are those of the machine.

    All call it together. The first keeps what it made, with all that a pickle leaves out; the others have a copy.
    Nobody writes to the arrays. An error is raised in all.
    """
    if world_size() == 1:
        return make()
    packer = Packer()
    made: list[T] = []

    def packed() -> tuple[bytes, list[Kind]]:
        made.append(make())
        return packer.packed(made[0])

    content, kinds = first_decides(packed)
    shared = []
    for kind in kinds:
        shared.append(HostArray(*kind).taken(packer.next_array()))
        packer.replace_array(shared[-1])
    if made:
        return made[0]
    token = _SHARED.set(shared)
    try:
        copied: T = ForkingPickler.loads(content)
    finally:
        _SHARED.reset(token)
    return copied


_SHARED: ContextVar[Sequence[np.ndarray]] = ContextVar("shared", default=())


def shared_array(number: int) -> np.ndarray:
    """The array (...) that was left out of what is unpacked."""
    return _SHARED.get()[number]


@final
class Packer(ForkingPickler):
    """A pickler, for processes that trust each other, that leaves large arrays out and holds them by their numbers.

    Each can be replaced afterwards in what was packed.
    """

    def __init__(self) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file)
        self.arrays: list[np.ndarray] = []
        self.numbers: dict[int, int] = {}
        self.holders: list[tuple[dict[str, Any], str]] = []
        """The attributes of what was packed that are large arrays."""

    def packed(self, value: object) -> tuple[bytes, list[Kind]]:
        """The pickle of an object, and the kinds of the arrays that it lacks, by their numbers."""
        self.dump(value)
        self.clear_memo()  # which holds every array
        kinds = [(array.shape, array.dtype.str) for array in self.arrays]
        self.arrays.reverse()
        return self.file.getvalue(), kinds

    def next_array(self) -> np.ndarray | None:
        """The array (...) whose turn it is, in the process that packed it."""
        return self.arrays[-1] if self.arrays else None

    def replace_array(self, same: np.ndarray) -> None:
        """Give an array (...) up for the same one in other memory, wherever an attribute of what was packed is it."""
        if self.arrays:
            array = self.arrays.pop()
            for attributes, name in self.holders:
                if attributes.get(name) is array:
                    attributes[name] = same

    def reducer_override(self, value: Any) -> Any:
        if not is_shareable(value):
            attributes = getattr(value, "__dict__", None)
            if isinstance(attributes, dict):  # a class has none that can be written to
                self.holders += [(attributes, name) for name, held in attributes.items() if is_shareable(held)]
            return NotImplemented
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.arrays)
            self.arrays.append(value)
        return shared_array, (self.numbers[id(value)],)
