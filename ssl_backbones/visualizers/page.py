"""The page of a network: what it was trained by, where it looks, what it takes for alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.files import content_of, object_in, write_file
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.results import upgraded
from ssl_backbones.visualizers import (
    HasAlignmentMaps,
    Picture,
    Projection,
    Section,
    Strip,
    alignment_maps,
    alignment_panels,
    data_url,
    embed_2d,
    feature_norm,
    gallery,
    grad_cam,
    legend_svg,
    most_distinct,
    nearest,
    ordered_labels,
    overlay,
    principal_component,
    run_curves,
    similarity_map,
    stretched,
    thumbnail_svg,
)
from ssl_backbones.visualizers.look import SIDE, Photos, Viewer, look_at, looked_at_views, magnified, view_pairs

NEIGHBOURS = 5
MAPS = 5
"""Alignment maps shown of a photo."""
VIEWED = 3
"""Photos shown in all their views."""
SEAM = (138, 143, 152)
"""Between two pictures, on light paper and on dark."""
FEW = 5
"""Photos below which there is no map of features."""


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
) -> Photos:
    """Write the page of a network on some photos, after the sections it opens with; what was seen of the photos.

    `count` photos are shown, out of `bank` that neighbours are sought among and that the map of features holds.
    """
    photos = look_at(viewer, source, max(count, bank))
    chosen = photos.some(count)
    sections = [*opening, cam_section(viewer, photos, chosen), *alignment_sections(viewer, photos, chosen)]
    sections.append(view_section(viewer, photos, chosen[:VIEWED]))
    if len(photos.indices) > 1:
        sections.append(neighbour_section(photos, chosen))
        sections.append(similarity_section(viewer, photos, chosen[:VIEWED]))
    if len(photos.indices) >= FEW:
        sections.append(map_section(photos, projection or usual_projection(), viewer.seed))
    skipped = f" {photos.unreadable} more could not be read." if photos.unreadable else ""
    lead = f"What this network looks at and what it takes for alike, on {len(photos.indices)} photos.{skipped}"
    write_file(path, gallery(viewer.name, lead, sections).encode())
    return photos


def run_section(folder: Path, results: Mapping[str, Any] | None = None) -> Section:
    """How a run was made and how it went, from what its folder records; `results` where they are not there yet."""
    recipe, results = read(folder / "recipe.json"), upgraded(results or read(folder / "results.json"))
    lines = read_log(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []
    curves = run_curves(lines, knn_chance=results.get("chance"))
    about = "What was trained, and its numbers over the steps, as the run recorded them."
    return Section("The run", about, facts(recipe, results), curves)


def read(path: Path) -> dict[str, Any]:
    """An object in a file of a run; nothing where there is none yet."""
    try:
        return object_in(content_of(path))
    except (OSError, ValueError):
        return {}


def facts(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """The run in a few words each; what is not recorded is left out."""
    optimizer = recipe.get("optimizer", {})
    found = {name: number["value"] for name, number in results["numbers"].items()}
    told = {
        "Network": recipe.get("model"),
        "Images": f"{results['data']['images']:,} at {recipe.get('size')} px" if "data" in results else None,
        "Epochs": f"{recipe.get('epochs')}, in batches of {recipe.get('batch_size')}",
        "Optimiser": f"{optimizer.get('kind')}, learning rate {optimizer.get('lr')} {optimizer.get('lr_rule')}",
        "Seed": recipe.get("seed"),
        "k-NN accuracy": f"{found['knn before']:.1%} before, {found['knn']:.1%} after" if "knn" in found else None,
        "Effective rank": f"{found['rank before']:.1f} before, {found['rank']:.1f} after" if "rank" in found else None,
        "Finished": results.get("date"),
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def cam_section(viewer: Viewer, photos: Photos, chosen: Sequence[int]) -> Section:
    """Maps that need no classes."""
    images = magnified(viewer, photos, list(chosen))
    kinds: dict[str, Callable[..., Tensor]] = {
        "GradCAM": grad_cam,
        "norm": feature_norm,
        "component": principal_component,
    }
    maps = {name: make(viewer.backbone, images).float().cpu().numpy() for name, make in kinds.items()}
    strips = []
    for row, at in enumerate(chosen):
        pictures = [Picture(photos.shown[at], photo_alt(photos, at), "photo")]
        for name, heats in maps.items():
            pictures.append(Picture(painted(photos.shown[at], heats[row]), heat_alt(name, heats[row]), name))
        strips.append(Strip(title_of(photos, at), pictures))
    about = (
        "GradCAM is made without classes: it shows which places agree with the embedding of the whole photo. The norm "
        "shows how strongly the last layer answers, the component (the principal one) where it varies most."
    )
    return Section("Where the network looks", about, strips=strips, scale=True)


def alignment_sections(viewer: Viewer, photos: Photos, chosen: Sequence[int]) -> list[Section]:
    """The method's own maps on each photo, and on two views of some; nothing for a method without maps."""
    if not isinstance(viewer.model, HasAlignmentMaps):
        return []
    maps = alignment_maps(viewer.model, magnified(viewer, photos, list(chosen))).float().cpu().numpy()
    columns = most_distinct(maps, min(MAPS, maps.shape[1]))
    heats = stretched(maps)
    strips = []
    for row, at in enumerate(chosen):
        pictures = [Picture(photos.shown[at], photo_alt(photos, at), "photo")]
        for index in columns:
            heat, name = heats[row, index], f"map {index}"
            pictures.append(Picture(painted(photos.shown[at], heat), heat_alt(f"Alignment {name}", heat), name))
        strips.append(Strip(title_of(photos, at), pictures))
    about = (
        f"The {len(columns)} most distinct of the {maps.shape[1]} maps by which the method aligns two views, the same "
        "ones on every photo, each stretched to its own range."
    )
    found = [Section("Alignment maps", about, strips=strips, scale=True)]
    pairs = view_pairs(viewer, photos, list(chosen[:VIEWED]))
    if pairs:
        panels = alignment_panels(*pairs, k=3, side=SIDE)
        strips = [
            Strip(
                title_of(photos, at),
                [Picture(p, f"{t}, {photos.name(at)}", t) for p, t in zip(row, panels.titles, strict=True)],
            )
            for at, row in zip(chosen, panels.rows, strict=False)
        ]
        about = "Two augmented views of a photo, and maps on both: does a map find the same thing again?"
        found.append(Section("The same maps on two views", about, strips=strips, scale=True, wide=True))
    return found


