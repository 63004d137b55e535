"""The results of a pretraining run: the backbone, what was measured, a draft of its card, and figures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ssl_backbones import recipes
from ssl_backbones.data import Batches, Request
from ssl_backbones.data.digests import spread
from ssl_backbones.files import UnwritableError, read_object, write_file
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.given import bound_to, givens, unsettled
from ssl_backbones.hub.run_name import run_name
from ssl_backbones.hub.trained import save_published
from ssl_backbones.models.backbone import center_crop, weights_sha256
from ssl_backbones.narrator import as_time
from ssl_backbones.recipes.recipe import FREE, Recipe
from ssl_backbones.registry.image_sets import are_those
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import learns_from_labels
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.results import LEARNED, PRETRAINING, as_points, as_share, percent, results_of, write_results
from ssl_backbones.runs.run_folder import RunFolder, differences
from ssl_backbones.runs.verdict import sentences
from ssl_backbones.train.judge import Trained
from ssl_backbones.train.monitor import Monitor
from ssl_backbones.typed.values import to_plain
from ssl_backbones.views.channel_image import picture
from ssl_backbones.visualizers import alignment_figure, alignment_maps
from ssl_backbones.visualizers.alignment import HasAlignmentMaps
from ssl_backbones.visualizers.figures import save_image
from ssl_backbones.visualizers.gallery import gallery
from ssl_backbones.visualizers.page import draw_page
from ssl_backbones.visualizers.page_images import Viewer
from ssl_backbones.visualizers.run_section import run_section, verdict_sections

IMAGES = 6
"""In the picture of the maps."""
PICTURE_SCALE = 2
"""The images of the picture are this many times larger than the views, for maps of a finer grid."""


def save_results(recipe: Recipe, monitor: Monitor, trained: Trained) -> str:
    """Write the backbone, its figures, its draft card and results.json into the run's folder; return the summary."""
    folder = trained.folder
    results = results_of_run(recipe, monitor, trained)
    save_published(
        trained.method,
        recipe,
        folder.backbone,
        license=bound_to(givens(results)),
        tag=earned_tag(recipe, results),
        description=description(recipe, results),
    )
    recipe.selection.save(folder.path, monitor.asked_images)
    config = read_object(folder.backbone / "config.json", "start the same command again")
    draw_maps(recipe, monitor, trained)
    draw_gallery(recipe, monitor, trained, results)
    write_file(folder.path / "README.md", model_card(recipe.to_dict(), results, config).encode())
    write_results(folder.path, results)
    return summary(results, folder)


def summary(results: dict[str, Any], folder: RunFolder) -> str:
    """The results in a few lines, for a person."""
    lines, numbers = [], results["numbers"]
    if "knn" in numbers:
        before, after, gain = (numbers[name] for name in ("knn before", "knn", "knn gain"))
        random, over = numbers.get("knn random"), numbers.get("knn gain over random")
        began = "the backbone before training" if random is None else "the start"
        lines += [
            f"k-NN accuracy ({after['of']} queries, {results['kind']}, k={after['k']}):",
            f"  chance (the most frequent class)  {percent(results['chance'])} %",
            *([] if random is None else [f"  random weights                    {as_share(random)}"]),
            f"  {began:<32}  {as_share(before)}",
            f"  the backbone after training       {as_share(after)}",
            f"  gain, over the same images        {as_points(gain)}",
            *([] if over is None else [f"  gain over random weights          {as_points(over)}"]),
        ]
    rank_before, rank = (numbers[name]["value"] for name in ("rank before", "rank"))
    files = sorted(path.name for path in folder.path.iterdir() if not path.name.startswith("."))
    lines += [
        f"Effective rank of the features: {rank_before:.1f} before, {rank:.1f} after",
        f"Trained and measured for {as_time(results['seconds'])}",
        *(f"Verdict: {sentence}" for sentence in results["verdict"]),
        f"Left in {folder.path}: {', '.join(files)}",
        f'Load it: ssl_backbones.create_model("{folder.path}", pretrained=True)',
    ]
    return "\n".join(lines)


def altered(recipe: Recipe) -> dict[str, list[Any]]:
    """The fields in which a run differs from the recipe it is named after: that one's value, and the run's.

    The data path and the classes taken are left out: data are compared by fingerprint; and so are fields that the
    recipe leaves to rules, the engine, which stands on its own, and what makes a run repeatable.
    """
    free = {*FREE, "seed", "engine", "classes", "deterministic"}
    named = recipes.get(recipe.name) if recipe.name in recipes.names() else recipe
    plain, ours = (replace(run, accumulation=run.parts).to_dict() for run in (named, recipe))
    changed = differences(plain, ours)
    return {
        name: [old, new]
        for name, (old, new) in changed.items()
        if name.partition(".")[0] not in free and not any(f"{name}.".startswith(f"{left}.") for left in recipe.derived)
    }


