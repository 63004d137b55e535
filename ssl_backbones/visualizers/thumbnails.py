"""Photos laid out where their features lie, each with the mark of its class, and none on top of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_backbones.visualizers.grid import INK, PAPER, measure
from ssl_backbones.visualizers.markup import text
from ssl_backbones.visualizers.neighbours import square

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Told apart by the colour-blind, and at 3 : 1 or more from white paper and from black. Okabe and Ito, 2008."""
SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": tuple((float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)),
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "cross": tuple(
        (0.42 * x, 0.42 * y)
        for x, y in zip(
            (-1, 1, 1, 3, 3, 1, 1, -1, -1, -3, -3, -1), (-3, -3, -1, -1, 1, 1, 3, 3, 1, 1, -1, -1), strict=True
        )
    ),
}
"""Outlines of marks around the origin, so that no class is told by colour alone."""
MARKS = len(COLOURS) * len(SHAPES)
OTHER = "#8a8f98"
"""Of photos without a class, or of one more class than there are marks."""
REACH = 1.6
"""Cells that a photo may be moved from where it belongs; one that finds no free cell so near stays a mark alone."""


@dataclass(frozen=True)
class Mark:
    """What stands for a class."""

    colour: str
    outline: tuple[tuple[float, float], ...]

    def points(self, x: float, y: float, radius: float) -> list[tuple[float, float]]:
        """The outline around a place."""
        return [(x + radius * dx, y + radius * dy) for dx, dy in self.outline]


@dataclass(frozen=True)
class Layout:
    """Photos on a board of columns x rows cells."""

    columns: int
    rows: int
    at: np.ndarray
    """(N, 2) where each photo belongs, in cells from the upper left corner."""
    cells: dict[int, tuple[int, int]]
    """Photo to the cell, column and row, that it is drawn in; the others are marks at their own place."""