def view_section(viewer: Viewer, photos: Photos, chosen: Sequence[int]) -> Section:
    """Turned views of some photos, each with its map."""
    strips, asked = [], False
    for at in chosen:
        views = looked_at_views(viewer, photos, at)
        asked = bool(views.told)
        pictures = []
        for view, heat, title, told in zip(
            views.pictures, views.heats, views.titles, views.told or [""] * len(views.titles), strict=True
        ):
            large = view.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            alt = heat_alt(f"GradCAM of the view {title}", heat)
            pictures.append(
                Picture(beside(large, painted(large, heat)), alt, f"{title}{': taken for ' if told else ''}{told}")
            )
        strips.append(Strip(title_of(photos, at), pictures))
    question = (
        "Each map shows what speaks for the view's own turn, and below it stands what the method's head takes it for."
        if asked
        else "The maps are made without classes, as above."
    )
    about = f"The photo turned by quarters, and a small turned copy of it pasted inside. {question}"
    return Section("Turned views", about, strips=strips, scale=True, wide=True)


def neighbour_section(photos: Photos, chosen: Sequence[int]) -> Section:
    """The photos that lie nearest to some."""
    k = min(NEIGHBOURS, len(photos.indices) - 1)
    found, cosines = nearest(photos.features, chosen, k)
    strips = []
    for at, near, cosine in zip(chosen, found.tolist(), cosines.tolist(), strict=True):
        pictures = [Picture(photos.shown[at], photo_alt(photos, at), "photo")]
        for other, similarity in zip(near, cosine, strict=True):
            caption = " · ".join(filter(None, [f"{similarity:.2f}", photos.class_of(other)]))
            pictures.append(Picture(photos.shown[other], photo_alt(photos, other), caption))
        strips.append(Strip(title_of(photos, at), pictures))
    about = "The photos nearest to each by the cosine of their features, the nearest first; the number is the cosine."
    return Section("Nearest neighbours", about, facts=agreement(photos), strips=strips)


