"""A method with everything it has learnt, from the folder of the run that trained it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from ssl_backbones.files import read_object
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.build import untrained
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.names import Name
from ssl_backbones.runs.checkpoint import newest_whole, read_part
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.typed.values import from_plain

logger = logging.getLogger(__name__)


class RunError(Refusal, ValueError):
    """A folder that no method can be made from, and what would work."""


def method_from_run(folder: str | os.PathLike[str], *, trained: bool = True) -> Method:
    """The run's method in evaluation mode, with the weights of its newest whole checkpoint, heads and all.

    Without `trained`, its weights are random: what the run began with, up to the draw. Raises RunError for a folder
    that no run wrote, or another version did, and where no checkpoint is whole.
    """
    path = Path(folder)
    recipe = read_object(path / "recipe.json", "name the folder that ssl-backbones pretrain wrote", RunError)
    try:
        config: MethodConfig = from_plain(MethodConfig, recipe["method"], "method")
        method = config.build(untrained(Name.parse(str(recipe["model"])).arch))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"the method of {path / 'recipe.json'} cannot be made here ({str(error).rstrip('.')}): read the run with "
            "the version that wrote it"
        ) from error
    if trained:
        load(method, path)
    return method.eval()


def load(method: Method, folder: Path) -> None:
    """Give a method every weight and statistic of a run's newest whole checkpoint; RunError unless they are its own."""
    try:
        checkpoint, skipped = newest_whole(folder / "checkpoints")
        if checkpoint is None:
            raise RunError(
                f"{folder} holds no checkpoint, and the head of a method is saved nowhere else: train on with the "
                "run's own command, or use the backbone alone"
            )
        state = read_part(checkpoint, "method")
    except CheckpointError as error:
        raise RunError(f"the method of {folder} cannot be read: {error}") from error
    for reason in skipped:
        logger.warning("%s is read, as a newer checkpoint is not whole: %s", checkpoint, reason)
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