def mark_of(label: int) -> Mark:
    """The mark of a class by its number: four colours, then the same ones in the next shape."""
    if not 0 <= label < MARKS:
        return Mark(OTHER, SHAPES["circle"])
    return Mark(COLOURS[label % len(COLOURS)], list(SHAPES.values())[label // len(COLOURS)])


def lay_out(places: np.ndarray, columns: int, rows: int) -> Layout:
    """Each photo in the free cell nearest to its place (N, 2), the photos nearest to a cell first; up is up."""
    low, high = places.min(0), places.max(0)
    share = (places - low) / np.where(high > low, high - low, 1) if len(places) else places
    at = np.stack([share[:, 0] * (columns - 1), (1 - share[:, 1]) * (rows - 1)], 1)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    board = np.stack([x.ravel(), y.ravel()], 1)
    distances = np.linalg.norm(at[:, None] - board, axis=2)
    photos, cells = np.nonzero(distances <= REACH)
    taken: dict[int, int] = {}
    full: set[int] = set()
    for pair in distances[photos, cells].argsort(kind="stable"):
        photo, cell = int(photos[pair]), int(cells[pair])
        if photo not in taken and cell not in full:
            taken[photo] = cell
            full.add(cell)
    return Layout(columns, rows, at, {p: (c % columns, c // columns) for p, c in sorted(taken.items())})


def ordered_labels(labels: Sequence[int] | np.ndarray | None, count: int) -> tuple[list[int], list[int]]:
    """The number of each photo's mark, -1 for none, and the labels that marks stand for: the most frequent ones."""
    if labels is None:
        return [-1] * count, []
    found, counts = np.unique(np.asarray(labels)[np.asarray(labels) >= 0], return_counts=True)
    frequent = [int(label) for label in found[(-counts).argsort(kind="stable")]][:MARKS]
    order = sorted(frequent)
    number = {label: index for index, label in enumerate(order)}
    return [number.get(int(label), -1) for label in labels], order


def thumbnail_map(
    images: Sequence[Image.Image],
    places: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    classes: Sequence[str] = (),
    *,
    columns: int = 24,
    rows: int = 16,
    side: int = 40,
) -> Image.Image:
    """The photos at their places (N, 2) on paper, each with its class's mark, and below them what the marks mean."""
    check_alike(images, places, labels)
    layout, (numbers, order) = lay_out(places, columns, rows), ordered_labels(labels, len(images))
    cell, edge = side + 6, 10
    sheet = Image.new("RGB", (columns * cell + 2 * edge, rows * cell + 2 * edge), PAPER)
    pen = ImageDraw.Draw(sheet)
    for photo, (x, y) in enumerate(layout.at.tolist()):
        if photo not in layout.cells:
            mark = mark_of(numbers[photo])
            pen.polygon(mark.points(edge + (x + 0.5) * cell, edge + (y + 0.5) * cell, 4), mark.colour)
    for photo, (column, row) in layout.cells.items():
        left, top, mark = edge + column * cell + 3, edge + row * cell + 3, mark_of(numbers[photo])
        pen.rectangle((left - 2, top - 2, left + side + 1, top + side + 1), mark.colour)
        sheet.paste(square(images[photo], side), (left, top))
        pen.polygon(mark.points(left + 5, top + 5, 5), mark.colour, PAPER)
    return with_legend(sheet, [classes[label] if label < len(classes) else str(label) for label in order])


def with_legend(sheet: Image.Image, names: Sequence[str]) -> Image.Image:
    """The picture with a line or more of marks and names under it."""
    if not names:
        return sheet
    font = ImageFont.load_default(14)
    lines: list[list[tuple[float, int, str]]] = [[]]
    x = 16.0
    for number, name in enumerate(names):
        width = measure(name, font)[0] + 42
        if x + width > sheet.width and lines[-1]:
            lines.append([])
            x = 16.0
        lines[-1].append((x, number, name))
        x += width
    whole = Image.new("RGB", (sheet.width, sheet.height + 24 * len(lines) + 8), PAPER)
    whole.paste(sheet, (0, 0))
    pen = ImageDraw.Draw(whole)
    for index, line in enumerate(lines):
        y = sheet.height + 24 * index + 12
        for x, number, name in line:
            mark = mark_of(number)
            pen.polygon(mark.points(x, y, 6), mark.colour)
            pen.text((x + 14, y), name, INK, font, anchor="lm")
    return whole


def check_alike(images: Sequence[Any], places: np.ndarray, labels: Sequence[int] | np.ndarray | None) -> None:
    """Refuse photos, places and labels that are not as many."""
    if places.shape != (len(images), 2) or (labels is not None and len(labels) != len(images)):
        counted = "none" if labels is None else len(labels)
        raise ValueError(
            f"places are {places.shape} and labels {counted} for {len(images)} photos; give (N, 2) and N, or no labels."
        )


def thumbnail_svg(
    sources: Sequence[str],
    names: Sequence[str],
    places: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    title: str,
    columns: int = 24,
    rows: int = 15,
) -> str:
    """The same picture as SVG: photos by their `data:` addresses, each with its name for those who point at it."""
    check_alike(sources, places, labels)
    layout, (numbers, _) = lay_out(places, columns, rows), ordered_labels(labels, len(sources))
    parts = [
        f'<svg class="map" viewBox="-2 -2 {columns * 44 + 4} {rows * 44 + 4}" role="img" aria-label="{text(title)}">'
    ]
    for photo, (x, y) in enumerate(layout.at.tolist()):
        if photo not in layout.cells:
            dot = polygon(mark_of(numbers[photo]), (x + 0.5) * 44, (y + 0.5) * 44, 4.5)
            parts.append(f"<g><title>{text(names[photo])}</title>{dot}</g>")
    for photo, (column, row) in layout.cells.items():
        left, top, mark = column * 44 + 3, row * 44 + 3, mark_of(numbers[photo])
        frame = f'<rect x="{left - 2}" y="{top - 2}" width="42" height="42" rx="4" fill="{mark.colour}"/>'
        image = f'<image x="{left}" y="{top}" width="38" height="38" href="{text(sources[photo])}"/>'
        corner = polygon(mark, left + 4, top + 4, 5.5)
        parts.append(f"<g><title>{text(names[photo])}</title>{frame}{image}{corner}</g>")
    return "".join([*parts, "</svg>"])


def legend_svg(label: int) -> str:
    """The mark of a class by its number, to stand before its name."""
    return f'<svg class="mark" viewBox="-8 -8 16 16" aria-hidden="true">{polygon(mark_of(label), 0, 0, 6)}</svg>'


def polygon(mark: Mark, x: float, y: float, radius: float) -> str:
    """A mark in SVG."""
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in mark.points(x, y, radius))
    return f'<polygon class="m" points="{points}" fill="{mark.colour}"/>'
