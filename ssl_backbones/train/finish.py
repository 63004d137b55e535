"""What a run leaves: the backbone, its results, a draft model card, and a picture of its maps where it has any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_backbones import recipes
from ssl_backbones.data import Batches, Request
from ssl_backbones.files import replacing, write_file
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.recipes.recipe import FREE, Recipe
from ssl_backbones.registry.photos import are_those
from ssl_backbones.runs.results import PRETRAINING, results_of, write_results
from ssl_backbones.runs.run_folder import differences
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.monitor import Measured
from ssl_backbones.visualizers import alignment_figure, alignment_maps
from ssl_backbones.visualizers.alignment import HasAlignmentMaps
from ssl_backbones.visualizers.look import Viewer
from ssl_backbones.visualizers.page import draw_page, run_section

PHOTOS = 6
"""In the picture of the maps."""
PICTURE_SCALE = 2
"""The photos of the picture are this many times larger than the views, for maps of a finer grid."""


def leave(loop: Loop, before: Measured, after: Measured) -> dict[str, Any]:
    """Write what the run leaves into its folder, and return the results."""
    recipe, folder = loop.recipe, loop.folder
    results = results_of_run(loop, before, after)
    crop = loop.evaluation_crop(recipe.size)
    save_backbone(
        loop.method.backbone,
        folder.backbone,
        architecture_of(recipe),
        input_size=(3, recipe.size, recipe.size),
        crop_pct=crop.crop_pct,
        interpolation=crop.interpolation,
        tag=earned_tag(recipe, results),
        description=description(recipe, results),
    )
    config = json.loads((folder.backbone / "config.json").read_text())
    draw_maps(loop)
    draw_gallery(loop, results)
    write_file(folder.path / "README.md", model_card(recipe.to_dict(), results, config).encode())
    write_results(folder.path, results)
    return results


def architecture_of(recipe: Recipe) -> str:
    """The network's own name: resnet50 of resnet50_lewel_b."""
    return recipe.model.partition("_")[0]


def altered(recipe: Recipe) -> dict[str, list[Any]]:
    """The fields in which a run differs from the recipe it is named after: that one's value, and the run's.

    Which photos it was is not a field's affair but their fingerprint's, which stands beside these.
    """
    free = {*FREE, "seed"}
    changed = (
        differences(recipes.get(recipe.name).to_dict(), recipe.to_dict()) if recipe.name in recipes.names() else {}
    )
    return {name: [old, new] for name, (old, new) in changed.items() if name.partition(".")[0] not in free}


def earned_tag(recipe: Recipe, results: dict[str, Any]) -> str | None:
    """The recipe's tag, where nothing of it was altered and the photos are known to be those it is written for."""
    own = are_those(recipe.promise.data, results["data"]["fingerprint"])
    return (recipe.name.partition(".")[2] or recipe.name) if own and not results["altered"] else None


def description(recipe: Recipe, results: dict[str, Any]) -> str:
    """The backbone in a sentence, as its config.json has it."""
    images = f"{results['data']['images']} images"
    if not are_those(recipe.promise.data, results["data"]["fingerprint"]):
        images += f", not known to be {recipe.promise.data},"
    changed = f", altered in {', '.join(results['altered'])}" if results["altered"] else ""
    return f"{recipe.model}, pretrained on {images} by the recipe {recipe.name}{changed}"


def results_of_run(loop: Loop, before: Measured, after: Measured) -> dict[str, Any]:
    """What was measured, on what and with what, as results.json has it."""
    recipe, monitor = loop.recipe, loop.monitor
    asked = (monitor.query_images, monitor.bank_images)
    return results_of(
        protocol=PRETRAINING,
        model=recipe.model,
        weights_sha256=weights_sha256(loop.method.backbone),
        data=loop.images,
        validation=next((images for images in asked if images not in (None, loop.images)), None),
        sources=(recipe.data, recipe.validation),
        numbers=monitor.numbers(before, after),
        seed=recipe.seed,
        device=loop.accelerator.device,
        precision=loop.compute.precision,
        layout=loop.compute.layout,
        more={
            "recipe": recipe.name,
            "altered": altered(recipe),
            "steps": loop.step,
            "epochs": recipe.epochs,
            "unreadable": sorted(loop.unreadable.photos),
            "unreadable_beside": sorted(
                key for account in loop.accounts.values() if account is not loop.unreadable for key in account.photos
            ),
            "best_checkpoint": loop.best,
            **monitor.about(after),
        },
    )


def draw_maps(loop: Loop) -> Path | None:
    """A picture of the alignment maps on the first photos, for a method that has such maps."""
    if not isinstance(loop.method, HasAlignmentMaps):
        return None
    crop = loop.evaluation_crop(PICTURE_SCALE * loop.recipe.size)
    asked = loop.monitor.query_images or loop.monitor.bank_images
    indices = np.linspace(0, len(asked) - 1, min(PHOTOS, len(asked)), dtype=int)
    levels = Batches(asked, crop, loop.recipe.seed)[Request(0, indices)].content
    maps = alignment_maps(loop.method, crop.on_device(levels.to(loop.accelerator.device)))
    path = loop.folder.path / "alignment_maps.png"
    figure = alignment_figure([Image.fromarray(photo) for photo in levels.numpy()], maps.float())
    with replacing(path) as file:
        figure.save(file, "PNG")
    return path


def draw_gallery(loop: Loop, results: dict[str, Any]) -> None:
    """The page of the run and of what its network looks at; where that fails, it is mentioned and nothing is lost."""
    recipe, folder = loop.recipe, loop.folder.path
    crop = loop.evaluation_crop(recipe.size)
    viewer = Viewer(recipe.name, loop.method, crop, loop.accelerator.device, recipe.seed)
    images = loop.monitor.query_images or loop.monitor.bank_images
    try:
        draw_page(folder / "gallery.html", viewer, images, opening=[run_section(folder, results)])
    except Exception as error:  # a picture is not worth a run, whatever is wrong with it
        loop.log.say(f"warning: gallery.html was not drawn, and all else is there ({type(error).__name__}: {error})")
