"""A teacher's features of the middle square of each image, made once and kept in a folder.

    INDEX.json          what they are of: the teacher's weights, layer and output, the preparation, the images; sealed
    00000.safetensors   "features" (n, D) in float16 of BLOCK images, with digests of the values and of the question
    .lock               held by the run that makes what is missing; others wait

A block is written whole or not at all, so that a making that was stopped goes on behind the last one. Rows are read out
of mapped files, whose pages processes share. A folder answers the question of its index and its blocks, and no other.
The features of an image that could not be read are zeros.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.data.unreadable import is_readable
from ssl_backbones.distributed import doing, first_decides, in_every_process, say
from ssl_backbones.files import (
    PRIVATE,
    clear_leftovers,
    content_of,
    make_folder,
    object_digest,
    object_in,
    read_object,
    write_file,
    write_json,
)
from ssl_backbones.locks import NoLocksError, held
from ssl_backbones.models.images_ahead import embedded
from ssl_backbones.models.teacher import Teacher, TeacherError
from ssl_backbones.refusal import reason
from ssl_backbones.shared_disk import appears
from ssl_backbones.views import CenterCrop

SCHEMA = 1
UNREADABLE = "unreadable"
"""The note, in a block's file, of the rows whose images could not be read."""
OF = "of"
"""The note of the question that a block answers; blocks of earlier versions have none."""
INDEX = "INDEX.json"
BLOCK = 1024
"""Images of a file: what a kill may cost."""
LOCK = ".lock"


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

    All processes call it, and share the work; of several runs one makes them, and the others wait. TeacherError for a
    folder that holds the features of another teacher, of another preparation or of other images, that was harmed, that
    cannot be written to or lacks the space, or that another machine of the run does not see.
    """
    teacher.open(side)
    crop = teacher.crop(side)
    question = question_of(teacher, crop, images, first_decides(lambda: images.content_digest))
    with ExitStack() as turn:
        missing = first_decides(partial(blocks_to_make, folder, question, images, turn))
        in_every_process(partial(require_seen, folder, question, ()))  # before the work
        for at, number in enumerate(missing):
            rows = np.arange(number * BLOCK, min(number * BLOCK + BLOCK, len(images)))
            span = f"{rows[0] + 1} to {rows[-1] + 1} of {len(images)}"
            told = f"{teacher.name} looks at images {span}, to keep its features in {folder}"
            with doing(told, at_once=at == 0):
                features, readable = embedded(teacher, crop, images, rows)
                first_decides(partial(write, folder, number, question, features, readable))
    in_every_process(partial(require_seen, folder, question, numbers(question)))
    return KeptFeatures(folder, len(images), teacher.width)


def question_of(teacher: Teacher, crop: CenterCrop, images: Images, content: str | None) -> dict[str, Any]:
    """All that the features depend on, as the index has it."""
    return {
        "schema": SCHEMA,
        "teacher": {"sha256": teacher.sha256, "layer": teacher.layer, "output": teacher.output, "width": teacher.width},
        "preparation": json.loads(json.dumps(asdict(crop))),
        "images": {"fingerprint": images.fingerprint, "count": len(images), "content": content}
        | ({"altered": images.altered} if images.altered else {}),
    }


def blocks_to_make(folder: Path, question: dict[str, Any], images: Images, turn: ExitStack) -> list[int]:
    """The numbers of the blocks that are to be made in a folder, which is begun if there is none.

    Where there are any, `turn` takes the lock, after whoever makes them already. TeacherError as `keep_features`.
    """
    told = "another run makes the features in {}: waiting for {} (if it is gone, delete {})"
    try:
        missing = missing_blocks(folder, question, images, numbers(question))
        if missing:
            make_folder(folder)
            with doing(f"Waiting for the run that makes the features in {folder}"):
                turn.enter_context(held(folder / LOCK, lambda owner: say(told.format(folder, owner, folder / LOCK))))
            clear_leftovers(folder)
            if not (folder / INDEX).exists():
                write_json(folder / INDEX, question | {"sha256": object_digest(question)})
            missing = missing_blocks(folder, question, images, missing)
            at_most = min(BLOCK * len(missing), len(images))
            require_space(folder, 2 * question["teacher"]["width"] * at_most)
        return missing
    except NoLocksError:
        raise
    except OSError as error:
        raise unwritable(folder, reason(error)) from error


def require_space(folder: Path, needed: int) -> None:
    """Raise TeacherError for a disk that has not so many bytes left, before any work."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise unwritable(folder, f"they need about {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free")


def numbers(question: dict[str, Any]) -> range:
    """The numbers of all blocks."""
    return range(-(-question["images"]["count"] // BLOCK))


def missing_blocks(folder: Path, question: dict[str, Any], images: Images, among: Iterable[int]) -> list[int]:
    """The numbers of the blocks, among some, that a folder has not; TeacherError for a folder of something else.

    A block that notes an image that could not be read is to be made again once it can.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not (folder / INDEX).exists():
        if any(name != LOCK and not name.startswith(PRIVATE) for name in there):
            raise TeacherError(
                f"the folder {folder} holds no features of a teacher, and something else: name a new or an empty one "
                "with --method.kept"
            )
        return list(among)
    check(folder, question)
    missing, unreadable = [], 0
    for number in among:
        left_out = rows_left_out(folder, number, question)
        if left_out is None or any(is_readable(images, number * BLOCK + row) for row in left_out):
            missing.append(number)
        else:
            unreadable += len(left_out)
    if unreadable:
        say(f"{unreadable} images of {folder} could not be read when features were kept, and still cannot.")
    return missing


def require_seen(folder: Path, question: dict[str, Any], among: Iterable[int]) -> None:
    """Raise TeacherError where this process does not see some blocks, as on a machine with a disk of its own."""
    paths = (folder / INDEX, *(path_of(folder, number) for number in among))
    unseen = next((path for path in paths if not (path.exists() or appears(path))), None)
    if unseen is not None:
        raise TeacherError(
            f"{unseen} is not seen on {socket.gethostname()}, and every machine of a run has to see the teacher's "
            "features: name a folder that all share with --method.kept, or let the teacher see each view "
            "(--method.kept '')"
        )
    check(folder, question)


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
    """The rows of a block whose images could not be read.

    None where its file is not there, is not what was written, or answers another question.
    """
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
        own = object_digest(question)
        fits = whole and note.get(OF, own) == own
        return [int(row) for row in str(note.get(UNREADABLE, "")).split()] if fits else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(rows: bytes) -> str:
    """A sha256 over the values."""
    return hashlib.sha256(rows).hexdigest()


def write(folder: Path, number: int, question: dict[str, Any], features: Tensor, readable: Tensor) -> None:
    """Put a block's file in place, with a note of the images that could not be read.

    TeacherError for features beyond float16, for a folder that another run began anew, and where it cannot be written.
    """
    rows = features.cpu().half().numpy()
    if not np.isfinite(rows).all():
        raise TeacherError(
            f"the teacher's features of images from number {number * BLOCK + 1} on are not finite in float16: take "
            "another layer with --method.teacher_layer, or let it see each view (--method.kept '')"
        )
    note = {"sha256": digest(rows.tobytes()), OF: object_digest(question)}
    if left_out := torch.nonzero(readable == 0).flatten().tolist():
        note[UNREADABLE] = " ".join(map(str, left_out))
    check(folder, question)  # somebody may have deleted the folder, and made it anew for another teacher
    try:
        write_file(path_of(folder, number), save({"features": rows}, note))
    except OSError as error:
        raise unwritable(folder, reason(error)) from error


def unwritable(folder: Path, why: str) -> TeacherError:
    """The refusal of a folder that features cannot be kept in."""
    return TeacherError(
        f"features cannot be kept in {folder} ({why}): name a folder that can be written to with --method.kept, make "
        "room and start the same command again, which goes on from there, or let the teacher see each view "
        "(--method.kept '')"
    )
