"""The papers' figures: pictures in rows and columns, and features on a plane; by Pillow, or as vectors by matplotlib.

Eight patch views and their maps: Pham et al., 2021, figure 3 (https://arxiv.org/abs/2108.00475). Features by t-SNE:
figure 4. Alignment maps of two views: Huang et al., 2022, figure 5 (https://arxiv.org/abs/2203.14898).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_backbones.files import write_file
from ssl_backbones.visualizers.alignment import checked_values, drawn, most_distinct
from ssl_backbones.visualizers.embedding import MissingExtraError
from ssl_backbones.visualizers.grid import INK, PAPER, grid, measure
from ssl_backbones.visualizers.overlay import overlay, stretched
from ssl_backbones.visualizers.thumbnails import MARKS, SHAPES, legend_names, mark_of, ordered_labels

DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Panels:
    """Pictures in rows and columns with words beside them, not yet drawn."""

    rows: Sequence[Sequence[Image.Image]]
    titles: Sequence[str] = ()
    """Above the columns."""
    row_labels: Sequence[str] = ()
    """Beside the rows."""
    captions: Sequence[str] = ()
    """Below the columns."""

    def picture(self) -> Image.Image:
        """The figure in pixels, by Pillow alone."""
        *upper, last = self.rows
        told = [*self.captions, *[""] * (len(last) - len(self.captions))] if self.captions else []
        rows = [*upper, [captioned(*pair) for pair in zip(last, told, strict=True)] if told else last]
        return grid(rows, titles=self.titles, row_labels=self.row_labels)

    def figure(self, width: float = 7.0) -> Any:
        """The figure as a matplotlib Figure, `width` inches wide, with words that stay text; or MissingExtraError."""
        columns, margin = max(map(len, self.rows)), 0.45 if self.row_labels else 0.05
        cell, words = (width - margin) / columns, 0.2
        height = cell * len(self.rows) + 2 * words
        figure = new_figure(width, height)
        axes = figure.subplots(len(self.rows), columns, squeeze=False)
        for row, line in zip(axes, self.rows, strict=True):
            for place in row:
                place.axis("off")
            for place, picture in zip(row, line, strict=False):
                place.imshow(np.asarray(picture.convert("RGB")), aspect="auto")
        plain = {"fontsize": min(7.0, 7 * cell), "parse_math": False}
        for place, title in zip(axes[0], self.titles, strict=False):
            place.text(0.5, 1.05, title, ha="center", va="bottom", transform=place.transAxes, **plain)
        for place, caption in zip(axes[-1], self.captions, strict=False):
            place.text(0.5, -0.05, caption, ha="center", va="top", transform=place.transAxes, **plain)
        for place, label in zip(axes[:, 0], self.row_labels, strict=False):
            place.text(-0.06, 0.5, label, ha="right", va="center", transform=place.transAxes, **plain)
        figure.subplots_adjust(margin / width, words / height, 0.995, 1 - words / height, wspace=0.05, hspace=0.05)
        return figure


def captioned(picture: Image.Image, words: str, high: int = 20) -> Image.Image:
    """The picture with a line of words below it."""
    font = ImageFont.load_default(11)
    wide = max(picture.width, measure(words, font)[0])
    whole = Image.new("RGB", (wide, picture.height + high), PAPER)
    whole.paste(picture.convert("RGB"), ((wide - picture.width) // 2, 0))
    ImageDraw.Draw(whole).text((wide / 2, picture.height + high / 2), words, INK, font, anchor="mm")
    return whole


def view_panels(
    views: Sequence[Image.Image],
    heats: npt.ArrayLike,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    *,
    alpha: float = 0.65,
) -> Panels:
    """Two rows: an image's views, and below each its map (V, h, w) in [0, 1] laid over it. Pham et al., figure 3.

    ValueError where there is not one map a view.
    """
    values = np.asarray(heats)
    if len(values) != len(views):
        raise ValueError(f"there are {len(values)} maps for {len(views)} views; give one for each.")
    painted = [overlay(view.convert("L"), heat, alpha=alpha) for view, heat in zip(views, values, strict=True)]
    return Panels([list(views), painted], titles, ["view", "map"], captions)


def alignment_panels(
    views: tuple[Sequence[Image.Image], Sequence[Image.Image]],
    maps: tuple[Tensor, Tensor],
    *,
    k: int = 4,
    side: int = 96,
) -> Panels:
    """A row for each image: its two views, then k maps (B, n, h, w), each on both. Huang et al., figure 5.

    The maps are the most distinct over all views, each stretched to its own range.
    ValueError for maps of different methods.
    """
    values = [checked_values(images, found) for images, found in zip(views, maps, strict=True)]
    if values[0].shape != values[1].shape:
        raise ValueError(f"maps are {values[0].shape} and {values[1].shape}; give both views' maps of one method.")
    chosen = most_distinct(np.concatenate(values), min(k, values[0].shape[1]))
    (firsts, on_firsts), (seconds, on_seconds) = (
        drawn(images, stretched(found)[:, chosen], side) for images, found in zip(views, values, strict=True)
    )
    rows = [
        [first, second, *(one for pair in zip(on_first, on_second, strict=True) for one in pair)]
        for first, second, on_first, on_second in zip(firsts, seconds, on_firsts, on_seconds, strict=True)
    ]
    return Panels(rows, ["view 1", "view 2", *(title for i in chosen for title in (f"map {i}", f"map {i}"))])


def scatter_figure(
    places: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    classes: Sequence[str] = (),
    *,
    title: str = "",
    width: float = 5.0,
) -> Any:
    """Features at their places (N, 2), marked by class, as a matplotlib Figure; or MissingExtraError."""
    return scatter_panels([Scatter(places, title)], labels, classes, width=width)


@dataclass(frozen=True)
class Scatter:
    """The features of one network on a plane."""

    places: np.ndarray
    """(N, 2)"""
    title: str = ""
    """Above the plane."""
    caption: str = ""
    """Below it."""


def scatter_panels(
    panels: Sequence[Scatter],
    labels: Sequence[int] | np.ndarray | None = None,
    classes: Sequence[str] = (),
    *,
    width: float = 5.0,
) -> Any:
    """The features of the same images by several networks, side by side with one legend. Pham et al., 2021, figure 4.

    A matplotlib Figure whose panels are `width` inches wide, that of the legend included; or MissingExtraError.
    """
    figure = new_figure(width * len(panels), width * 0.8)
    numbers, _ = ordered_labels(labels, len(panels[0].places))
    names = legend_names(labels, classes)
    legend = 0.28 * width if names else 0.02 * width
    titles = [fill(panel.title, int(9 * width)) for panel in panels]
    lines = 1 + max(title.count("\n") for title in titles)
    for axes, panel, title in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, titles, strict=True):
        scatter(axes, panel.places, numbers, names)
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_xlabel(panel.caption, fontsize=7, parse_math=False)
    if names:
        axes.legend(*named_marks(axes), fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    below = 0.07 if any(panel.caption for panel in panels) else 0.03
    whole = width * len(panels)
    figure.subplots_adjust(0.02 / len(panels), below, 1 - legend / whole, 0.97 - 0.05 * lines, wspace=0.03)
    return figure


def named_marks(axes: Any) -> tuple[list[Any], list[str]]:
    """The marks of classes and their names, those that begin with "_" too, which matplotlib leaves out by itself."""
    marks = [each for each in axes.collections if not each.get_label().startswith("_child")]
    return marks, [mark.get_label() for mark in marks]


def scatter(axes: Any, places: np.ndarray, numbers: Sequence[int], names: Sequence[str]) -> None:
    """Draw features at their places (N, 2), with the mark of each one's class by its number; -1 is without a name."""
    outlines = [np.asarray([*outline, outline[0]]) * (1, -1) for outline in SHAPES.values()]
    for number in sorted({*numbers}):
        mark, chosen = mark_of(number), np.asarray(numbers) == number
        name = names[number].replace("$", r"\$") if number >= 0 else None
        shape = outlines[number // 4 if 0 <= number < MARKS else 0]
        axes.scatter(*places[chosen].T, s=14, c=mark.colour, marker=shape, linewidths=0, alpha=0.8, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c8c8c8")


def new_figure(width: float, height: float) -> Any:
    """A matplotlib Figure that no window and no global state knows of."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "a figure of vectors needs matplotlib: pip install 'ssl-backbones[viz]', or draw it by `picture`, which "
            "needs nothing"
        ) from error
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | Path, dpi: float | Literal["figure"] = "figure") -> None:
    """Write a matplotlib Figure in the format of the path's suffix; a letter that no font has becomes a box.

    Raises UnwritableError.
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(content, format=Path(path).suffix[1:] or "png", dpi=dpi)
    write_file(path, content.getvalue())


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write an image in the format of the path's suffix, PNG where it has none; raises UnwritableError."""
    content = io.BytesIO()
    image.save(content, Image.registered_extensions().get(Path(path).suffix.lower(), "PNG"))
    write_file(path, content.getvalue())
