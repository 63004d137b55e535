"""The page of a network: how it was trained, where it looks, which images it takes for alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.data import Images
from ssl_backbones.distributed import doing
from ssl_backbones.files import write_file
from ssl_backbones.visualizers.activation_maps import feature_norm, principal_component
from ssl_backbones.visualizers.alignment import HasAlignmentMaps, alignment_maps, most_distinct
from ssl_backbones.visualizers.embedding import FEWEST, Projection, embed_2d
from ssl_backbones.visualizers.figures import alignment_panels
from ssl_backbones.visualizers.gallery import Picture, Section, Strip, gallery
from ssl_backbones.visualizers.grad_cam import grad_cam
from ssl_backbones.visualizers.neighbours import nearest
from ssl_backbones.visualizers.overlay import overlay, stretched
from ssl_backbones.visualizers.page_images import (
    SIDE,
    PageImages,
    Viewer,
    magnified,
    read_page_images,
    task_views,
    view_pairs,
)
from ssl_backbones.visualizers.similarity import similarity_map
from ssl_backbones.visualizers.thumbnails import legend_names, mark_picture, thumbnails

NEIGHBOURS = 5
MAPS = 5
"""Alignment maps shown of an image."""
VIEWED = 3
"""Images shown in all their views."""
ENLARGED = 56
"""Side of an image on the map of features, in pixels, where the reader enlarges it."""


def usual_projection() -> Projection:
    """t-SNE where scikit-learn is installed, principal components otherwise."""
    return "tsne" if find_spec("sklearn") else "pca"


def draw_page(
    path: Path,
    viewer: Viewer,
    source: Images,
    *,
    count: int = 12,
    bank: int = 200,
    opening: Sequence[Section] = (),
    projection: Projection | None = None,
) -> PageImages:
    """Write the page of a network on some images, after the sections it opens with; the images as they were read.

    `count` images are shown, out of `bank` that neighbours are sought among and that the map of features holds.
    """
    with doing(f"Reading {min(len(source), max(count, bank))} images for the page"):
        images = read_page_images(viewer, source, max(count, bank))
    chosen = images.some(count)
    sections = [*opening, cam_section(viewer, images, chosen), *alignment_sections(viewer, images, chosen)]
    sections += view_sections(viewer, images, chosen[:VIEWED])
    if len(images.indices) > 1:
        sections.append(neighbour_section(images, chosen))
        sections.append(similarity_section(viewer, images, chosen[:VIEWED]))
    if len(images.indices) >= FEWEST:
        sections.append(map_section(images, projection or usual_projection(), viewer.seed))
    skipped = f" {images.unreadable} more could not be read." if images.unreadable else ""
    lead = f"Where this network looks, and which images it finds similar, on {counted(images)}.{skipped}"
    write_file(path, gallery(viewer.name, lead, sections).encode())
    return images


def cam_section(viewer: Viewer, images: PageImages, chosen: Sequence[int]) -> Section:
    """Maps that need no classes."""
    batch = magnified(viewer, images, list(chosen))
    kinds: dict[str, Callable[..., Tensor]] = {
        "GradCAM": grad_cam,
        "norm": feature_norm,
        "component": principal_component,
    }
    maps = {name: make(viewer.backbone, batch).float().cpu().numpy() for name, make in kinds.items()}
    strips = [
        strip(images, at, image(images, at), *(heat(images, at, maps[name][row], name, name) for name in kinds))
        for row, at in enumerate(chosen)
    ]
    about = (
        "GradCAM is made without classes: it shows which places agree with the embedding of the whole image. The norm "
        "shows how strongly the last layer answers, the component (the principal one) where it varies most."
    )
    return Section("Where the network looks", about, strips=strips, scale=True)


def alignment_sections(viewer: Viewer, images: PageImages, chosen: Sequence[int]) -> list[Section]:
    """The method's own maps on each image, and on two views of some; empty for a method without maps."""
    if not isinstance(viewer.model, HasAlignmentMaps):
        return []
    maps = alignment_maps(viewer.model, magnified(viewer, images, list(chosen))).float().cpu().numpy()
    columns, heats = most_distinct(maps, min(MAPS, maps.shape[1])), stretched(maps)
    strips = [
        strip(
            images,
            at,
            image(images, at),
            *(heat(images, at, heats[row, index], f"Alignment map {index}", f"map {index}") for index in columns),
        )
        for row, at in enumerate(chosen)
    ]
    about = (
        f"The {len(columns)} most distinct of the {maps.shape[1]} maps by which the method aligns two views, the same "
        "ones on every image, each stretched to its own range."
    )
    found = [Section("Alignment maps", about, strips=strips, scale=True)]
    pairs = view_pairs(viewer, images, list(chosen[:VIEWED]))
    if pairs:
        panels = alignment_panels(*pairs, k=3, side=SIDE)
        strips = []
        for at, row in zip(chosen, panels.rows, strict=False):
            told = zip(row, panels.titles, strict=True)
            strips.append(strip(images, at, *(Picture(panel, f"{t}, {images.name(at)}", t) for panel, t in told)))
        about = "Two augmented views of an image, and maps on both: does a map find the same thing again?"
        found.append(Section("The same maps on two views", about, strips=strips, scale=True, wide=True))
    return found


