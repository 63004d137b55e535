"""A network that a foreign configuration describes, made without memory before it is made in earnest."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from ssl_backbones.refusal import reason
from ssl_backbones.weightless import weightless

PARTS = 20_000
"""Modules of a network; the largest of timm's have a quarter of that."""
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".tar")
"""The endings of files that timm takes weights from."""


class TooLargeError(ValueError):
    """A network larger than what it is to be filled with."""


def check_network(folder: Path, architecture: str, num_classes: int | None, elsewhere: Callable[[], int]) -> None:
    """Refuse a folder's config.json that describes no backbone, or one that its weights could not fill: ValueError.

    The network has `num_classes`, or as many as the configuration says. Without weights in the folder, it may be twice
    as large as timm's own of that name, or as large as the bytes of weights that there are `elsewhere`. Takes as long
    as building it without memory does, whatever it asks for.
    """
    given = {} if num_classes is None else {"num_classes": min(num_classes, 1)}
    present = sum(path.stat().st_size for path in folder.iterdir() if path.name.endswith(WEIGHTS) and path.is_file())
    try:
        try:
            model = trial(f"local-dir:{folder}", present or 2 * own_size(architecture), **given)
        except TooLargeError:
            if present or not (present := elsewhere()):
                raise
            model = trial(f"local-dir:{folder}", present, **given)
    except TooLargeError as error:
        those = f"the {present:,} bytes of its weights hold" if present else f"two of timm's own {architecture} have"
        raise ValueError(f"its network has {error}, more than {those}") from error
    except Exception as error:  # whatever a network makes of arguments that were not meant for it
        raise ValueError(
            f"timm cannot make a {architecture} of it, {type(error).__name__}: {reason(error)[:200]}"
        ) from error
    if not isinstance(getattr(model, "num_features", None), int):
        raise ValueError(f"it describes parts of a {architecture} and no backbone")


@cache
def own_size(architecture: str) -> int:
    """Numbers that timm's own network of a name has."""
    return sum(value.numel() for value in trial(architecture, 2**40).parameters())


def trial(name: str, most: int, **given: Any) -> nn.Module:
    """The network that timm makes, without memory for its weights and without a random number drawn.

    TooLargeError as soon as it has more than `most` numbers, or more parts than any network.
    """
    with (
        torch.random.fork_rng(devices=[]),
        weightless(),
        warnings.catch_warnings(action="ignore"),
        bounded(most),
    ):
        model: nn.Module = timm.create_model(name, pretrained=False, **given)
        return model


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Raise TooLargeError in this thread as soon as modules hold more than `most` numbers, or are too many."""
    here, found = threading.get_ident(), Counter[str]()

    def count(kind: str, number: int, limit: int) -> None:
        found[kind] += number if threading.get_ident() == here else 0
        if found[kind] > limit:
            raise TooLargeError(f"more than {limit:,} {kind}")

    def tensor(module: nn.Module, name: str, value: Tensor | None) -> None:
        count("numbers", 0 if value is None else value.numel(), most)

    def part(module: nn.Module, name: str, value: nn.Module | None) -> None:
        count("parts", 1, PARTS)

    handles = [
        hooks.register_module_parameter_registration_hook(tensor),
        hooks.register_module_buffer_registration_hook(tensor),
        hooks.register_module_module_registration_hook(part),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
