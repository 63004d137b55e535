"""One page to look at: photos, maps, curves and a map of features in a single HTML file that needs nothing else.

No script, no server, no second file, and a policy in the page's head that forbids all three: what a file is called, or
a class, is text and stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from PIL import Image

from ssl_backbones.visualizers.colours import DAWN
from ssl_backbones.visualizers.curves import Curve, curve_svg
from ssl_backbones.visualizers.markup import data_url, text

MANY = 6
"""Pictures above which a strip takes a second line where it is narrow."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may load: nothing but what it holds."""


@dataclass(frozen=True)
class Picture:
    """A picture, what it shows for those who do not see it, and what stands below it."""

    image: Image.Image
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, side by side under a title."""

    title: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    about: str
    facts: Mapping[str, str] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    drawing: str = ""
    """An SVG that was made by this package; it goes in as it is."""
    legend: Sequence[tuple[str, str]] = ()
    """Below the drawing: marks, as SVG made by this package, and the names they stand for."""
    strips: Sequence[Strip] = ()
    scale: bool = False
    """Whether to show what the colours of maps mean."""
    wide: bool = False
    """Whether a strip takes the whole width."""


def gallery(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page, as HTML to be written in UTF-8."""
    if not sections:
        raise ValueError("there are 0 sections, which leaves nothing to look at; give at least one.")
    links = "".join(f'<li><a href="#part-{n}">{text(s.title)}</a></li>' for n, s in enumerate(sections, 1))
    style = files(__package__).joinpath("gallery.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}:root {{ --dawn: {dawn()}; }}\n</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the pictures</a>\n'
        f'<header id="top">\n<h1><bdi>{text(title)}</bdi></h1>\n<p class="lead">{text(lead)}</p>\n'
        f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>\n</header>\n<main id="main">\n'
        + "\n".join(as_section(number, section) for number, section in enumerate(sections, 1))
        + "\n</main>\n<footer><p>Made by ssl-backbones. This file is complete: it loads nothing and runs no script. "
        '<a href="#top">Back to the top</a></p></footer>\n</body>\n</html>\n'
    )


def as_section(number: int, section: Section) -> str:
    """One part of the page."""
    parts = [
        f'<section aria-labelledby="part-{number}">\n<h2 id="part-{number}">{text(section.title)}</h2>\n'
        f'<p class="about">{text(section.about)}</p>'
    ]
    if section.scale:
        parts.append(
            '<p class="scale"><span>low</span><span class="bar" aria-hidden="true"></span><span>high</span></p>'
        )
    if section.facts:
        pairs = "".join(
            f"<div><dt>{text(term)}</dt><dd><bdi>{text(fact)}</bdi></dd></div>" for term, fact in section.facts.items()
        )
        parts.append(f"<dl>{pairs}</dl>")
    if section.curves:
        drawn = "".join(
            f"<figure>{curve_svg(curve)}<figcaption>{text(curve.title)}</figcaption></figure>"
            for curve in section.curves
        )
        parts.append(f'<div class="curves">{drawn}</div>')
    if section.drawing:
        parts.append(f'<figure class="drawing">{section.drawing}</figure>')
    if section.legend:
        items = "".join(f"<li>{mark}<bdi>{text(name)}</bdi></li>" for mark, name in section.legend)
        parts.append(f'<ul class="legend" aria-label="Classes">{items}</ul>')
    if section.strips:
        kind = "strips wide" if section.wide else "strips"
        parts.append(f'<div class="{kind}">\n' + "\n".join(map(as_article, section.strips)) + "\n</div>")
    return "\n".join([*parts, "</section>"])


def as_article(strip: Strip) -> str:
    """Pictures side by side, under the title that they share."""
    note = f'<p class="note">{text(strip.note)}</p>' if strip.note else ""
    pictures = "".join(map(as_figure, strip.pictures))
    kind, count = "row many" if len(strip.pictures) > MANY else "row", len(strip.pictures)
    title = f"<h3><bdi>{text(strip.title)}</bdi></h3>"
    return f'<article>{title}{note}<div class="{kind}" style="--n: {count}">{pictures}</div></article>'


def as_figure(picture: Picture) -> str:
    """A picture with what stands below it."""
    image = picture.image
    caption = f"<figcaption><bdi>{text(picture.caption)}</bdi></figcaption>" if picture.caption else ""
    return (
        f'<figure><img src="{data_url(image)}" width="{image.width}" height="{image.height}" alt="{text(picture.alt)}">'
        f"{caption}</figure>"
    )


def dawn(stops: int = 12) -> str:
    """The colours of maps as a CSS gradient."""
    chosen = DAWN[:: (len(DAWN) - 1) // (stops - 1)]
    return (
        f"linear-gradient(to right, {', '.join('#{:02x}{:02x}{:02x}'.format(*colour) for colour in chosen.tolist())})"
    )
