"""The tensors of a file that someone else wrote, read without running anything in it."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ssl_backbones.files import regular
from ssl_backbones.refusal import Refusal

SAFE_TORCH = (2, 10)
"""The first release in which the known holes of `weights_only` are closed."""
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module)\.")
"""Parts of keys that compilation and sharding put in; they name no module of the network."""
DEPTH = 16
"""Dictionaries in dictionaries that are looked into."""
_OBJECTS = "Unsupported operand"
"""Torch's words for a step that checkpoints of tensors have no need of."""
_REFUSED = re.compile(r"(?:GLOBAL|global) ([\w.]+)")


class ConversionError(Refusal, ValueError):
    """A checkpoint that cannot be converted; the message says what it lacks and what would work."""


def read_checkpoint(file: str | PathLike[str]) -> dict[str, Tensor]:
    """Every tensor (...) of a .pth, .pth.tar, .safetensors or .npz, by its path in the file; or ConversionError.

    Keys of dictionaries in dictionaries are joined by dots, and the parts of wrappers are taken out.
    """
    path = Path(file)
    tensors = dict(_tensors(_content(path), "", set()))
    if not tensors:
        raise ConversionError(
            f"{str(path)!r} holds no tensors by name: convert a checkpoint, not a pickled model or a list"
        )
    plain = {WRAPPERS.sub("", key): value for key, value in tensors.items()}
    return plain if len(plain) == len(tensors) else tensors


def _tensors(value: Any, prefix: str, seen: set[int], depth: int = DEPTH) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a dictionary and of those in it, each dictionary once."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping) and id(value) not in seen and depth:
        seen.add(id(value))
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _tensors(inner, f"{prefix}.{key}" if prefix else key, seen, depth - 1)


def _content(path: Path) -> Any:
    """Whatever a file holds, by what it begins with and not by what it is called."""
    try:
        with open(regular(path), "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ConversionError(f"{str(path)!r} cannot be read ({error.strerror}): name the downloaded file") from error
    if start.lstrip()[:1] == b"<":
        raise ConversionError(
            f"{str(path)!r} is a web page and no checkpoint, as Google Drive gives for large files: open the address "
            "in a browser, confirm the download, and name the file that it saves"
        )
    return _read(path, start)


def _by_kind(path: Path, start: bytes) -> Any:
    """The content of a file as safetensors, numpy or torch reads it."""
    if start[8:9] == b"{":
        return safetensors.torch.load_file(path)
    if start[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            if all(name.endswith(".npy") for name in archive.namelist()):
                return _arrays(path)
    return _pickled(path)


def _arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz; numpy refuses those that are pickled objects."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def is_safe_with_pickles() -> bool:
    """True if no pickle that is known makes this torch's weights-only reader run code."""
    return bool(torch.torch_version.TorchVersion(torch.__version__) >= SAFE_TORCH)  # type: ignore[operator]


def require_safe_torch(pickle: str) -> None:
    """Raise ConversionError for a pickle, by its path or address, where torch can be made to run code by one."""
    if not is_safe_with_pickles():
        raise ConversionError(
            f"{pickle!r} is a pickle, and torch {torch.__version__} can be made to run code by one: install torch "
            f"{SAFE_TORCH[0]}.{SAFE_TORCH[1]} or later, or save the tensors as .safetensors on a machine that may"
        )


def _pickled(path: Path) -> Any:
    """The tensors and plain values of a checkpoint of torch's; anything else in it is refused unexecuted."""
    require_safe_torch(str(path))
    # A Namespace carries the options of a run and nothing that acts.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read(path: Path, start: bytes) -> Any:
    """The content of a file; ConversionError whatever its reader raises: there is no end to how a file can be wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols
            return _by_kind(path, start)
    except ConversionError:
        raise
    except Exception as error:
        if refused := _REFUSED.search(str(error)):
            raise ConversionError(
                f"{str(path)!r} asks for {refused[1]}, which could run code, and was not opened: take a file of plain "
                "tensors from its publisher, or save its arrays as .npz or .safetensors on a machine that may run it"
            ) from error
        if _OBJECTS in str(error):
            raise ConversionError(
                f"{str(path)!r} is no checkpoint, or a pickle of objects that could run code, and was not opened: take "
                "a file of plain tensors from its publisher; of DeepMind's BYOL, save the arrays as .npz on a machine "
                "that may run it, as the text of ssl_backbones.convert.haiku shows"
            ) from error
        raise ConversionError(
            f"{str(path)!r} is damaged, cut short or no checkpoint ({type(error).__name__}): download it again and "
            "compare its size with the publisher's"
        ) from error
