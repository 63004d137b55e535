"""Pictures in rows and columns, with words above and beside them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, zip_longest

from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (255, 255, 255), (34, 34, 34)


def grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    gap: int = 6,
    font_size: int = 13,
) -> Image.Image:
    """One RGB picture of all: `titles` above the columns, `row_labels` at the left, `gap` pixels between.

    A row is as high as its highest picture, a column as wide as its widest picture or title; a row may be short.
    ValueError for no image, or more titles and labels than columns and rows.
    """
    columns = max(map(len, rows), default=0)
    if not columns:
        raise ValueError(f"there are {len(rows)} rows and no picture in them; give at least one.")
    if len(titles) > columns or len(row_labels) > len(rows):
        raise ValueError(
            f"{len(titles)} titles and {len(row_labels)} row labels for {columns} columns, {len(rows)} rows; drop some."
        )
    font = ImageFont.load_default(font_size)
    words = [measure(text, font) for text in titles]
    widths = [[picture.width for picture in row] for row in rows]
    wide = [max(sizes) for sizes in zip_longest(*widths, [width for width, _ in words], fillvalue=0)]
    high = [max((picture.height for picture in row), default=0) for row in rows]
    left = gap + max((measure(label, font)[0] + gap for label in row_labels), default=0)
    top = gap + max((height + gap for _, height in words), default=0)
    xs = list(accumulate((width + gap for width in wide), initial=left))
    ys = list(accumulate((height + gap for height in high), initial=top))
    sheet = Image.new("RGB", (xs[-1], ys[-1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    for title, x, width in zip(titles, xs, wide, strict=False):
        pen.text((x + width / 2, top - gap), title, INK, font, anchor="md")
    for row, label, y, height in zip(rows, [*row_labels, *[""] * len(rows)], ys, high, strict=False):
        pen.text((gap, y + height / 2), label, INK, font, anchor="lm")
        for picture, x, width in zip(row, xs, wide, strict=False):
            corner = (x + (width - picture.width) // 2, y + (height - picture.height) // 2)
            sheet.paste(picture.convert("RGB"), corner)
    return sheet


def measure(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width of a line of text, and the height that any line of this font needs, in pixels."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Ág")
    return int(right - left) + 1, int(bottom - top) + 1