def counted(images: PageImages) -> str:
    """The number of the images, and how they were chosen where they are not all."""
    count, total = len(images.indices), len(images.source)
    return f"{count} images" if count + images.unreadable == total else f"{count} of {total} images, evenly spaced"


def view_sections(viewer: Viewer, images: PageImages, chosen: Sequence[int]) -> list[Section]:
    """Turned views of some images, each with its map; empty for a network that does not learn by turns."""
    strips = []
    for at in chosen:
        views = task_views(viewer, images, at)
        if views is None:
            return []
        larger = [view.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for view in views.pictures]
        pictures = [
            Picture(
                stacked(view, painted(view, found)),
                heat_alt(f"GradCAM of the view {title}", found),
                f"{title}: taken for {told}",
            )
            for view, found, title, told in zip(larger, views.heats, views.titles, views.told, strict=True)
        ]
        strips.append(strip(images, at, *pictures))
    about = (
        "The views that the method tells apart. Each map shows what speaks for the own turn of a view, and below it "
        "stands what the head of the method takes it for."
    )
    return [Section("Turned views", about, strips=strips, scale=True, wide=True)]


def neighbour_section(images: PageImages, chosen: Sequence[int]) -> Section:
    """The images that lie nearest to some."""
    found, cosines = nearest(images.features, chosen, min(NEIGHBOURS, len(images.indices) - 1))
    strips = [
        strip(
            images,
            at,
            image(images, at),
            *(image(images, other, joined(f"{near:.2f}", images.class_of(other))) for other, near in pairs),
        )
        for at, pairs in zip(chosen, map(zip, found.tolist(), cosines.tolist()), strict=True)
    ]
    about = "The images nearest to each by the cosine of their features, the nearest first; the number is the cosine."
    facts = agreement(images) | {
        "Cosine of two images drawn at random, on average": f"{mean_cosine(images.features):.2f}"
    }
    return Section("Nearest neighbours", about, facts=facts, strips=strips)


def mean_cosine(features: Tensor) -> float:
    """The mean cosine similarity of two different rows among features (N, D)."""
    count, whole = len(features), normalize(features.double(), dim=1).sum(0)
    return float((whole @ whole - count) / (count * (count - 1)))


def similarity_section(viewer: Viewer, images: PageImages, chosen: Sequence[int]) -> Section:
    """Maps, on each of two images that lie close together, of the places that are like the other."""
    found = nearest(images.features, chosen, 1)[0][:, 0].tolist()
    ones, others = (magnified(viewer, images, list(rows)) for rows in (chosen, found))
    heats = [similarity_map(viewer.backbone, *pair).float().cpu().numpy() for pair in ((ones, others), (others, ones))]
    strips = []
    for row, (one, other) in enumerate(zip(chosen, found, strict=True)):
        pictures = []
        for at, values in ((one, heats[0][row]), (other, heats[1][row])):
            pictures.append(image(images, at, images.class_of(at) or "image"))
            pictures.append(heat(images, at, values, "Similarity to the other image", "like the other"))
        strips.append(strip(images, one, *pictures))
    about = (
        "An image and the nearest to it: the map on each is the cosine of its places to the whole of the other, from 0 "
        "to 1 and not stretched, so that maps can be compared."
    )
    return Section("Where two images are alike", about, strips=strips, scale=True)


