"""A cache of images in the making: its files, as they grow block by block."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

import ssl_backbones
from ssl_backbones.credentials import without_credentials
from ssl_backbones.data import Images, UnreadableImageError
from ssl_backbones.data.cached import ARRAYS, HEADER, INDEX, PIXELS, SCHEMA, next_sha256
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.files import make_folder, object_digest, object_in, regular, sync_folder, without_links, write_file
from ssl_backbones.typed.values import from_plain

BLOCK = 1024
"""Images that a kill may cost."""
AT_ONCE = 32
"""Images in memory."""
THREADS = min(8, os.cpu_count() or 1)
QUALITY = 90
"""JPEG quality of re-encoded images."""
LONGEST = 65_500
"""Pixels of a JPEG's side, at most, as libjpeg writes it."""
NOTES = "blocks.jsonl"


@dataclass(frozen=True)
class Block:
    """The record of the images of a block."""

    bytes: int
    sha256: str
    sizes: list[int]
    """Bytes of each image; 0 where it could not be read."""
    shapes: list[tuple[int, int]]
    """Height and width."""
    unreadable: dict[str, str]
    """Index to reason."""


def block_of(line: Mapping[str, Any], first: int, images: int) -> Block | None:
    """The block that begins with an image, by a line of the notes; None for a line that notes none."""
    try:
        block: Block = from_plain(Block, line)
    except ValueError:
        return None
    last = first + len(block.sizes)
    within = last <= images and all(at.isdecimal() and first <= int(at) < last for at in block.unreadable)
    adds_up = block.bytes == sum(block.sizes) and min(block.sizes, default=0) >= 0
    return block if within and adds_up and len(block.shapes) == len(block.sizes) else None


class UnfinishedCache:
    """The folder `.tmp-NAME` of a cache: what is whole of it, and what makes it more."""

    def __init__(self, place: Path, images: Images, source: str, side: int) -> None:
        """Takes up what an earlier process left, as far as it is whole and of the same images."""
        self.place, self.images, self.side = place, images, side
        self.folder = place.with_name(f".tmp-{place.name}")
        self.question = {
            "schema": SCHEMA,
            "of": {
                "source": Path(without_credentials(source)).name,
                "fingerprint": images.fingerprint,
                "fingerprint_by_sizes": images.fingerprint_by_sizes,
                **({} if images.content_digest is None else {"content_digest": images.content_digest}),
                "photos": len(images),
            },
            "content": kind_of(side),
            "made_with": made_with(),
        }
        self.dropped: list[str] = []
        """Reasons why something that was there is of no use."""
        make_folder(self.folder)
        self.blocks = self.whole_blocks()
        write_file(self.folder / NOTES, b"".join(map(as_line, [self.question, *map(asdict, self.blocks)])))
        with open(self.folder / PIXELS, "ab", opener=without_links) as file:
            file.truncate(HEADER + sum(block.bytes for block in self.blocks))

    @property
    def done(self) -> int:
        """Number of images that are whole."""
        return sum(len(block.sizes) for block in self.blocks)

    def unreadable_keys(self) -> dict[str, str]:
        """Key to reason of the images that could not be read so far."""
        return {self.images.keys[int(at)]: why for block in self.blocks for at, why in block.unreadable.items()}

    def whole_blocks(self) -> list[Block]:
        """The blocks before the first that is not what was noted of it, or lacks an image that can be read now."""
        notes, pixels = self.folder / NOTES, self.folder / PIXELS
        if not notes.exists() or not pixels.exists():
            return []
        lines = readable_lines(notes)
        if next(lines, None) != self.question:
            self.dropped.append("it was begun with other images, or by another version")
            return []
        blocks: list[Block] = []
        with open(regular(pixels), "rb") as file:
            file.seek(HEADER)
            for line in lines:
                whole = sum(len(block.sizes) for block in blocks)
                block = block_of(line, whole, len(self.images))
                if block is None or next_sha256(file, block.bytes) != block.sha256:
                    self.dropped.append(f"what lies behind its first {whole} images is not what was written")
                    break
                if any(can_be_kept(self.images, int(at), self.side) for at in block.unreadable):
                    self.dropped.append(f"images behind its first {whole} can be read now that could not be")
                    break
                blocks.append(block)
        return blocks

    def add(self, indices: Iterable[int]) -> None:
        """Decode the images of another block, write them, and note it once they are on the disk."""
        sizes: list[int] = []
        shapes: list[tuple[int, int]] = []
        unreadable: dict[str, str] = {}
        found = hashlib.sha256()
        with open(self.folder / PIXELS, "ab", opener=without_links) as file:
            for at, content, shape in self.contents(list(indices)):
                if isinstance(content, str):
                    unreadable[str(at)], content = content, b""
                file.write(content)
                found.update(content)
                sizes.append(len(content))
                shapes.append(shape)
            file.flush()
            os.fsync(file.fileno())
        block = Block(sum(sizes), found.hexdigest(), sizes, shapes, unreadable)
        with open(self.folder / NOTES, "ab", opener=without_links) as file:
            file.write(as_line(asdict(block)))
            file.flush()
            os.fsync(file.fileno())
        self.blocks.append(block)

    def contents(self, indices: list[int]) -> Iterator[tuple[int, bytes | str, tuple[int, int]]]:
        """For each image: its index, its bytes or the reason why it cannot be read, its height and width."""
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(indices), AT_ONCE):
                yield from pool.map(self.content, indices[start : start + AT_ONCE])

    def content(self, at: int) -> tuple[int, bytes | str, tuple[int, int]]:
        """One image."""
        try:
            image = self.images[at]
            return at, content_of(image, self.side, self.images.keys[at]), (image.height, image.width)
        except UnreadableImageError as error:
            return at, str(error), (0, 0)

    def finish(self) -> None:
        """Write the header and the index, and give the folder its name."""
        sizes = [size for block in self.blocks for size in block.sizes]
        shapes = np.array([shape for block in self.blocks for shape in block.shapes], np.int64)
        same = not self.side and (shapes == shapes[0]).all()
        shape = (len(sizes), *map(int, shapes[0]), 3) if same else (sum(sizes),)
        write_header(self.folder / PIXELS, shape)
        arrays = image_arrays(self.images, sizes, shapes)
        write_file(self.folder / ARRAYS, arrays)
        index = {
            **self.question,
            "classes": list(self.images.classes),
            "labelled": self.images.labels is not None,
            "unreadable": {at: why for block in self.blocks for at, why in block.unreadable.items()},
            "date": datetime.now(UTC).date().isoformat(),
            "files": {
                PIXELS: [{"bytes": block.bytes, "sha256": block.sha256} for block in self.blocks],
                ARRAYS: hashlib.sha256(arrays).hexdigest(),
            },
        }
        write_file(self.folder / INDEX, json.dumps(index | {"sha256": object_digest(index)}, indent=1).encode())
        sync_folder(self.folder)
        os.rename(self.folder, self.place)
        sync_folder(self.place.parent)
        (self.place / NOTES).unlink()  # not before: without its notes an unfinished cache is worth nothing


