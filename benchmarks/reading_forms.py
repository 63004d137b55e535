"""Measure reading by the form of the data, as an epoch asks for it: python benchmarks/reading_forms.py [--data ...]

The same images are laid down as a folder, as parquet and as tar shards, and an epoch of each is read and decoded in one
thread, in turn, after all has been read once: CPU time counts. The shards are then read from a web server on this
machine that takes 20 ms for every answer: image by image in requests of their own, and as a run reads them, through
blocks that are fetched ahead: the time of a watch counts, of an epoch that begins with nothing fetched, start-up of
the index aside. The figures go to benchmarks/results/reading_forms.json.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import SAMPLE, circumstances, command, in_turn, on_threads, quartiles, say_verdicts, verdict, write

from ssl_backbones.data import Images, open_images, source
from ssl_backbones.data.addresses import Address, fetched
from ssl_backbones.data.blocks import Keeping
from ssl_backbones.data.order import Order
from ssl_backbones.data.subset import Subset
from ssl_backbones.data.tar import TarImages

PACKAGES = ("pillow", "numpy", "pyarrow", "fsspec", "aiohttp", "ssl-backbones")
SERVER = Path(__file__).parents[1] / "tests" / "shard_server.py"
SHARD, BATCH = 256, 128
"""Images of a shard, and of a batch."""
LATENCY = 0.02
ALONE = 100
"""Images that are asked for one by one."""
DISK, WEB = 0.9, 5.0
"""The least speed of tar on a disk beside the folder, and of a run's reading beside requests of single images."""


def lay_down(images: Images, folder: Path) -> None:
    """The images as a folder, as parquet, and as tar shards."""
    encoded = [images.raw(row) or b"" for row in range(len(images))]
    names = [f"{row:06d}.jpg" for row in range(len(images))]
    for part in ("folder", "shards"):
        (folder / part).mkdir()
    for name, content in zip(names, encoded, strict=True):
        (folder / "folder" / name).write_bytes(content)
    pq.write_table(pa.table({"image": pa.array(encoded, pa.binary())}), folder / "table.parquet", row_group_size=SHARD)
    for start in range(0, len(images), SHARD):
        with tarfile.open(folder / "shards" / f"{start // SHARD:04d}.tar", "w") as shard:
            for name, content in zip(names[start : start + SHARD], encoded[start : start + SHARD], strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def epoch_of(images: Images) -> Callable[[], None]:
    """A function that reads and decodes all images in the order of an epoch, another each time."""
    order, epochs = Order(len(images), BATCH, 0, shards=images.shards), iter(range(10**6))

    def read() -> None:
        for request in order.requests(next(epochs)):
            if request.soon is not None:
                images.soon(request.soon)
            for row in request.indices.tolist():
                images[row]

    return read


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server, in a process of its own, that answers late."""
    words = [sys.executable, str(SERVER), str(folder), str(LATENCY)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def on_disk(folder: Path, rounds: int) -> dict[str, Any]:
    """CPU time per image of each form, and the speed of each beside the folder's."""
    held = source.HELD_IN_MEMORY
    forms: dict[str, Images] = {"folder": open_images(folder / "folder"), "tar": open_images(folder / "shards")}
    forms["parquet in memory"] = open_images(folder / "table.parquet")
    source.HELD_IN_MEMORY = 0
    forms["parquet in place"] = open_images(folder / "table.parquet")
    source.HELD_IN_MEMORY = held
    seconds = in_turn({name: epoch_of(images) for name, images in forms.items()}, rounds, time.process_time)
    count = len(forms["folder"]) // BATCH * BATCH
    return {
        "us_per_image": {name: quartiles(values / count * 1e6, 1) for name, values in seconds.items()},
        "speed_beside_folder": {name: quartiles(seconds["folder"] / values, 3) for name, values in seconds.items()},
    }


def on_the_web(folder: Path, rounds: int) -> dict[str, Any]:
    """Images a second by a watch: one by one, and as a run reads them."""
    rates: dict[str, list[float]] = {"one by one": [], "as a run reads": []}
    with served(folder / "shards") as url:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as kept:
                images = open_images(url, keeping=Keeping(kept))
                assert isinstance(images, TarImages)
                began = time.perf_counter()
                for row in np.linspace(0, len(images) - 1, ALONE).astype(int).tolist():
                    size, offset = images.extent(row)
                    file = images.files[int(np.searchsorted(images.ends, row, side="right")) - 1]
                    assert isinstance(file, Address)
                    fetched(file, offset, size)
                rates["one by one"].append(ALONE / (time.perf_counter() - began))
                began = time.perf_counter()
                epoch_of(images)()
                rates["as a run reads"].append(len(images) // BATCH * BATCH / (time.perf_counter() - began))
    ratio = np.array(rates["as a run reads"]) / np.array(rates["one by one"])
    return {
        "images_per_second": {name: quartiles(each, 1) for name, each in rates.items()},
        "ratio": quartiles(ratio, 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=7, of="epochs of every form, in turn")
    parser.add_argument("--data", default=str(SAMPLE), help="the images, as any --data (the sample images)")
    parser.add_argument("--images", type=int, default=1024, help="so many of them (1024)")
    options = parser.parse_args()
    on_threads(1)
    results = circumstances(PACKAGES)
    images = open_images(options.data)
    images = Subset(images, np.arange(min(options.images, len(images))))
    with tempfile.TemporaryDirectory() as place:
        lay_down(images, Path(place))
        size = sum(len(images.raw(row) or b"") for row in range(len(images)))
        results |= {"images": len(images), "bytes": size, "latency": LATENCY}
        results["disk"] = on_disk(Path(place), options.rounds)
        results["web"] = on_the_web(Path(place), max(1, options.rounds // 2))
    results["verdicts"] = [
        verdict("tar beside the folder", results["disk"]["speed_beside_folder"]["tar"]["median"], DISK, at_most=False),
        verdict("a run beside single requests", results["web"]["ratio"]["median"], WEB, at_most=False),
    ]
    print(json.dumps(results, indent=2))
    say_verdicts(results["verdicts"])
    write(results, options.out)


if __name__ == "__main__":
    main()
