"""A teacher's features of the middle square of each image, made once and kept in a folder.

    INDEX.json          what they are of: the teacher's weights, layer and output, the preparation, the images; sealed
    00000.safetensors   "features" (n, D) in float16 of BLOCK images, with a digest of the values

A block is written whole or not at all, so that a making that was stopped goes on behind the last one. Rows are read out
of mapped files: nothing is held in memory, and processes share the pages. A folder is never used for another question
than that of its index. The features of an image that could not be read are zeros.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.distributed as dist
from safetensors.numpy import save
from torch import Tensor

from ssl_backbones.cores import cores_here
from ssl_backbones.data import Images, UnreadableImageError
from ssl_backbones.data.threads import in_turn
from ssl_backbones.data.unreadable import is_readable
from ssl_backbones.devices import gpu_here
from ssl_backbones.distributed import doing, first_decides, gather, say, world_size
from ssl_backbones.files import (
    PRIVATE,
    content_of,
    make_folder,
    object_digest,
    object_in,
    read_object,
    write_file,
    write_json,
)
from ssl_backbones.models.teacher import Teacher, TeacherError
from ssl_backbones.products import network_products
from ssl_backbones.refusal import reason
from ssl_backbones.shares import own_share
from ssl_backbones.views import CenterCrop

SCHEMA = 1
UNREADABLE = "unreadable"
"""The note, in a block's file, of the rows whose images could not be read."""
INDEX = "INDEX.json"
BLOCK = 1024
"""Images of a file: what a kill may cost."""
BATCH = 32
"""Images that a teacher is shown at a time."""
AHEAD = 4
"""Batches that are read while it looks at another, at least."""


