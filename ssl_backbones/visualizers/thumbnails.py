"""Images laid out by their features, each with the mark of its class, and none on top of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_backbones.visualizers.grid import INK, PAPER, measure
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
"""Colour of the classes beyond those that have a mark of their own."""
REACH = 1.6
"""Cells that an image may be moved from its place; one that finds no free cell so near stays a mark alone."""


@dataclass(frozen=True)
class Mark:
    """The sign of a class on a map."""

    colour: str
    outline: tuple[tuple[float, float], ...]

    def points(self, x: float, y: float, radius: float) -> list[tuple[float, float]]:
        """The outline around a place."""
        return [(x + radius * dx, y + radius * dy) for dx, dy in self.outline]


def mark_of(label: int) -> Mark:
    """The mark of a class by its number: four colours, then the same ones in the next shape; one for all others."""
    if not 0 <= label < MARKS:
        return Mark(OTHER, SHAPES["circle"])
    return Mark(COLOURS[label % len(COLOURS)], list(SHAPES.values())[label // len(COLOURS)])


def lay_out(places: np.ndarray, columns: int, rows: int) -> tuple[np.ndarray, dict[int, tuple[int, int]]]:
    """Places (N, 2) of images in cells from the upper left corner, and the cell, column and row, of each one drawn.

    The images nearest to a cell come first, each in the free cell nearest to its place; those without one are marks at
    their own place. Up is up.
    """
    low, high = places.min(0), places.max(0)
    share = (places - low) / np.where(high > low, high - low, 1) if len(places) else places
    at = np.stack([share[:, 0] * (columns - 1), (1 - share[:, 1]) * (rows - 1)], 1)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    board = np.stack([x.ravel(), y.ravel()], 1)
    distances = np.linalg.norm(at[:, None] - board, axis=2)
    indices, cells = np.nonzero(distances <= REACH)
    taken: dict[int, int] = {}
    full: set[int] = set()
    for pair in distances[indices, cells].argsort(kind="stable"):
        index, cell = int(indices[pair]), int(cells[pair])
        if index not in taken and cell not in full:
            taken[index] = cell
            full.add(cell)
    return at, {i: (c % columns, c // columns) for i, c in sorted(taken.items())}


def ordered_labels(labels: Sequence[int] | np.ndarray | None, count: int) -> tuple[list[int], list[int]]:
    """The number of each image's mark, and the labels that marks stand for: the most frequent ones.

    The number is -1 for an image without a class, and MARKS for one of a less frequent class.
    """
    if labels is None:
        return [-1] * count, []
    found, counts = np.unique(np.asarray(labels)[np.asarray(labels) >= 0], return_counts=True)
    frequent = [int(label) for label in found[(-counts).argsort(kind="stable")]][:MARKS]
    order = sorted(frequent)
    number = {label: index for index, label in enumerate(order)}
    return [number.get(int(label), MARKS) if label >= 0 else -1 for label in labels], order


def legend_names(labels: Sequence[int] | np.ndarray | None, classes: Sequence[str]) -> list[str]:
    """The name for each mark by its number; the last stands for all classes beyond MARKS, if there are any."""
    numbers, order = ordered_labels(labels, 0)
    names = [classes[label] if label < len(classes) else str(label) for label in order]
    return [*names, "other classes"] if MARKS in numbers else names


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
    """The images at their places (N, 2) on paper, each with its class's mark, and below them what the marks mean.

    ValueError where images, places and labels are not as many.
    """
    sheet = thumbnails(images, places, labels, columns=columns, rows=rows, side=side)
    return with_legend(sheet, legend_names(labels, classes))


def thumbnails(
    images: Sequence[Image.Image],
    places: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    columns: int = 24,
    rows: int = 16,
    side: int = 40,
) -> Image.Image:
    """The images at their places (N, 2) on paper, each with its class's mark; ValueError where they are not as many."""
    if places.shape != (len(images), 2) or (labels is not None and len(labels) != len(images)):
        counted = "none" if labels is None else len(labels)
        raise ValueError(
            f"places are {places.shape} and labels {counted} for {len(images)} images; give (N, 2) and N, or no labels."
        )
    (at, cells), (numbers, _) = lay_out(places, columns, rows), ordered_labels(labels, len(images))
    cell, edge = side + 6, 10
    sheet = Image.new("RGB", (columns * cell + 2 * edge, rows * cell + 2 * edge), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (x, y) in enumerate(at.tolist()):
        if index not in cells:
            mark = mark_of(numbers[index])
            pen.polygon(mark.points(edge + (x + 0.5) * cell, edge + (y + 0.5) * cell, 4), mark.colour)
    for index, (column, row) in cells.items():
        left, top, mark = edge + column * cell + 3, edge + row * cell + 3, mark_of(numbers[index])
        labelled = numbers[index] >= 0
        if labelled:
            pen.rectangle((left - 2, top - 2, left + side + 1, top + side + 1), mark.colour)
        sheet.paste(square(images[index], side), (left, top))
        if labelled:
            pen.polygon(mark.points(left + 5, top + 5, 5), mark.colour, PAPER)
    return sheet


def mark_picture(number: int, side: int = 32) -> Image.Image:
    """The mark of a class by its number, on nothing, to stand before its name."""
    drawn = Image.new("RGBA", (side, side))
    mark = mark_of(number)
    ImageDraw.Draw(drawn).polygon(mark.points(side / 2, side / 2, 0.36 * side), mark.colour)
    return drawn


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
