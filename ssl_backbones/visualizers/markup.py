"""Words and pictures as they stand inside HTML and SVG."""

from __future__ import annotations

import base64
import io
import re
from html import escape

from PIL import Image

QUALITY = 80
"""Of the JPEGs in a page."""
UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def text(words: str) -> str:
    """Words from anywhere as HTML: markup is escaped, and what no page can hold is replaced by U+FFFD."""
    return escape(UNSHOWABLE.sub("\ufffd", words))


def data_url(image: Image.Image, quality: int = QUALITY) -> str:
    """The picture as a JPEG inside an address."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