@final
class KeptFeatures:
    """The features (N, D) of a folder, by row; a pickle names the folder."""

    def __init__(self, folder: Path, count: int, width: int) -> None:
        """Open the features (N, D) in a folder, which `keep_features` makes and checks."""
        self.folder, self.count, self.width = folder, count, width
        self.maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The features (B, D) of the images at the rows (B,), float16."""
        found = np.empty((len(rows), self.width), np.float16)
        for at, row in enumerate(rows.tolist()):
            found[at] = self.block(row // BLOCK)[row % BLOCK]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "maps": {}}

    def block(self, number: int) -> np.ndarray:
        """The rows (n, D) of a file, mapped."""
        if number not in self.maps:
            path = path_of(self.folder, number)
            with open(path, "rb") as file:
                start = 8 + int.from_bytes(file.read(8), "little")
            shape = (min(BLOCK, self.count - number * BLOCK), self.width)
            self.maps[number] = np.memmap(path, np.float16, "r", start, shape)
        return self.maps[number]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows (n, D) of every file, in order."""
        for number in range(-(-self.count // BLOCK)):
            yield self.block(number)


def keep_features(teacher: Teacher, side: int, images: Images, folder: Path) -> KeptFeatures:
    """The teacher's features of all images at `side` pixels, out of a folder that has them, or made and kept there.

    All processes call it, and share the work. TeacherError for a folder that holds the features of another teacher, of
    another preparation or of other images, that was harmed, or that cannot be written to.
    """
    teacher.open(side)
    crop = teacher.crop(side)
    content = first_decides(lambda: images.content_digest)
    question = question_of(teacher, crop, images, content)
    missing = first_decides(lambda: missing_blocks(folder, question, images))
    for at, number in enumerate(missing):
        rows = np.arange(number * BLOCK, min(number * BLOCK + BLOCK, len(images)))
        told = f"{teacher.name} looks at images {rows[0] + 1} to {rows[-1] + 1} of {len(images)}, to keep its features"
        with doing(told, at_once=at == 0):
            features, readable = embedded(teacher, crop, images, rows)
            first_decides(partial(write, folder, number, question, features, readable))
    return KeptFeatures(folder, len(images), teacher.width)


def question_of(teacher: Teacher, crop: CenterCrop, images: Images, content: str | None) -> dict[str, Any]:
    """All that the features depend on, as the index has it."""
    return {
        "schema": SCHEMA,
        "teacher": {"sha256": teacher.sha256, "layer": teacher.layer, "output": teacher.output, "width": teacher.width},
        "preparation": json.loads(json.dumps(asdict(crop))),
        "images": {"fingerprint": images.fingerprint, "count": len(images), "content": content},
    }


def missing_blocks(folder: Path, question: dict[str, Any], images: Images) -> list[int]:
    """The numbers of the blocks that are still to be made in a folder, which is begun if there is none.

    A block that notes an image that could not be read is to be made again once it can.
    """
    try:
        held = [path for path in folder.iterdir() if not path.name.startswith(PRIVATE)] if folder.is_dir() else []
        if held and not (folder / INDEX).exists():
            raise TeacherError(
                f"the folder {folder} holds no features of a teacher, and something else: name a new or an empty one "
                "with --method.kept"
            )
        if not (folder / INDEX).exists():
            make_folder(folder)
            write_json(folder / INDEX, question | {"sha256": object_digest(question)})
    except OSError as error:
        raise unwritable(folder, error) from error
    check(folder, question)
    missing, unreadable = [], 0
    for number in range(-(-question["images"]["count"] // BLOCK)):
        left_out = rows_left_out(folder, number, question)
        if left_out is None or any(is_readable(images, number * BLOCK + row) for row in left_out):
            missing.append(number)
        else:
            unreadable += len(left_out)
    if unreadable:
        say(f"{unreadable} images of {folder} could not be read when features were kept, and still cannot.")
    return missing


def check(folder: Path, question: dict[str, Any]) -> None:
    """Raise TeacherError for a folder whose index was changed, or answers another question, with what differs."""
    way_out = f"delete {folder}, and the same command makes it anew, or name another folder with --method.kept"
    index = read_object(folder / INDEX, way_out, TeacherError)
    if index.get("sha256") != object_digest(index):
        raise TeacherError(f"{folder / INDEX} was changed: {way_out}")
    there = index.get("images")
    if isinstance(there, dict):
        there.setdefault("content", question["images"]["content"])  # an older index does not tell
    words = {
        "schema": "another version of the code",
        "teacher": "another teacher, or another layer of it",
        "preparation": "images prepared in another way or size",
        "images": "other images",
    }
    for part, other in words.items():
        if index.get(part) != question[part]:
            raise TeacherError(
                f"the features in {folder} are of {other} ({part}: {in_short(index.get(part))} there, and "
                f"{in_short(question[part])} here): {way_out}"
            )


def in_short(value: Any) -> str:
    """A part of a question in a few words: digests cut short."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(str(each)[:24] for each in value.values())


def path_of(folder: Path, number: int) -> Path:
    """The file of a block."""
    return folder / f"{number:05}.safetensors"


def rows_left_out(folder: Path, number: int, question: dict[str, Any]) -> list[int] | None:
    """The rows of a block whose images could not be read; None where its file is not there, or not what was written."""
    path = path_of(folder, number)
    if not path.exists():
        return None
    count = min(BLOCK, question["images"]["count"] - number * BLOCK)
    try:
        content = content_of(path)
        start = 8 + int.from_bytes(content[:8], "little")
        note = object_in(content[8:start])["__metadata__"]
        rows = content[start:]
        whole = len(rows) == 2 * count * question["teacher"]["width"] and digest(rows) == str(note["sha256"])
        return [int(row) for row in str(note.get(UNREADABLE, "")).split()] if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(rows: bytes) -> str:
    """A sha256 over the values."""
    return hashlib.sha256(rows).hexdigest()


def write(folder: Path, number: int, question: dict[str, Any], features: Tensor, readable: Tensor) -> None:
    """Put a block's file in place, with a note of the images that could not be read.

    TeacherError for features beyond float16, and where it cannot be written.
    """
    rows = features.cpu().half().numpy()
    if not np.isfinite(rows).all():
        raise TeacherError(
            f"the teacher's features of images from number {number * BLOCK + 1} on are not finite in float16: take "
            "another layer with --method.teacher_layer, or let it see each view (--method.kept '')"
        )
    note = {"sha256": digest(rows.tobytes())}
    if left_out := torch.nonzero(readable == 0).flatten().tolist():
        note[UNREADABLE] = " ".join(map(str, left_out))
    try:
        write_file(path_of(folder, number), save({"features": rows}, note))
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> TeacherError:
    """The refusal of a folder that features cannot be kept in."""
    return TeacherError(
        f"features cannot be kept in {folder} ({reason(error)}): name a folder that can be written to with "
        "--method.kept, or let the teacher see each view (--method.kept '')"
    )


def embedded(teacher: Teacher, crop: CenterCrop, images: Images, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The teacher's features (n, D) of the images at some rows (n,), in every process, and which could be read (n,).

    Features are zeros where one could not. Each process makes a share of them, on the usual device; images are read
    while others are looked at.
    """
    mine = own_share(torch.from_numpy(rows)).numpy()
    device = usual_device()
    found, read = [], []
    for levels, readable in ahead(crop, images, np.split(mine, range(BATCH, len(mine), BATCH))):
        with network_products(device):
            features = teacher.look(crop.on_device(levels.to(device))).features
        read.append(readable.to(device))
        found.append(features * read[-1][:, None])
    return gather(torch.cat(found))[: len(rows)], gather(torch.cat(read))[: len(rows)]


def usual_device() -> torch.device:
    """The GPU where there is one, not excluded, that the processes of the run can share tensors of; else the CPU."""
    shared = world_size() == 1 or dist.get_backend() == "nccl"
    return torch.device("cuda" if gpu_here() and shared else "cpu")


def ahead(crop: CenterCrop, images: Images, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the levels (B, S, S, 3) of each batch of rows and which images could be read (B,), some batches ahead."""
    threads = cores_here()
    with ThreadPoolExecutor(threads) as pool:
        yield from in_turn(pool, partial(levels_of, crop, images), batches, 1 + max(AHEAD, threads))


def levels_of(crop: CenterCrop, images: Images, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The levels (B, S, S, 3) of the images at rows (B,), black for an unreadable one, and which could be read (B,)."""
    levels = torch.zeros(len(rows), crop.size, crop.size, 3, dtype=torch.uint8)
    readable = torch.ones(len(rows))
    for at, row in enumerate(rows.tolist()):
        try:
            levels[at] = crop.on_host([images[row]], None)[0]
        except UnreadableImageError:
            readable[at] = 0
    return levels, readable
