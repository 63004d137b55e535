"""Show what a network has learned, on one page that needs nothing else.

Examples:
    ssl-backbones visualize runs/mine --data photos --out gallery
    ssl-backbones visualize resnet50_swav.in1k_800ep --data photos --out gallery --pdf
    ssl-backbones visualize runs/mine --beside results/finetune --data photos --out gallery

Leaves index.html and the figures of the papers; with --beside also figures/networks.png: the features of the same
images by the network with random weights, by the network, and by each of the others, such as it is after fine-tuning.
MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run, which also tells of its curves
and its maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ssl_backbones.checks import check_at_least, check_seed
from ssl_backbones.data import ImageSourceError, check_apart, open_images
from ssl_backbones.data.decode import MAX_PIXELS, DecodePolicy
from ssl_backbones.evaluate.model import open_model, usual_device
from ssl_backbones.files import make_folder
from ssl_backbones.hub.run_name import run_name
from ssl_backbones.methods.from_run import method_with_heads
from ssl_backbones.models.backbone import center_crop
from ssl_backbones.outputs import OutputError, is_free, together
from ssl_backbones.registry.names import without_place
from ssl_backbones.typed.words import Positional
from ssl_backbones.visualizers import (
    HasAlignmentMaps,
    Panels,
    Projection,
    Scatter,
    alignment_figure,
    alignment_maps,
    alignment_panels,
    embed_2d,
    neighbour_sheet,
    save_figure,
    scatter_figure,
    scatter_panels,
    thumbnail_map,
    view_panels,
)
from ssl_backbones.visualizers.embedding import FEWEST
from ssl_backbones.visualizers.figures import save_image
from ssl_backbones.visualizers.gallery import Section
from ssl_backbones.visualizers.page import agreement, draw_page, usual_projection
from ssl_backbones.visualizers.page_images import PageImages, Viewer, magnified, seen_by, task_views, view_pairs
from ssl_backbones.visualizers.run_section import (
    recorded_recipe,
    recorded_results,
    run_section,
    tuned_sections,
    verdict_sections,
)

PRINTED = 6
"""Images in a figure of rows."""
FIGURES = ("views", "alignment_of_views", "alignment", "neighbours", "features", "networks")
"""Names of figures: those that another network left, and this one does not draw, are deleted."""
KINDS = ("png", "pdf")


@dataclass(frozen=True)
class Options:
    """The model, the images, and what is shown of them."""

    model: Positional[str]
    """A registered name, a timm name, hf-hub:org/name, or the folder of a run."""
    data: str
    """A folder of images, parquet files, tar shards, or a Hub dataset id; labels are optional."""
    out: Path
    """The folder to write, such as gallery/."""
    size: int | None = None
    """Side of an image for its features, in pixels; maps are made at twice that. Default: the model's own."""
    count: int = 24
    """Images on the page."""
    bank: int = 300
    """Images to search for neighbours, and on the map of features."""
    map: Projection | None = None
    """Projection for the map of features. Default: t-SNE where scikit-learn is installed."""
    pdf: bool = False
    """Also write the figures as PDF; needs matplotlib."""
    random: bool = False
    """Use random weights instead of the model's."""
    beside: tuple[str, ...] = ()
    """Other models whose features are shown beside the model's and those of random weights."""
    overwrite: bool = False
    """Replace a page that is in the folder already."""
    max_pixels: int = MAX_PIXELS
    """Largest image, in pixels; a larger one is skipped as unreadable."""
    seed: int = 0
    """Random seed for the map, views and random weights."""

    def __post_init__(self) -> None:
        check_at_least(self, size=8, count=1, bank=1, max_pixels=1)
        check_seed("seed", self.seed)


def run(options: Options) -> None:
    """Make the page, and say where it lies."""
    print(summary(visualize(options)))


def visualize(options: Options) -> list[Path]:
    """The files left in the folder that is asked for, the page first."""
    if options.pdf or options.beside:
        scatter_figure(torch.zeros(1, 2).numpy())  # MissingExtraError before there is work to lose
    source = open_images(options.data, DecodePolicy(options.max_pixels))
    check_apart(options.out, source)
    claim_out(options)
    viewer = viewer_of(options)
    others = [viewer_of(replace(options, model=other, random=False)) for other in options.beside]
    projection = options.map or usual_projection()
    page = options.out / "index.html"
    with together([page]), none_after_failure(options.out / "figures"):
        images = draw_page(
            page,
            viewer,
            source,
            count=options.count,
            bank=options.bank,
            opening=opening_of(Path(options.model)) if options.model else [],
            projection=projection,
        )
        if options.beside and len(images.indices) < FEWEST:
            raise ImageSourceError(
                f"{len(images.indices)} images are too few to lay out: --beside needs {FEWEST} or more"
            )
        drawn = [page, *draw_figures(options, viewer, images, projection)]
        drawn += draw_networks(options, [viewer, *others], images, projection)
        for path in {options.out / "figures" / f"{name}.{kind}" for name in FIGURES for kind in KINDS} - {*drawn}:
            path.unlink(missing_ok=True)
        return drawn


@contextmanager
def none_after_failure(folder: Path) -> Iterator[None]:
    """Context manager: where the block fails, delete the files that it left in a folder."""
    known = {*folder.iterdir()}
    try:
        yield
    except BaseException:
        for path in {*folder.iterdir()} - known:
            path.unlink()
        raise