def earned_tag(recipe: Recipe, results: dict[str, Any]) -> str | None:
    """The recipe's tag, where nothing of it was altered and the images are known to be those it is written for."""
    own = are_those(recipe.promise.data, results["data"]["fingerprint"])
    return (Name.parse(recipe.name).tag or recipe.name) if own and not results["altered"] else None


def description(recipe: Recipe, results: dict[str, Any]) -> str:
    """The backbone in a sentence, as its config.json has it."""
    images = f"{results['data']['images']} images"
    if not are_those(recipe.promise.data, results["data"]["fingerprint"]):
        images += f", not known to be {recipe.promise.data},"
    start = f", begun with {recipe.start.shown}" if recipe.start else ""
    changed = f", altered in {', '.join(results['altered'])}" if results["altered"] else ""
    open_terms = f"; {reason}" if (reason := unsettled(givens(results))) else ""
    return f"{recipe.model}, pretrained on {images} by the recipe {recipe.name}{start}{changed}{open_terms}"


def results_of_run(recipe: Recipe, monitor: Monitor, trained: Trained) -> dict[str, Any]:
    """The content of results.json: what was measured, on what and with what."""
    assert trained.before is not None
    asked = (monitor.query_images, monitor.bank_images)
    learned = learns_from_labels(recipe.method.name, to_plain(recipe.method))
    results = results_of(
        protocol=PRETRAINING,
        model=recipe.model,
        weights_sha256=weights_sha256(trained.method.published),
        data=trained.images,
        validation=next((images for images in asked if images not in (None, trained.images)), None),
        sources=(recipe.data, recipe.validation),
        numbers=monitor.numbers(trained.before, trained.after, trained.random),
        seed=recipe.seed,
        device=trained.device,
        precision=trained.compute.precision,
        layout=trained.compute.layout,
        more={
            "recipe": recipe.name,
            "altered": altered(recipe),
            "steps": trained.steps,
            "epochs": recipe.epochs,
            "engine": recipe.engine,
            "seconds": round(trained.log.seconds, 1),
            **({"start": to_plain(recipe.start)} if recipe.start else {}),
            **trained.method.account(),
            **recipe.selection.account(trained.images, monitor.asked_images),
            "unreadable": trained.unreadable,
            "unreadable_beside": trained.unreadable_elsewhere,
            "best_checkpoint": trained.best,
            **monitor.about(trained.after),
            **({LEARNED: True} if monitor.query_images is None and learned else {}),
            **({} if monitor.baselines is None else {"baselines": monitor.baselines}),
            "trend": monitor.trend(asked_of(trained), trained.after),
        },
    )
    return results | {"verdict": sentences(results)}


def asked_of(trained: Trained) -> list[dict[str, Any]]:
    """The lines of a run's log that answer the question of its last measurement."""
    return [line for line in read_log(trained.folder.log) if line["step"] > trained.asked_since]


def draw_maps(recipe: Recipe, monitor: Monitor, trained: Trained) -> None:
    """Draw the alignment maps on images spread over all, for a method that has such maps."""
    if not isinstance(trained.method, HasAlignmentMaps):
        return
    crop = center_crop(trained.method.backbone, PICTURE_SCALE * recipe.size, recipe.decoding.seen)
    asked = monitor.asked_images
    indices = np.array(spread(len(asked), IMAGES))
    levels = Batches(asked, crop, recipe.seed)[Request(0, indices)].content
    maps = alignment_maps(trained.method, crop.on_device(levels.to(trained.device)))
    figure = alignment_figure([picture(image) for image in levels.numpy()], maps.float())
    save_image(figure, trained.folder.path / "alignment_maps.png")


def draw_gallery(recipe: Recipe, monitor: Monitor, trained: Trained, results: dict[str, Any]) -> None:
    """Draw the page of the run and of what its network looks at; a failure is mentioned, and nothing else is lost."""
    folder = trained.folder.path
    crop = center_crop(trained.method.backbone, recipe.size, recipe.decoding.seen)
    viewer = Viewer(run_name(recipe.to_dict(), results), trained.method, crop, trained.device, recipe.seed)
    opening = [*verdict_sections(results), run_section(folder, results)]
    try:
        draw_page(folder / "gallery.html", viewer, monitor.asked_images, opening=opening)
    except UnwritableError:  # all else would not be written either, and the same command draws it again
        raise
    except Exception as error:  # a picture is not worth a run, whatever is wrong with it
        trained.log.say(f"warning: the images of gallery.html were not drawn, and all else is there ({error!r})")
        with suppress(Exception):  # in place of the page of a run that still trains
            write_file(folder / "gallery.html", gallery(viewer.name, "Its images were not drawn.", opening).encode())
