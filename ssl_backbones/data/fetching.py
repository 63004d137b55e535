"""Files at addresses read by way of blocks on a disk: fetched once for all processes of a machine, ahead of need."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, final

from ssl_backbones.data.addresses import Address, fetched, whole_file
from ssl_backbones.data.blocks import BLOCK, Blocks
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.distributed import say

THREADS = 4
"""Threads of a process that read ahead."""
AHEAD = 4
"""Blocks that are read ahead in a file of which nobody said what comes next."""

Extent = tuple[int, int, int]
"""The number of a file, and its bytes from one place up to another."""


@final
class Fetching:
    """The bytes of files. Pickles without what it holds: a process fetches what others have not, and reads ahead."""

    def __init__(self, files: Sequence[Address], window: float = 0) -> None:
        """`window` is about how many bytes are read at random before others come: twice as many should find room."""
        self.files = tuple(files)
        self.sources = tuple(source_of(file) for file in files)
        self.keeping = self.files[0].keeping
        self.begin_anew()
        self.opened()
        used, room = min(2 * window, sum(file.size for file in files)), self.keeping.limit * 1e9
        if used > room:
            say(
                f"warning: {used / 1e9:.1f} GB of images are in use at a time, and blocks may take {room / 1e9:g} GB "
                "(--blocks.limit): some are fetched again and again; allow more"
            )

    def begin_anew(self) -> None:
        """Hold nothing, and know nothing of what comes next."""
        self.blocks: Blocks | None = None
        self.plan: deque[tuple[int, int]] = deque()
        self.extents: Sequence[Extent] | None = None
        """The bytes that are read next; None where nobody said."""
        self.lately: deque[tuple[int, int]] = deque(maxlen=64)
        self.lock, self.running, self.process = threading.Lock(), 0, 0
        """State of the threads that read ahead: a lock, their number, and the process that started them."""

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "sources": self.sources, "keeping": self.keeping}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.begin_anew()

    def read(self, file: int, start: int, count: int) -> bytes:
        """Bytes of a file from `start` on, as many as are asked for or as there are. Raises ImageSourceError."""
        end = min(start + count, self.files[file].size)
        if start >= end:
            return b""
        numbers = range(start // BLOCK, (end - 1) // BLOCK + 1)
        if self.extents is None:
            self.expect_more(file, numbers[-1])
        parts = [
            self.part(file, number, max(start - number * BLOCK, 0), min(end - number * BLOCK, BLOCK))
            for number in numbers
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def part(self, file: int, number: int, start: int, end: int) -> bytes:
        """The bytes of a block from `start` up to `end`."""
        blocks, name, size = self.opened(), self.name(file, number), self.size(file, number)
        found = blocks.read(name, size, start, end - start)
        if found is None:
            with blocks.claim(self.claimed(file, name), wait=True):
                found = blocks.read(name, size, start, end - start)
                if found is None:
                    found = self.fetch(file, number)[start:end]
        return found

    def fetch(self, file: int, number: int) -> bytes:
        """A block from its address, kept; all of a file's where its server sends no part."""
        blocks, address = self.opened(), self.files[file]
        if not address.by_range:
            found = b""
            for at, content in enumerate(whole_file(address, BLOCK, blocks.folder)):
                blocks.keep(self.name(file, at), content)
                found = content if at == number else found
            return found
        content = fetched(address, number * BLOCK, self.size(file, number))
        blocks.keep(self.name(file, number), content)
        return content

    def opened(self) -> Blocks:
        """The folder of blocks, as this process and those that it forks use it; nobody clears it meanwhile."""
        if self.blocks is None:
            self.blocks = Blocks(self.keeping, frozenset(self.sources))
        return self.blocks

    def name(self, file: int, number: int) -> str:
        """The name of a block."""
        return f"{self.sources[file]}-{number:06d}"

    def claimed(self, file: int, block: str) -> str:
        """The name of what one thread fetches alone: a block, or all of a file whose server sends no part."""
        return block if self.files[file].by_range else self.sources[file]

    def size(self, file: int, number: int) -> int:
        """The bytes of a block."""
        return min(BLOCK, self.files[file].size - number * BLOCK)

    def soon(self, extents: Sequence[Extent]) -> None:
        """Be told what is read next, in this order; it is fetched in sequence from now on, as far as there is room."""
        if extents != self.extents:
            self.extents = extents
            self.opened().wanted = frozenset(self.sources[file] for file, _, _ in extents)
            self.begin(deque(self.within_limit(extents)))

    def within_limit(self, extents: Sequence[Extent]) -> Iterator[tuple[int, int]]:
        """The blocks of what is read next, up to the limit of bytes that may be kept."""
        room = int(0.9 * self.keeping.limit * 1e9) // BLOCK
        for file, start, end in extents:
            for number in range(start // BLOCK, -(-end // BLOCK)):
                if room <= 0:
                    return
                room -= 1
                yield file, number

    def expect_more(self, file: int, number: int) -> None:
        """Read a few blocks ahead of one that is asked for the first time lately."""
        if (file, number) in self.lately:
            return
        self.lately.append((file, number))
        last = -(-self.files[file].size // BLOCK)
        self.begin(deque((file, at) for at in range(number + 1, min(number + 1 + AHEAD, last))))

    def begin(self, plan: deque[tuple[int, int]]) -> None:
        """Read ahead by a new plan, in threads of this process."""
        if self.process != os.getpid():  # threads do not survive a fork, and a lock may have been taken
            self.process, self.lock, self.running = os.getpid(), threading.Lock(), 0
        with self.lock:
            self.plan = plan
            missing = THREADS - self.running
            self.running += missing
        for _ in range(missing):
            threading.Thread(target=self.read_ahead, name="ahead", daemon=True).start()

    def read_ahead(self) -> None:
        """Fetch the blocks of the plan that nobody has fetched or is fetching, to the end of the plan."""
        while True:
            with self.lock:
                plan = self.plan
                if not plan:
                    self.running -= 1
                    return
                file, number = plan.popleft()
            try:
                self.fetch_unless_there(file, number)
            except (ImageSourceError, OSError):  # whoever needs it meets the same, and tells
                with self.lock:
                    plan.clear()
            except BaseException:
                with self.lock:
                    self.running -= 1
                raise

    def fetch_unless_there(self, file: int, number: int) -> None:
        """Fetch a block that is not there, unless another thread or process does."""
        blocks, name = self.opened(), self.name(file, number)
        if not blocks.has(name):
            with blocks.claim(self.claimed(file, name), wait=False) as own:
                if own and not blocks.has(name):
                    self.fetch(file, number)


def source_of(file: Address) -> str:
    """The beginning of the names of a file's blocks; another where it changed, or where nobody could tell."""
    version = f"{file.version}" if file.version else secrets.token_hex(16)
    return hashlib.sha256(f"{file.known_as} {file.size} {version}".encode()).hexdigest()[:24]