def opening_of(run: Path) -> list[Section]:
    """The verdict on a run, if it has one, and its curves; of a training with labels, its results."""
    if is_run(str(run)):
        return [*verdict_sections(recorded_results(run)), run_section(run)]
    return tuned_sections(recorded_results(run), run) if (run / "backbone").is_dir() else []


def claim_out(options: Options) -> None:
    """Make the folder; OutputError where that fails, or a page lies there that nobody said to replace."""
    page, figures = options.out / "index.html", options.out / "figures"
    others = sorted(figures.iterdir()) if figures.is_dir() and not page.exists() else []  # no page of ours drew them
    taken = next((path for path in (page, *others) if not is_free(path)), None)
    if taken and not options.overwrite:
        raise OutputError(f"{taken} exists: choose another folder with --out, or replace it with --overwrite")
    try:
        make_folder(options.out / "figures")
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written to ({error.strerror}): choose another --out") from error


def is_run(model: str) -> bool:
    """True for a model that is named by the folder of a pretraining run."""
    return bool(model) and "method" in recorded_recipe(Path(model))


def viewer_of(options: Options) -> Viewer:
    """The method of a run with its heads where they are there to be had, or the backbone."""
    folder, name, device = Path(options.model), without_place(options.model), usual_device()
    recipe = recorded_recipe(folder) if is_run(options.model) else {}
    network: nn.Module
    method = method_with_heads(folder, trained=not options.random, seed=options.seed) if recipe else None
    if method is not None:
        network, crop = method.to(device), center_crop(method.backbone, options.size or recipe.get("size"))
    else:
        found = open_model(options.model, device, size=options.size, random=options.random, seed=options.seed)
        network, crop = found.network, found.crop
    name = run_name(recipe, recorded_results(folder)) if recipe else name
    return Viewer(f"{name} with random weights" if options.random else name, network, crop, device, options.seed)


def draw_figures(options: Options, viewer: Viewer, images: PageImages, projection: Projection) -> Iterator[Path]:
    """The figures of the papers and a sheet of neighbours, each as it is made."""
    save = partial(saved, options.out / "figures", options.pdf)
    chosen = images.some(min(PRINTED, options.count))
    views = task_views(viewer, images, chosen[0])
    if views:
        large = [view.resize((144, 144), Image.Resampling.BICUBIC) for view in views.pictures]
        yield from save("views", view_panels(large, views.heats, views.titles, [f"as {told}" for told in views.told]))
    pairs = view_pairs(viewer, images, chosen) if isinstance(viewer.model, HasAlignmentMaps) else None
    if pairs:
        yield from save("alignment_of_views", alignment_panels(*pairs))
    if isinstance(viewer.model, HasAlignmentMaps):
        maps = alignment_maps(viewer.model, magnified(viewer, images, chosen)).float()
        figure = alignment_figure([images.shown[at] for at in chosen], maps)
        yield written(options.out / "figures" / "alignment.png", figure)
    if len(images.indices) > 1:
        k = min(8, len(images.indices) - 1)
        sheet = neighbour_sheet(images.shown, images.features, chosen, k=k)
        yield written(options.out / "figures" / "neighbours.png", sheet)
    if len(images.indices) >= FEWEST:
        places = embed_2d(torch.nn.functional.normalize(images.features, dim=1), projection, seed=options.seed).places
        drawn = thumbnail_map(images.shown, places, images.labels, images.source.classes)
        yield written(options.out / "figures" / "features.png", drawn)
        if options.pdf:
            figure = scatter_figure(places, images.labels, images.source.classes, title=viewer.name)
            yield written(options.out / "figures" / "features.pdf", figure)


def draw_networks(
    options: Options, viewers: Sequence[Viewer], images: PageImages, projection: Projection
) -> Iterator[Path]:
    """The features of the images by several networks side by side, the first with random weights before all others."""
    if not options.beside:
        return
    drawn = [] if options.random else [viewer_of(replace(options, random=True))]
    panels = []
    for network in [*drawn, *viewers]:
        seen = images if network is viewers[0] else seen_by(network, images)
        found = embed_2d(torch.nn.functional.normalize(seen.features, dim=1), projection, seed=options.seed)
        told = [f"{name.lower()}: {value}" for name, value in agreement(seen).items()][:1]
        panels.append(Scatter(found.places, network.name, "".join(told)))
    figure = scatter_panels(panels, images.labels, images.source.classes, width=4.0)
    for kind in KINDS if options.pdf else KINDS[:1]:
        yield written(options.out / "figures" / f"networks.{kind}", figure)


def saved(folder: Path, pdf: bool, name: str, panels: Panels) -> Iterator[Path]:
    """A figure as PNG, and as PDF where that is asked for."""
    yield written(folder / f"{name}.png", panels.picture())
    if pdf:
        yield written(folder / f"{name}.pdf", panels.figure())


def written(path: Path, drawn: Any) -> Path:
    """The path, once an image or a matplotlib Figure is saved there."""
    save = save_image if isinstance(drawn, Image.Image) else save_figure
    save(drawn, path)
    return path


def summary(files: Sequence[Path]) -> str:
    """The sentence that tells which files were written."""
    page, *others = files
    size = page.stat().st_size / 1e6
    beside = ", ".join(str(path.relative_to(page.parent)) for path in others)
    return f"Open {page} ({size:.1f} MB, complete in itself). Beside it: {beside}."
