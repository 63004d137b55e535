"""A method with everything it has learnt, from the folder of the run that trained it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ssl_backbones.files import object_digest
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.build import untrained
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.names import Name

SCHEMA = 1
"""Of checkpoints that are understood here."""


class RunError(Refusal, ValueError):
    """A folder that no method can be made from, and what would work."""


def method_from_run(folder: str | os.PathLike[str], *, trained: bool = True) -> Method:
    """The run's method in evaluation mode, with the weights of its newest checkpoint, heads and all; or RunError.

    Without `trained`, its weights are random: what the run began with, up to the draw.
    """
    path = Path(folder)
    recipe = read_json(path / "recipe.json")
    try:
        config = method_config(recipe["method"])
        method = config.build(untrained(Name.parse(str(recipe["model"])).arch))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"the method of {path / 'recipe.json'} cannot be made here ({error}): read the run with the version that "
            "wrote it"
        ) from error
    if trained:
        load(method, newest(path))
    return method.eval()


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file of a run."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise RunError(f"{path} cannot be read ({reason}): name the folder that training/pretrain.py wrote") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no object: name the folder that training/pretrain.py wrote")
    return value


def method_config(plain: dict[str, Any]) -> MethodConfig:
    """The configuration that a recipe holds as JSON, the name of its class beside its fields."""
    known = {kind.__name__: kind for kind in concrete(MethodConfig)}
    if plain["type"] not in known:
        raise ValueError(f"there is no method {plain['type']!r}")
    config: MethodConfig = from_json(known[plain["type"]], plain)
    return config


def from_json(declared: Any, plain: Any) -> Any:
    """A value of a declared type: dataclasses and tuples at any depth; a dataclass needs each of its fields, no more.

    What a field may be is checked by the dataclass itself, and by the shapes of the weights.
    """
    if isinstance(plain, dict) and "type" in plain:  # one of an abstract family, which it names
        family = {kind.__name__: kind for kind in (declared, *concrete(declared))}
        declared, plain = family[plain["type"]], {key: value for key, value in plain.items() if key != "type"}
    if isinstance(declared, type) and is_dataclass(declared) and isinstance(plain, dict):
        hints = get_type_hints(declared)
        names = {field.name for field in fields(declared)}
        if names != plain.keys():
            raise ValueError(
                f"{getattr(declared, '__name__', '')} differs in {', '.join(sorted(names ^ plain.keys()))}"
            )
        return declared(**{name: from_json(hints[name], value) for name, value in plain.items()})
    if isinstance(plain, list):
        kinds = get_args(declared) if get_origin(declared) is tuple else ()
        kinds = (kinds[0],) * len(plain) if ... in kinds else kinds or (Any,) * len(plain)
        return tuple(from_json(kind, value) for kind, value in zip(kinds, plain, strict=True))
    return plain


def concrete(family: Any) -> Iterator[Any]:
    """Every class below an abstract one."""
    kinds: list[Any] = family.__subclasses__() if isinstance(family, type) else []
    for kind in kinds:
        yield kind
        yield from concrete(kind)


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    found = sorted(path for path in (folder / "checkpoints").glob("step-*") if path.is_dir())
    if not found:
        raise RunError(
            f"{folder} holds no checkpoint, and the head of a method is saved nowhere else: train on with the run's "
            "own command, or use the backbone alone"
        )
    return found[-1]


def load(method: Method, checkpoint: Path) -> None:
    """Give a method every weight and statistic of a checkpoint; RunError unless they are its own, and unharmed."""
    state = read_state(checkpoint)
    for name, buffer in method.named_buffers():
        if not buffer.numel() and name in state:  # one with a row for each image, which only the data tell
            method.get_submodule(name.rpartition(".")[0]).register_buffer(
                name.rpartition(".")[2], torch.empty_like(state[name])
            )
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        reason = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:3])
        raise RunError(
            f"{checkpoint} does not hold the weights of a {type(method).__name__} as recipe.json describes it "
            f"({reason}): read the run with the version that wrote it"
        ) from error


def read_state(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of the method in a checkpoint, once they are found to be what was written."""
    manifest = read_json(checkpoint / "MANIFEST.json")
    if manifest.get("sha256") != object_digest(manifest):
        raise RunError(f"{checkpoint / 'MANIFEST.json'} is not what was written: {before(checkpoint)}")
    if manifest["schema"] != SCHEMA:
        raise RunError(
            f"{checkpoint} has format {manifest['schema']} and this version reads {SCHEMA}: take the version that "
            "wrote it"
        )
    path = checkpoint / "method.safetensors"
    try:
        weights = path.read_bytes()
        if hashlib.sha256(weights).hexdigest() != manifest["files"][path.name]["sha256"]:
            raise RunError(f"{path} is not what was written: {before(checkpoint)}")
        tensors: dict[str, Tensor] = safetensors.torch.load(weights)
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read ({error}): {before(checkpoint)}") from error
    return tensors


def before(checkpoint: Path) -> str:
    """The way out of a damaged checkpoint."""
    return f"restore it from a copy, or delete {checkpoint.name} to take the checkpoint before it"