def agreement(images: PageImages) -> dict[str, str]:
    """The share of images whose nearest is of their class, beside that of a random one; empty without labels."""
    labels = images.labels
    known = np.flatnonzero(labels >= 0) if labels is not None else np.array([], int)
    if labels is None or len(np.unique(labels[known])) < 2:
        return {}
    first = nearest(images.features[known], range(len(known)), 1)[0][:, 0]
    _, counts = np.unique(labels[known], return_counts=True)
    by_chance = (counts * (counts - 1)).sum() / (len(known) * (len(known) - 1))
    return {
        "Nearest image of the same class": f"{(labels[known][first] == labels[known]).mean():.1%} of {len(known)}",
        "An image drawn at random": f"{by_chance:.1%}",
    }


def map_section(images: PageImages, projection: Projection, seed: int) -> Section:
    """All the images at the places of their features."""
    embedded = embed_2d(normalize(images.features, dim=1), projection, seed=seed)
    count = len(images.indices)
    called = {"pca": "principal components", "tsne": "t-SNE", "umap": "UMAP"}[projection]
    about = (
        f"The features of {count} images on a plane by {called}. An image lies in the free cell nearest to its place; "
        "one without such a cell is a mark alone. Distances across the whole picture mean little."
    )
    told = f"{embedded.trustworthiness:.3f}, where 1 is perfect and about 0.5 is chance"
    return Section(
        "Map of features",
        about,
        facts={f"Trustworthiness ({embedded.neighbours} neighbours)": told},
        picture=Picture(
            thumbnails(images.shown, embedded.places, images.labels, side=ENLARGED),
            f"{count} images on a plane, alike ones close together",
        ),
        legend=[
            (mark_picture(number), name)
            for number, name in enumerate(legend_names(images.labels, images.source.classes))
        ],
    )


def strip(images: PageImages, at: int, *pictures: Picture) -> Strip:
    """Pictures under the class and the name of an image."""
    return Strip(joined(images.class_of(at), images.name(at)), pictures)


def joined(*words: str) -> str:
    """Those of the words that are not empty, in one line."""
    return " · ".join(filter(None, words))


def image(images: PageImages, at: int, caption: str = "image") -> Picture:
    """An image itself."""
    of = images.class_of(at)
    return Picture(images.shown[at], f"Image {images.name(at)}" + (f" of class {of}" if of else ""), caption)


def heat(images: PageImages, at: int, values: np.ndarray, name: str, caption: str) -> Picture:
    """A map (h, w) in [0, 1] laid over an image."""
    return Picture(painted(images.shown[at], values), heat_alt(name, values), caption)


def painted(image: Image.Image, values: np.ndarray) -> Image.Image:
    """A map (h, w) in [0, 1] laid over a grey copy of an image, so that every colour is the map's."""
    return overlay(image.convert("L"), values, alpha=0.65)


def stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Two images of one size, one above the other with a grey line between."""
    line = np.full((3, upper.width, 3), 138, np.uint8)
    return Image.fromarray(np.vstack([np.asarray(upper), line, np.asarray(lower)]))


def heat_alt(name: str, values: np.ndarray) -> str:
    """A description of a map (h, w) in [0, 1]: the place of its peak, and the share of the image above half of that."""
    if not values.max() > 0:
        return f"{name}: zero everywhere"
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    high = ("top", "middle", "bottom")[min(2, 3 * int(row) // values.shape[0])]
    across = ("left", "centre", "right")[min(2, 3 * int(column) // values.shape[1])]
    share = (values > 0.5 * values.max()).mean()
    return f"{name}: highest at the {high} {across}, above half of that on {share:.0%} of the image"
