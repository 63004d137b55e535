"""The material to publish: a finished run, and the evaluations of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import ssl_backbones
from ssl_backbones.checks import brief
from ssl_backbones.convert.conversion import not_finite
from ssl_backbones.files import read_object
from ssl_backbones.hub.evaluations import is_random, stem_of
from ssl_backbones.hub.export import rounded
from ssl_backbones.hub.given import givens
from ssl_backbones.hub.publishing.names import without_names
from ssl_backbones.hub.run_name import fingerprint
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.names import Name
from ssl_backbones.runs.checkpoint import newest_whole
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.runs.results import PRETRAINING, read_results
from ssl_backbones.typed.records import ANEW, RESTORE, check_recipe

NAME = re.compile(r"\w[\w.-]*", re.ASCII)
"""Pattern of what can name a recipe, and the files that are written under its name."""


class MaterialError(Refusal, ValueError):
    """A folder that cannot be published; the message says what would be needed."""


@dataclass(frozen=True)
class Material:
    """A finished run and what was found about its weights."""

    folder: Path
    recipe: dict[str, Any]
    results: dict[str, Any]
    evaluations: tuple[dict[str, Any], ...]
    backbone: nn.Module
    """With the weights of the run, on the CPU."""
    checkpoint: Path | None
    """The newest whole one, where the training state is to be published."""
    half: bool = False
    """Keep its matrices and kernels as float16, to which they are rounded."""

    @property
    def name(self) -> str:
        """The recipe's."""
        return str(self.recipe["name"])

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the training images."""
        return fingerprint(self.results)

    @property
    def architecture(self) -> str:
        """The network's own name, which plain timm knows where it is timm's."""
        return Name.parse(str(self.recipe["model"])).arch

    @property
    def config(self) -> dict[str, Any]:
        """The config.json of the backbone in the run's folder."""
        return read_object(self.folder / "backbone" / "config.json", RESTORE, MaterialError)


def read_material(
    run: Path, evaluations: Sequence[Path] = (), with_state: bool = False, half: bool = False
) -> Material:
    """The run's files and those of its evaluations, once all are found to fit together; or MaterialError."""
    if not (run / "recipe.json").is_file():
        raise MaterialError(
            f"{run} is no run's folder, it holds no recipe.json: name one that ssl-backbones pretrain wrote"
        )
    if not (run / "results.json").is_file():
        raise MaterialError(f"the run in {run} is not finished, it holds no results.json: end it with its own command")
    recipe = read_object(run / "recipe.json", RESTORE, MaterialError, check=check_recipe)
    results = without_names(read_results(run / "results.json", ANEW, MaterialError))
    if "task" in recipe:
        raise MaterialError(
            f"{run} is a run of {results.get('protocol', 'an evaluation')}, and publish takes those of pretrain: share "
            f"its backbone, which timm loads as it is, by `hf upload ORG/NAME {run / 'backbone'}`"
        )
    if not NAME.fullmatch(recipe.get("name", "none")):
        raise MaterialError(
            f"the recipe in {run} is called {brief(repr(recipe['name']))}, which cannot name a file: {RESTORE}"
        )
    missing = sorted({"name", "model", "size"} - recipe.keys())
    if missing or "data" not in results:
        raise MaterialError(
            f"{run} was not written by ssl-backbones pretrain, it lacks {(missing or ['data'])[0]!r}: name another"
        )
    backbone = ssl_backbones.create_model(run, pretrained=True, num_classes=0).eval()
    if half:
        backbone = rounded(backbone)
    if broken := not_finite(backbone.state_dict()):
        raise MaterialError(
            f"the backbone in {run} holds numbers that are not finite, first in {broken[0]!r}: train it anew"
        )
    digest = weights_sha256(backbone)
    found = read_evaluations(evaluations, digest, givens(results))
    return Material(run, recipe, results, found, backbone, newest(run) if with_state else None, half)


def read_evaluations(paths: Sequence[Path], digest: str, given: Mapping[str, Provenance]) -> tuple[dict[str, Any], ...]:
    """The evaluations of these weights, of random ones and of what the run was given, in the order of their files."""
    known = {digest, *(network.sha256 for network in given.values())}
    found = [read_evaluation(path, digest, known) for path in paths]
    return tuple(sorted(found, key=lambda results: stem_of(results, given)))


def read_evaluation(path: Path, digest: str, known: Set[str]) -> dict[str, Any]:
    """The results in an evaluation's folder: of these weights, or, to compare with, of known others or random ones."""
    results = read_results(path / "results.json", ANEW, MaterialError)
    if not {"protocol", "numbers", "weights_sha256"} <= results.keys() or results["protocol"] == PRETRAINING:
        raise MaterialError(f"{path} holds no evaluation: name a folder that ssl-backbones evaluate or another wrote")
    if results["weights_sha256"] not in known and not is_random(results):
        raise MaterialError(
            f"the evaluation in {path} is of other weights ({str(results['weights_sha256'])[:12]} instead of "
            f"{digest[:12]}): evaluate the run's folder itself, or what it was given, or leave it out"
        )
    return dict(without_names(results))


def newest(run: Path) -> Path:
    """The newest checkpoint that is whole; a damaged one is not published."""
    why = "it holds no checkpoint"
    try:
        path, _ = newest_whole(run / "checkpoints")
    except CheckpointError as error:
        path, why = None, f"{error}"
    if path is None:
        raise MaterialError(f"the training state of {run} cannot be published ({why}): leave --with_state out")
    return path
