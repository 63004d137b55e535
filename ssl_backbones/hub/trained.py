"""The backbone that a run trains, as a folder that plain timm loads: at its end, or as it stands before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_backbones.catalogue.start import take_preparation
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.hub.given import bound_to, givens, unsettled
from ssl_backbones.methods.from_run import described, load, method_from_run, of_this_version
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import center_crop, fit_channels
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.models.teacher_branch import TeacherBranch
from ssl_backbones.recipes.facts import arch_of
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.values import to_plain


def save_published(method: Method, recipe: Recipe, folder: Path, **about: Any) -> Path:
    """Write the backbone that a method publishes, for images of its recipe's size, prepared as its backbone says.

    `about` is what `save_backbone` takes on where the weights come from. Return the folder; raises what it raises.
    """
    crop = center_crop(method.backbone, recipe.size, recipe.decoding.seen)
    return save_backbone(
        method.published,
        folder,
        arch_of(recipe),
        input_size=(recipe.decoding.seen, recipe.size, recipe.size),
        **crop.preparation,
        **about,
    )


def given_to(recipe: Recipe, method: Method) -> dict[str, Provenance]:
    """The networks that a run was given, by their part in it; opens its teacher, or raises TeacherError."""
    for part in method.modules():
        if isinstance(part, TeacherBranch):
            part.teacher.open(part.side_for(recipe.size))  # its licence is in its weights' description
    return givens({"start": to_plain(recipe.start), **method.account()})


def save_unfinished(run: Path, folder: Path) -> str:
    """Write the backbone of the newest whole checkpoint of a run, which may go on meanwhile; a sentence on it.

    Its licence is that which the run's start or teacher binds to, "unknown" where theirs is not known. Raises
    RunError for a run that cannot be read, and TeacherError where its teacher cannot be had.
    """
    method = method_from_run(run, trained=False)
    step = int(load(method, run).name.removeprefix("step-"))
    with of_this_version(run):
        recipe = Recipe.from_dict(described(run))
    if recipe.start is not None:
        take_preparation(method.backbone, recipe.start)
        fit_channels(method.backbone, recipe.in_chans, recipe.measured)
    given = given_to(recipe, method)
    description = f"{recipe.model} after step {step} of a run that was not finished, by the recipe {recipe.name}"
    description += f"; {unsettled(given)}" if unsettled(given) else ""
    save_published(method, recipe, folder, license=bound_to(given), description=description)
    return description