def similarity_section(viewer: Viewer, photos: Photos, chosen: Sequence[int]) -> Section:
    """Where each of two photos that lie close together holds what the other one shows."""
    found = nearest(photos.features, chosen, 1)[0][:, 0].tolist()
    ones, others = (magnified(viewer, photos, list(rows)) for rows in (chosen, found))
    heats = [similarity_map(viewer.backbone, *pair).float().cpu().numpy() for pair in ((ones, others), (others, ones))]
    strips = []
    for row, (one, other) in enumerate(zip(chosen, found, strict=True)):
        pictures = []
        for at, heat in ((one, heats[0][row]), (other, heats[1][row])):
            pictures.append(Picture(photos.shown[at], photo_alt(photos, at), photos.class_of(at) or "photo"))
            alt = heat_alt("Similarity to the other photo", heat)
            pictures.append(Picture(painted(photos.shown[at], heat), alt, "like the other"))
        strips.append(Strip(title_of(photos, one), pictures))
    about = (
        "A photo and the nearest to it: the map on each is the cosine of its places to the whole of the other, from 0 "
        "to 1 and not stretched, so that maps can be compared."
    )
    return Section("Where two photos are alike", about, strips=strips, scale=True)


def agreement(photos: Photos) -> dict[str, str]:
    """How often the nearest photo is of the same class, beside how often a photo drawn at random is."""
    labels = photos.labels
    known = np.flatnonzero(labels >= 0) if labels is not None else np.array([], int)
    if labels is None or len(np.unique(labels[known])) < 2:
        return {}
    first = nearest(photos.features[known], range(len(known)), 1)[0][:, 0]
    _, counts = np.unique(labels[known], return_counts=True)
    by_chance = (counts * (counts - 1)).sum() / (len(known) * (len(known) - 1))
    return {
        "Nearest photo of the same class": f"{(labels[known][first] == labels[known]).mean():.1%} of {len(known)}",
        "A photo drawn at random": f"{by_chance:.1%}",
    }


def map_section(photos: Photos, projection: Projection, seed: int) -> Section:
    """All the photos where their features lie."""
    unit = photos.features / photos.features.norm(dim=1, keepdim=True).clamp_min(1e-12)
    embedded = embed_2d(unit, projection, seed=seed)
    count = len(photos.indices)
    names = [" · ".join(filter(None, [photos.class_of(at), photos.name(at)])) for at in range(count)]
    small = [data_url(photo.resize((48, 48), Image.Resampling.LANCZOS), 72) for photo in photos.shown]
    drawing = thumbnail_svg(
        small, names, embedded.places, photos.labels, title=f"{count} photos on a plane, alike ones close together"
    )
    _, order = ordered_labels(photos.labels, count)
    called = {"pca": "principal components", "tsne": "t-SNE", "umap": "UMAP"}[projection]
    about = (
        f"The features of {count} photos on a plane by {called}. A photo lies in the free cell nearest to its place; "
        "one without such a cell is a mark alone. Distances across the whole picture mean little."
    )
    told = {
        f"Trustworthiness ({embedded.neighbours} neighbours)": f"{embedded.trustworthiness:.3f}, where 1 is perfect "
        "and about 0.5 is chance"
    }
    legend = [(legend_svg(number), photos.source.classes[label]) for number, label in enumerate(order)]
    return Section("Map of features", about, told, drawing=drawing, legend=legend)


def title_of(photos: Photos, at: int) -> str:
    """The title of a photo's strip."""
    return " · ".join(filter(None, [photos.class_of(at), photos.name(at)]))


def painted(photo: Image.Image, heat: np.ndarray) -> Image.Image:
    """A map (h, w) in [0, 1] laid over a grey copy of the photo, so that every colour is the map's."""
    return overlay(photo.convert("L"), heat, alpha=0.65)


def beside(upper: Image.Image, lower: Image.Image, gap: int = 3) -> Image.Image:
    """Two pictures of one size, one above the other."""
    both = Image.new("RGB", (upper.width, 2 * upper.height + gap), SEAM)
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height + gap))
    return both


def photo_alt(photos: Photos, at: int) -> str:
    """What a photo is, for those who do not see it."""
    of = photos.class_of(at)
    return f"Photo {photos.name(at)}" + (f" of class {of}" if of else "")


def heat_alt(name: str, heat: np.ndarray) -> str:
    """Where a map (h, w) in [0, 1] is highest and how much of the picture it covers."""
    if not heat.max() > 0:
        return f"{name}: zero everywhere"
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    high = ("top", "middle", "bottom")[min(2, 3 * int(row) // heat.shape[0])]
    across = ("left", "centre", "right")[min(2, 3 * int(column) // heat.shape[1])]
    share = (heat > 0.5 * heat.max()).mean()
    return f"{name}: highest at the {high} {across}, above half of that on {share:.0%} of the picture"
