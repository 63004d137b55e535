"""The claim of a run's folder: what may differ from the run that was there before, and the images that both are of."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.distributed import first_decides, rank
from ssl_backbones.files import read_object
from ssl_backbones.recipes.recipe import FREE, Recipe, Run
from ssl_backbones.recipes.rules import OF_LENGTH
from ssl_backbones.runs.manifest import last_step, manifests
from ssl_backbones.runs.results import read_results
from ssl_backbones.runs.run_folder import (
    RunFolder,
    RunFolderError,
    as_recorded,
    changed_fields,
    check_free,
    claim,
)
from ssl_backbones.train.parts import PARTS, may_differ
from ssl_backbones.train.saved_state import Scalars
from ssl_backbones.typed.values import check_form

OF_THE_START = frozenset({"start", "measured"})
"""Free fields that the weights before the first step follow from: until one was made, others begin a run anew."""
CUT = "max_steps"
"""The field that ends a run early, which is then the beginning of the whole one."""


def check_unclaimed(run: Run, images: Images) -> None:
    """Refuse a folder that `claimed` would refuse, as far as that is known, before anything is made for the run.

    Parts of a batch may still be open. ImageSourceError for other images than those of the folder's last checkpoint.
    """
    check_fields(run)
    there = RunFolder(run.folder)
    newest = next(manifests(there.checkpoints), None)
    if newest is None or not there.has_trained:
        return
    try:
        check_form(Scalars, newest["scalars"])
    except ValueError:
        return  # the state is refused when it is taken up, with the reason
    check_data(images, *trained_on(newest["scalars"]), there)


def check_fields(run: Run) -> None:
    """RunFolderError for a folder of another recipe's run, and for one that is trained beyond the end of this run."""
    there = RunFolder(run.folder)
    free = FREE | {PARTS} | may_be_cut(run, there)
    onward = go_on_from(run, there, free)
    check_free(run.folder, run.to_dict(), may_differ=free, complete=run.completed, instead=onward)
    saved = last_step(there.checkpoints)
    if CUT in free and 0 < run.max_steps < saved:
        raise RunFolderError(
            f"{there.path} is trained up to step {saved}, and a run of {run.max_steps} steps would end before: end it "
            f"there with --max_steps {saved}, or choose another folder with --out"
        )


def go_on_from(run: Run, there: RunFolder, free: Collection[str]) -> str:
    """The way to train a finished run for longer, for an error message; empty where more than its length differs."""
    if not (isinstance(run, Recipe) and there.results.exists() and there.recipe.exists()):
        return ""
    others = changed_fields(there, as_recorded(run.to_dict()), {*free, *OF_LENGTH}, run.completed)
    return "" if others else f", or go on from its end: --init {shlex.quote(str(there.path))} --with_state --out NEW"


def may_be_cut(run: Run, there: RunFolder) -> set[str]:
    """The field that a run which goes on may end earlier or later by; none for one that is finished."""
    return {CUT} if isinstance(run, Recipe) and last_step(there.checkpoints) and not there.results.exists() else set()


def claimed(run: Run) -> RunFolder:
    """Claim the run's folder for all processes; the first one alone holds the lock."""

    def claim_it() -> RunFolder:
        check_fields(run)
        there = RunFolder(run.folder)
        free = FREE if there.has_trained else FREE - OF_THE_START
        free |= may_be_cut(run, there) | ({PARTS} if may_differ(there, run.parts) else set())
        return claim(run.folder, run.to_dict(), may_differ=free, complete=run.completed)

    folder = first_decides(claim_it)
    return folder if rank() == 0 else RunFolder(folder.path, folder.resumed)


def recipe_there(recipe: Recipe) -> Recipe | None:
    """The recipe of the run in a recipe's folder; None where there is none that has trained, or none can be read.

    Such a folder is refused when it is claimed, with the reason.
    """
    folder = RunFolder(recipe.folder)
    if not (folder.recipe.exists() and folder.has_trained):
        return None
    with suppress(ValueError):
        return Recipe.from_dict(recipe.completed(read_object(folder.recipe, "restore it", ValueError)))
    return None


def finished_with(folder: RunFolder) -> tuple[str, int]:
    """The fingerprint and number of a finished run's images; RunFolderError where its results cannot be read."""
    way_out = "delete it and start the same command again, which writes it anew"
    found = read_results(folder.results, way_out, RunFolderError)
    try:
        return str(found["data"]["fingerprint"]), found["data"].get("images", 0)
    except (AttributeError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder.results} does not tell the images it is of: {way_out}") from error


def trained_on(scalars: Mapping[str, Any]) -> tuple[str, int]:
    """The fingerprint and number of the images that the plain values of a checkpoint name."""
    fingerprint = scalars["images"]
    return fingerprint, scalars["unreadable"].get(fingerprint, {}).get("total", 0)


def check_data(images: Images, fingerprint: str, count: int, folder: RunFolder) -> None:
    """Raise ImageSourceError for other images than those the run began with; their number is 0 where nobody knows."""
    if not images.known_as(fingerprint):
        raise ImageSourceError(
            f"the images are not those that the run in {folder.path} began with ({len(images)} images of fingerprint "
            f"{images.fingerprint[:12]} instead of {count or 'some'} images of fingerprint {fingerprint[:12]}): give "
            "it the same data, or begin another run with --out"
        )