def content_of(image: Image.Image, side: int, name: str) -> bytes:
    """An image's pixels, or with a side the JPEG of the image scaled down until its short side is that.

    UnreadableImageError for one that is too long for a JPEG.
    """
    if not side:
        return image.tobytes()
    short = min(image.size)
    if short > side:
        width, height = (max(side, round(length * side / short)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if max(image.size) > LONGEST:
        raise UnreadableImageError(
            f"{name!r} cannot be kept as JPEG: its {image.width} x {image.height} pixels go beyond {LONGEST:,} a side: "
            "cut it, or keep pixels as they are (leave out --reencode)"
        )
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def can_be_kept(images: Images, at: int, side: int) -> bool:
    """True if an image can be read now, and kept in that form."""
    try:
        content_of(images[at], side, images.keys[at])
    except UnreadableImageError:
        return False
    return True


def kind_of(side: int) -> dict[str, Any]:
    """The form in which each image is kept, as the index says it."""
    if not side:
        return {"kind": "pixels"}
    return {
        "kind": "jpeg",
        "short_side": side,
        "quality": QUALITY,
        "note": "scaled down and encoded anew: these are other pixels than the source's",
    }


def made_with() -> dict[str, str | None]:
    """Versions of all that the pixels depend on."""
    return {
        "ssl-backbones": ssl_backbones.__version__,
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
    }


def write_header(path: Path, shape: tuple[int, ...]) -> None:
    """Put the header of an .npy file in front of the pixels."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    if len(header.getvalue()) != HEADER:
        raise ValueError(f"the header of {shape} has {len(header.getvalue())} bytes instead of {HEADER}")
    with open(path, "r+b", opener=without_links) as file:
        file.write(header.getvalue())
        file.flush()
        os.fsync(file.fileno())


def image_arrays(images: Images, sizes: list[int], shapes: np.ndarray) -> bytes:
    """The file of what belongs to each image."""
    keys = images.keys if isinstance(images.keys, PathKeys) else PathKeys(images.keys)
    arrays: dict[str, np.ndarray] = {
        "keys": keys.block,
        "key_ends": keys.ends,
        "ends": np.cumsum([0, *sizes], dtype=np.int64),
        "shapes": shapes,
        "labels": np.empty(0, np.int64) if images.labels is None else images.labels,
    }
    if images.digests is not None:
        arrays["digests"] = images.digests
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def as_line(value: Any) -> bytes:
    """A value as a line of JSON."""
    return json.dumps(value).encode() + b"\n"


def readable_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The values of a file of JSON lines, up to the first that is torn."""
    for line in regular(path).read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        try:
            yield object_in(line)
        except ValueError:
            return
