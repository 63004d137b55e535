"""One page to look at: images, maps and curves in a single HTML file that needs nothing else.

No script, no server, no second file, and a policy in the page's head that forbids all three; every text is escaped.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from ssl_backbones.visualizers.colours import DAWN
from ssl_backbones.visualizers.curves import Curve, drawing

UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that no page can hold, such as those of a file's name that is no text."""


@dataclass(frozen=True)
class Picture:
    """An image, a description for those who do not see it, and a caption below it."""

    image: Image.Image
    alt: str
    """The description for those who do not see it."""
    caption: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, side by side under a title."""

    title: str
    """Above the pictures."""
    pictures: Sequence[Picture]
    """From left to right."""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    """The heading."""
    about: str
    """The sentence below the heading."""
    sentences: Sequence[str] = ()
    """Below that, each on its own."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Names and values, in a list."""
    curves: Sequence[Curve] = ()
    """Side by side."""
    picture: Picture | None = None
    """One large picture."""
    legend: Sequence[tuple[Image.Image, str]] = ()
    """Below the picture: marks, and the names they stand for."""
    strips: Sequence[Strip] = ()
    scale: bool = False
    """True to explain the colours of maps."""
    wide: bool = False
    """True for strips as wide as the page."""


def gallery(title: str, lead: str, sections: Sequence[Section], *, reload: int = 0) -> str:
    """The page, as HTML to be written in UTF-8; ValueError without a section.

    A browser loads it again after `reload` seconds, never for 0.
    """
    if not sections:
        raise ValueError("there are 0 sections, which leaves nothing to look at; give at least one.")
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in DAWN[::23].tolist()]
    page = template().render(title=title, lead=lead, sections=sections, colours=colours, reload=reload)
    return UNSHOWABLE.sub("\ufffd", page)


@cache
def template() -> Template:
    """The page to be filled in, which escapes whatever it is given."""
    environment = Environment(
        loader=PackageLoader("ssl_backbones.visualizers", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"address": data_url, "drawing": drawing}
    return environment.get_template("gallery.html.jinja")


def data_url(image: Image.Image, quality: int = 80) -> str:
    """The image inside an address: as a JPEG, or as a PNG where it is transparent."""
    kind, out = "png" if image.mode == "RGBA" else "jpeg", io.BytesIO()
    image.convert("RGB" if kind == "jpeg" else "RGBA").save(out, kind, quality=quality, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
