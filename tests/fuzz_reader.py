"""Feed the image reader with damaged files: python tests/fuzz_reader.py [--minutes 10] [--seed 0]

Files of every format that is read are flipped, cut, spliced, repeated and given other sizes, by a seeded generator. The
reader must answer each with upright RGB or with the one error for images that cannot be read, within a second, without
taking much memory. What it answered otherwise is written down as a file. The counts go to a results file.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import PIL

from ssl_backbones.data import DecodePolicy, UnreadableImageError
from ssl_backbones.data.decode import decode

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fuzz_reader.json"
POLICY = DecodePolicy(max_pixels=4_000_000)
SLOW = 5.0
"""Seconds beyond which an answer counts as a hang, on a machine that does other things as well."""

SEEDS: dict[str, bytes] = {
    **{format: hostile.encode(hostile.noise(), format) for format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM")},
    "WEBP": hostile.encode(hostile.noise(), "WEBP"),
    "WEBP lossless": hostile.encode(hostile.noise(), "WEBP", lossless=True),
    "progressive": hostile.encode(hostile.noise(), "JPEG", progressive=True),
    "turned": hostile.turned(6),
    "turned TIFF": hostile.turned(6, "TIFF"),
    "CMYK": hostile.cmyk("JPEG"),
    "CMYK TIFF": hostile.cmyk("TIFF"),
    "LZW TIFF": hostile.encode(hostile.noise(), "TIFF", compression="tiff_lzw"),
    "palette": hostile.palette_transparent(),
    "palette GIF": hostile.palette_transparent("GIF"),
    "16 bits": hostile.sixteen_bits("PNG"),
    "16 bits TIFF": hostile.sixteen_bits("TIFF"),
    "animated GIF": hostile.animated("GIF"),
    "animated PNG": hostile.animated("PNG"),
    "animated WEBP": hostile.animated("WEBP"),
    "multi-picture": hostile.multi_picture(),
    "grey and alpha": hostile.grey_alpha(128),
}


def flip(file: bytearray, generator: random.Random) -> bytearray:
    """A few bits, more often near the start, where sizes and tables are."""
    for _ in range(generator.randint(1, 8)):
        at = int(len(file) * generator.random() ** generator.choice([1, 3]))
        file[min(at, len(file) - 1)] ^= 1 << generator.randrange(8)
    return file


def cut(file: bytearray, generator: random.Random) -> bytearray:
    return file[: generator.randrange(len(file))]


def insert(file: bytearray, generator: random.Random) -> bytearray:
    at = generator.randrange(len(file))
    return file[:at] + generator.randbytes(generator.randint(1, 64)) + file[at:]


def repeat(file: bytearray, generator: random.Random) -> bytearray:
    start = generator.randrange(len(file))
    return file[:start] + file[start : start + generator.randint(1, 400)] * generator.randint(2, 6) + file[start:]


def extreme(file: bytearray, generator: random.Random) -> bytearray:
    """A number of two or four bytes made the smallest or the largest there is."""
    width = generator.choice([2, 4])
    at = generator.randrange(max(1, min(len(file), 600) - width))
    file[at : at + width] = generator.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * width
    return file


def splice(file: bytearray, generator: random.Random) -> bytearray:
    other = SEEDS[generator.choice(sorted(SEEDS))]
    return file[: generator.randrange(len(file))] + other[generator.randrange(len(other)) :]


DAMAGE: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (flip, cut, insert, repeat, extreme, splice)


def damaged(number: int, seed: int) -> tuple[str, bytes]:
    """The name of what the file was, and the file, as functions of two numbers."""
    generator = random.Random(f"{seed} {number}")
    name = generator.choice(sorted(SEEDS))
    file = bytearray(SEEDS[name])
    for _ in range(generator.randint(1, 3)):
        file = generator.choice(DAMAGE)(file, generator) or file
    return name, bytes(file)


def answer(file: bytes) -> str:
    """The reader's answer: "read", "refused", or its fault."""
    began = time.monotonic()
    try:
        image = decode(file, "photo", POLICY)
    except UnreadableImageError as error:
        said = "refused" if str(error).startswith("'photo' cannot be read: ") else f"says {error}"
    except Exception as error:
        return f"raised {type(error).__name__}"
    else:
        sound = image.mode == "RGB" and 0 < image.width * image.height <= POLICY.max_pixels
        said = "read" if sound else f"gave {image.mode} of {image.size}"
    return said if time.monotonic() - began < SLOW else "took too long"


def fuzz(minutes: float, seed: int, keep: Path) -> dict[str, Any]:
    """The counts of what was answered in some minutes; files that were answered wrongly are kept."""
    counts: Counter[str] = Counter()
    by_seed: Counter[str] = Counter()
    number, began, before = 0, time.monotonic(), peak()
    while time.monotonic() - began < 60 * minutes:
        name, file = damaged(number, seed)
        said = answer(file)
        counts[said] += 1
        by_seed[name] += 1
        if said not in ("read", "refused"):
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{seed}-{number}.bin").write_bytes(file)
            print(f"{name}, number {number}: {said}", flush=True)
        number += 1
    return {
        "minutes": minutes,
        "seed": seed,
        "files": number,
        "answers": dict(counts),
        "wrong": number - counts["read"] - counts["refused"],
        "by_format": dict(sorted(by_seed.items())),
        "memory_grew_mb": round(peak() - before),
        "made_with": {"pillow": PIL.__version__, "python": platform.python_version()},
    }


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    """Fuzz for a while, write down and print the counts; the exit code is 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write")
    given = parser.parse_args()
    counts = fuzz(given.minutes, given.seed, given.out.with_suffix(".found"))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{counts['files']} files: {counts['answers']}")
    raise SystemExit(counts["wrong"] > 0)


if __name__ == "__main__":
    main()
