"""A method with everything it has learned, from the folder of the run that trained it, or where that is published."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check
from ssl_backbones.data.channels import MOST
from ssl_backbones.data.statistics import Statistics
from ssl_backbones.distributed import say
from ssl_backbones.fetch.from_hub import parts
from ssl_backbones.files import read_object
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import fit_channels
from ssl_backbones.models.build import untrained
from ssl_backbones.models.teacher import TeacherError
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.errors import explain_weights
from ssl_backbones.registry.names import HUB, Name
from ssl_backbones.runs.checkpoint import newest_whole, read_part
from ssl_backbones.runs.manifest import CheckpointError, listed
from ssl_backbones.typed.values import from_plain

logger = logging.getLogger(__name__)


class RunError(Refusal, ValueError):
    """A folder that no method can be made from, and what would work."""


def method_from_run(folder: str | os.PathLike[str], *, trained: bool = True) -> Method:
    """The run's method in evaluation mode, with the weights of its newest whole checkpoint, heads and all.

    Without `trained`, its weights are random: what the run began with, up to the draw. Raises RunError for a folder
    that no run wrote, or another version did, and where no checkpoint is whole, and TeacherError where its teacher
    cannot be had.
    """
    path = Path(folder)
    with of_this_version(path):
        recipe = described(path)
        config: MethodConfig = from_plain(MethodConfig, recipe["method"], "method")
        method = config.build(backbone_of(recipe))
    if trained:
        load(method, path)
    return method.eval()


def method_with_heads(folder: Path, *, trained: bool, seed: int) -> Method | None:
    """The run's method as `method_from_run` has it, random weights drawn by `seed`; None where its backbone is alone.

    That is where no checkpoint holds what was trained, and where its teacher cannot be had, which is said.
    """
    if trained and not listed(folder / "checkpoints"):
        return None
    torch.manual_seed(seed)
    try:
        return method_from_run(folder, trained=trained)
    except TeacherError as error:
        say(f"The backbone of {folder} is used without its heads, as its teacher cannot be had: {error}")
        return None


def backbone_of(recipe: Mapping[str, Any]) -> nn.Module:
    """The untrained backbone of a recipe as JSON has it, for images of its channels; ValueError for other channels.

    Its maps are as fine as the recipe has them.
    """
    channels = recipe.get("in_chans", 0)
    right = isinstance(channels, int) and 0 <= channels <= MOST
    check(right, "in_chans", channels, f"from 1 to {MOST}, or 0 for RGB of 8 bits")
    asked = {name: recipe[name] for name in ("in_chans", "output_stride") if recipe.get(name)}
    backbone = untrained(Name.parse(str(recipe["model"])).arch, **asked)
    fit_channels(backbone, channels, from_plain(Statistics | None, recipe.get("measured"), "measured"))
    return backbone


def described(folder: Path) -> dict[str, Any]:
    """The recipe of a run; RunError for a folder that holds none."""
    return read_object(folder / "recipe.json", "name the folder that ssl-backbones pretrain wrote", RunError)


@contextmanager
def of_this_version(folder: Path) -> Iterator[None]:
    """Context manager: turn what a recipe raises that does not fit this version into RunError.

    TeacherError, for a teacher that is not where the run had it, stays as it is.
    """
    try:
        yield
    except (RunError, TeacherError):
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"the method of {folder / 'recipe.json'} cannot be made here ({str(error).rstrip('.')}): read the run with "
            "the version that wrote it"
        ) from error


def state_folder(name: str) -> Path:
    """The folder with the recipe and the checkpoints of a run's folder, its backbone's, or `hf-hub:org/name`.

    PretrainedWeightsError for a repository that cannot be had.
    """
    if name.startswith(HUB):
        repository, _, revision = name.partition(":")[2].partition("@")
        with explain_weights(name):
            wanted = ["recipe.json", "checkpoints/*"]
            return parts(repository, wanted, revision or None)
    path = Path(name.removeprefix("local-dir:"))
    return path.parent if path.name == "backbone" and not (path / "recipe.json").exists() else path


def take_over(method: Method, config: MethodConfig, folder: Path) -> int:
    """Give a method all that the same one had learnt in a run, heads, target and queue too; the number of its tensors.

    What has a row for each image stays as it is, and so does what is measured of images or numbers them, as they may be
    others. Raises RunError for another method, or one of other sizes.
    """
    with of_this_version(folder):
        theirs: MethodConfig = from_plain(MethodConfig, described(folder)["method"], "method")
    if type(theirs) is not type(config):
        raise RunError(
            f"{folder} holds the state of {theirs.name}, and {config.name} is to be trained: train that method, or "
            "leave --with_state out to start from the backbone alone"
        )
    apart = {name for name, buffer in method.named_buffers() if not buffer.numel()}
    for place, module in method.named_modules():
        apart |= {f"{place}.{name}" for name in getattr(module, "measured_anew", ())}
    own = {name: value for name, value in method.state_dict().items() if name not in apart}
    given = {name: value for name, value in newest_state(folder)[1].items() if name not in apart}
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in (given, own)]
    wrong = sorted(name for name in own.keys() | given.keys() if shapes[0].get(name) != shapes[1].get(name))
    if wrong:
        there, here = (shape.get(wrong[0], "nothing") for shape in shapes)
        raise RunError(
            f"the {config.name} in {folder} has other sizes than this recipe's, first in {wrong[0]} ({there} there and "
            f"{here} here): give --method its own, which stand in recipe.json, or leave --with_state out"
        )
    method.load_state_dict(given, strict=False)
    return len(given)


def newest_state(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The newest whole checkpoint of a run, and every tensor (...) of its method; RunError where there is none."""
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
    return checkpoint, state


def load(method: Method, folder: Path) -> Path:
    """Give a method every weight and statistic of a run's newest whole checkpoint, and return that one's folder.

    RunError unless they are its own.
    """
    checkpoint, state = newest_state(folder)
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        reason = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:3])
        raise RunError(
            f"{checkpoint} does not hold the weights of a {type(method).__name__} as recipe.json describes it "
            f"({reason}): read the run with the version that wrote it"
        ) from error
    return checkpoint
