"""A pretraining run, from its recipe to its results."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from ssl_backbones.data import (
    Images,
    ImageSourceError,
    check_apart,
    classes_sentence,
    depth_sentence,
    open_images,
    opened_once,
    relabelled,
    require_batch,
    say_copies,
    unlabelled,
    validation_of,
)
from ssl_backbones.data.subset import Subset
from ssl_backbones.distributed import doing, first_decides, say
from ssl_backbones.hub.given import unsettled
from ssl_backbones.hub.trained import given_to
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import freeze_unused
from ssl_backbones.models.recomputing import recompute_activations
from ssl_backbones.recipes.channels import shown
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.ways_out import ways_out
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train import ending
from ssl_backbones.train.beginning import Beginning, begin
from ssl_backbones.train.cache import Caching, cached, resident
from ssl_backbones.train.channels import with_statistics
from ssl_backbones.train.claiming import check_unclaimed
from ssl_backbones.train.judge import Conclude, SaveResults
from ssl_backbones.train.live_page import live_page
from ssl_backbones.train.monitor import Monitor
from ssl_backbones.train.prepare import Begun, check_order, fitting, meet_for, prepare
from ssl_backbones.train.results import save_results
from ssl_backbones.train.run import complete
from ssl_backbones.train.settle import as_before, engine_of, settle, views_sentence
from ssl_backbones.train.step_memory import fitted
from ssl_backbones.train.switches import repeatable
from ssl_backbones.views import using_engine


def pretrain(recipe: Recipe) -> RunFolder:
    """Run a recipe to its end, from where it was left; return the folder with its results."""
    begun, save, conclude = start(recipe)
    with live_page(begun):
        return complete(begun, save, conclude)


def start(recipe: Recipe) -> tuple[Begun, SaveResults, Conclude]:
    """The run of a recipe, ready to go on from where it was left, what saves its results, and what ends it before."""
    device = meet_for(recipe)
    recipe = replace(recipe, method=shown(recipe.method, recipe))
    with fitting():
        beginning = begin(as_before(recipe))
        method = build(beginning, state=not beginning.recipe.derived)
        engine = engine_of(beginning.recipe, method)
    recipe = replace(beginning.recipe, engine=engine)
    say(views_sentence(recipe, method))
    recipe, images, validation = settled_on_data(recipe, device)
    beginning = replace(beginning, recipe=recipe)
    if recipe.derived or recipe.measured:
        with fitting():
            method = build(beginning)
    first_decides(lambda: check_unclaimed(recipe, images))
    with fitting():
        given = given_to(recipe, method)
    if reason := unsettled(given):
        say(f"warning: {reason}.")
    images, validation = kept_as_pixels(recipe, images, validation)
    images = resident(images, recipe, device)
    monitor = Monitor(images, validation, recipe.monitoring, recipe.seed)
    with using_engine(engine), repeatable():
        recipe = fitted(recipe, method, images, device)
        begun = prepare(recipe, method, images, monitor, device, beginning if recipe.init else None)
    return begun, partial(save_results, recipe, monitor), partial(ending.conclude, beginning, monitor)


def settled_on_data(recipe: Recipe, device: torch.device) -> tuple[Recipe, Images, Images | None]:
    """The recipe with no field open, the images to train on, enough for a batch, and those to ask about, if any."""
    with doing(f"Opening {recipe.data}", at_once=True):
        images, validation = open_data(recipe)
    recipe = with_statistics(recipe, images)
    with fitting():
        recipe = settle(recipe, images, device)
        recipe = replace(recipe, method=shown(recipe.method, recipe))
        require_batch(images, recipe.batch_size, ways_out(recipe, len(images)))
        check_order(recipe, images)
    return recipe, images, validation


def build(beginning: Beginning, state: bool = True) -> Method:
    """The recipe's method around its backbone, the same in every process; ValueError if the two do not fit.

    Whatever follows the backbone, as the target of BYOL, begins as the same network. Without `state` nothing is taken
    over of the start's method: its sizes may still be left to rules.
    """
    backbone, recipe = beginning.backbone(), beginning.recipe
    freeze_unused(backbone, recipe.smallest_side)
    method = recipe.method.build(backbone)
    if recipe.grad_checkpointing:
        recompute_activations(method.backbone)
    if state:
        beginning.take_over_state(method)
    return method


def open_data(recipe: Recipe) -> tuple[Images, Images | None]:
    """Open the images to train on and the labelled validation images, if any."""
    if not recipe.data:
        raise ImageSourceError(
            f"{recipe.name} was made for {recipe.promise.data} and has no data here: name a folder of images, parquet "
            "files or a Hub dataset with --data"
        )
    images = opened_once(lambda: open_images(recipe.data, recipe.decoding, keeping=recipe.blocks), recipe.verify)
    if recipe.labels == "none":
        images = unlabelled(images)
    elif sentence := classes_sentence(images):
        say(sentence)
    if dark := depth_sentence(images):
        say(dark)
    asked = opened_once(lambda: open_validation(recipe, images), recipe.verify)
    check_apart(recipe.folder, images, asked)
    images, validation = recipe.selection.of(images, asked)
    say_copies(validation, images)
    return images, validation


def kept_as_pixels(recipe: Recipe, images: Images, validation: Images | None) -> tuple[Images, Images | None]:
    """The same images out of the folder of pixels that the recipe names, decoded into it once; as they are if none."""
    how = Caching.of(recipe)
    if how is None:
        return images, validation
    images = cached(images, recipe.data, how, part_of(images))
    if validation is not None:
        validation = cached(validation, recipe.validation or recipe.data, how, f"-validation{part_of(validation)}")
    return images, validation


def part_of(images: Images) -> str:
    """A mark of a part of a source, for the name of its cache; empty for the whole."""
    return f"-{images.fingerprint_by_sizes[:8]}" if isinstance(images, Subset) else ""


def open_validation(recipe: Recipe, images: Images) -> Images | None:
    """Open the labelled validation images: those that the recipe names, or those beside the training images, if any."""
    if not recipe.validation:
        return validation_of(recipe.data, images, images.policy or recipe.decoding, recipe.blocks)
    validation = open_images(recipe.validation, images.policy or recipe.decoding, images.classes, recipe.blocks)
    return relabelled(validation, images.classes) if images.labels is not None else validation
