"""Memory and CPU time of starts on many images: python benchmarks/starts.py [--images 10000000]

A folder is opened as a run opens it, with names, sizes, marks and digests of its images, for the first time and once
more with the index that the first time left; then images are listed alone, all of them in one folder. The names, what
the file system says of each, and digests are made up by number, so that nothing is read: what is measured is this
package's own work. Each start has a process of its own, whose memory is counted above that of what it imported.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from timing import circumstances, command, on_threads, write

from ssl_backbones.data import digest_index, open_images, walk
from ssl_backbones.data.digests import WIDTH

PACKAGES = ("numpy",)
CLASSES = 1_000
WRITTEN = 1_700_000_000 * 10**9
"""The time in ns that files say they were written at."""


class Entry:
    """A file of a number, as os.scandir has files."""

    __slots__ = ("name",)

    def __init__(self, number: int) -> None:
        self.name = f"n01440764_{number:018}.jpeg"

    def is_dir(self) -> bool:
        """False."""
        return False

    def is_file(self) -> bool:
        """True."""
        return True


def number_in(path: str) -> int:
    """The number of a file by its path."""
    return int(path[-23:-5])


def stamp_of(path: str) -> tuple[int, int, int, int]:
    """Size, times and inode of a file, made up."""
    number = number_in(path)
    return 30_000 + number % 90_000, WRITTEN + number, WRITTEN + number, number


def digest_of(path: str, whole: bool = False) -> bytes:
    """The digest of a file, made up."""
    return number_in(path).to_bytes(WIDTH, "little")


@contextmanager
def simulated(root: Path, images: int) -> Iterator[None]:
    """Context manager: the folders at a root hold so many images together, in equal parts, or the root itself."""
    folders = sorted(path for path in root.iterdir() if path.is_dir()) or [root]
    first = {str(path): row * images // len(folders) for row, path in enumerate([*folders, None])}
    ends = dict(zip(map(str, folders), list(first.values())[1:], strict=True))
    scandir = os.scandir

    def listed(folder: Path) -> Any:
        inside = str(folder) in ends
        return nullcontext(map(Entry, range(first[str(folder)], ends[str(folder)]))) if inside else scandir(folder)

    with (
        patch.object(os, "scandir", listed),
        patch.object(walk, "stamp_of", stamp_of),
        patch.object(digest_index, "digest_of_file", digest_of),
    ):
        yield


def opening(root: Path) -> None:
    """Open a folder, and know each of its images."""
    assert open_images(root).fingerprint


def listing(root: Path) -> None:
    """List the images of a folder."""
    assert len(walk.listing_of(root, Counter()).keys)


def cost(work: Callable[[Path], None], root: Path, cache: str, images: int) -> dict[str, float]:
    """MB at the peak above what was there before, and CPU seconds."""
    os.environ["SSL_BACKBONES_CACHE"] = cache
    with simulated(root, images):
        before, began = memory("VmRSS"), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        work(root)
    return {
        "mb": round((memory("VmHWM") - before) / 1e3),
        "bytes_per_image": round(1e3 * (memory("VmHWM") - before) / images, 1),
        "cpu_s": round(time.process_time() - began, 1),
    }


def memory(of: str) -> int:
    """KB of this process's memory: those it has, VmRSS, or had at most, VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of))


def measure(images: int) -> dict[str, dict[str, float]]:
    """The cost of each start."""
    with tempfile.TemporaryDirectory() as place:
        classes, flat, cache = Path(place, "classes"), Path(place, "flat"), str(Path(place, "cache"))
        flat.mkdir()
        for number in range(CLASSES):
            (classes / f"n{number:08}").mkdir(parents=True)
        cases = {
            "first start": (opening, classes),
            "second start": (opening, classes),
            "listing of one folder": (listing, flat),
        }
        found = {}
        for name, (work, root) in cases.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                found[name] = alone.submit(cost, work, root, cache, images).result()
            print(f"{name}, {images} images: {found[name]}", flush=True)
        return found


def main() -> None:
    """Measure, and write the results down."""
    parser = command(__file__, __doc__, rounds=1)
    parser.add_argument("--images", type=int, nargs="+", default=[1_280_000, 10_000_000])
    options = parser.parse_args()
    on_threads(1)
    found = {str(images): measure(images) for images in options.images}
    results = circumstances(PACKAGES) | {"rounds": options.rounds, "classes": CLASSES, "measured": found}
    write(results, options.out)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
