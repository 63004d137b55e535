"""The weights that a pretraining run begins with: random ones, or given ones put into the same network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import ssl_backbones
from ssl_backbones.catalogue.start import Start, check_same, fill, open_start, take_preparation
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.files import read_object
from ssl_backbones.methods.from_authors import authors_file, take_over_heads
from ssl_backbones.methods.from_run import RunError, state_folder, take_over
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import fit_channels, weights_sha256
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.recipes.facts import arch_of
from ssl_backbones.recipes.recipe import FREE, Recipe
from ssl_backbones.refusal import reason
from ssl_backbones.runs.manifest import listed
from ssl_backbones.runs.run_folder import RunFolder, RunFolderError, changed_fields
from ssl_backbones.train.claiming import CUT
from ssl_backbones.typed.values import from_plain


@dataclass(frozen=True)
class Beginning:
    """A recipe whose start is settled, and that start's weights."""

    recipe: Recipe
    start: Start | None
    """None for random weights, and where a checkpoint takes the place of the start."""

    def backbone(self) -> nn.Module:
        """The backbone that training begins with, the same in every process; torch's generator stands after it."""
        torch.manual_seed(self.recipe.seed)
        backbone = self._network()
        if self.start is not None:
            fill(backbone, self.start)
        elif self.recipe.start is not None:
            take_preparation(backbone, self.recipe.start)
        fit_channels(backbone, self.recipe.in_chans, self.recipe.measured)
        return backbone

    def _network(self) -> nn.Module:
        """The network, with random weights; ValueError for an output stride that it cannot have."""
        given: dict[str, Any] = {name: getattr(self.recipe, name) for name in ("in_chans", "output_stride")}
        given = {name: value for name, value in given.items() if value}
        try:
            return ssl_backbones.create_model(self.recipe.model, num_classes=0, **given)
        except (AssertionError, TypeError, ValueError) as error:
            if not self.recipe.output_stride:
                raise
            raise ValueError(
                f"output_stride is {self.recipe.output_stride}, which {arch_of(self.recipe)} cannot have "
                f"({reason(error)}): a ResNet takes 8, 16 and 32, a small one 1, 2 and 4; leave it out for its own"
            ) from error

    def take_over_state(self, method: Method) -> None:
        """Give a method the state of the run that its start is of, if the recipe wants it and no checkpoint has it.

        Of a file that the method's authors publish, what it holds. RunError where that state is not of this method, or
        not of the start.
        """
        if self.start is None or not self.recipe.with_state:
            return
        if (file := authors_file(self.recipe.init)) is not None:
            say(take_over_heads(method, self.recipe.method, file, self.start.provenance.shown))
            return
        folder = state_folder(self.recipe.init)
        count = take_over(method, self.recipe.method, folder)
        if weights_sha256(method.published) != self.start.provenance.sha256:
            raise RunError(
                f"the checkpoint in {folder} is of another backbone than the one beside it: end that run with its own "
                "command, or leave --with_state out"
            )
        say(f"The state of {self.recipe.method.name} is taken over: {count} tensors with those of the backbone.")

    def drawn(self) -> nn.Module:
        """The backbone with random weights, for images prepared as the start's were; no generator is moved."""
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            return Beginning(self.recipe, None).backbone()

    def started(self) -> nn.Module:
        """The backbone with the start's weights, opened again if they are not at hand; no generator is moved.

        StartError where others are in their place by now.
        """
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            start = self.start or opened(self.recipe)
            if self.recipe.start is not None:
                check_same(start.provenance, self.recipe.start)
            return Beginning(self.recipe, start).backbone()


def begin(recipe: Recipe) -> Beginning:
    """The beginning of a run; a start that a checkpoint took the place of is not opened again.

    StartError, and all that `open_start` raises, for weights that the network cannot start from.
    """
    if not recipe.init:
        return Beginning(recipe, None)
    known = first_decides(lambda: recorded(recipe))
    if known is not None:
        return Beginning(recipe.begun_with(known), None)
    start = opened(recipe)
    given = start.provenance
    say(start.in_words(f", {given.interpolation}, evaluated at crop {given.crop_pct:g}"))
    return Beginning(recipe.begun_with(given), start)


def opened(recipe: Recipe) -> Start:
    """The start that a recipe names."""
    return open_start(recipe.init, arch_of(recipe))


def recorded(recipe: Recipe) -> Provenance | None:
    """The start of a run that goes on from a checkpoint, or is finished; None where it begins anew."""
    folder = RunFolder(recipe.folder)
    if not folder.recipe.is_file() or not (folder.results.exists() or listed(folder.checkpoints)):
        return None
    plain = read_object(folder.recipe, "restore it, or choose another folder with --out", RunFolderError).get("start")
    if plain is None:
        return None
    try:
        start: Provenance = from_plain(Provenance, plain, "start")
    except ValueError:
        return None
    changed = changed_fields(folder, recipe.begun_with(start).to_dict(), FREE | {CUT}, recipe.completed)
    return None if changed else start
