"""The page: complete in itself, safe with any text, and readable without looking."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from limits import HANG
from PIL import Image
from test_embedding import contrast

from ssl_backbones.visualizers import Curve, Picture, Section, Strip, gallery, run_curves
from ssl_backbones.visualizers.curves import BOTTOM, LEFT, MOST_POINTS, RIGHT, TOP, drawing, round_numbers

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg><h1>",
    "&amp;&lt;",
    "\x00\x1b[31m\udcff\ufffe",
    "زهرة · 数据集 · קובץ · ñandú · 👒",
    "\u202egpj.exe",
    "a" * 400,
]
VOID = {"meta", "img", "link", "br", "hr", "input"}
RED = Image.new("RGB", (30, 20), "red")
MARK = Image.new("RGBA", (16, 16))


class Page(HTMLParser):
    """A page's elements in order, with their text; an error where they are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def sample(name: str = "photo.jpg") -> str:
    """A page with one of everything, called by a name wherever something has one."""
    curve = Curve(f"Loss {name}", np.array([0, 5, 10]), np.array([2.0, np.nan, 1.0]), (name, 1.5))
    strip = Strip(name, [Picture(RED, f"Image {name}", name), Picture(RED, "A red map")])
    return gallery(
        name,
        f"Lead {name}",
        [
            Section(name, name, [name], {name: name}, [curve]),
            Section(
                "Maps", "Told", strips=[strip], scale=True, picture=Picture(RED, name, name), legend=[(MARK, name)]
            ),
        ],
    )


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_things_are_called_stays_text(name: str) -> None:
    ordinary, page = Page(sample()), Page(sample(name))
    assert [tag for tag, _ in page.found] == [tag for tag, _ in ordinary.found]
    assert [sorted(a) for _, a in page.found] == [sorted(a) for _, a in ordinary.found]
    assert any(name[:9] in words for _, words in page.words) or "\x00" in name
    sample(name).encode("utf-8")


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(codec=None), min_size=1, max_size=40))
def test_any_text_stays_text_that_can_be_written(words: str) -> None:
    written = sample(words)
    assert [tag for tag, _ in Page(written).found] == [tag for tag, _ in Page(sample()).found]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", written)
    written.encode("utf-8")


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(sample())
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.found}
    for _, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert not re.search(r"url\(|@import|https?:", sample())
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_page_can_be_read_without_looking() -> None:
    page = Page(sample())
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("nav")) == 1
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for link in page.all("a"):
        assert (link["href"] or "").removeprefix("#") in ids
    assert next(tag for tag, _ in page.found if tag in ("a", "h1")) == "a"
    for section in page.all("section"):
        assert section["aria-labelledby"] in ids
    marks = [image for image in page.all("img") if image["width"] == "16"]
    assert [image["alt"] for image in marks] == [""]  # its name stands beside it
    for image in page.all("img"):
        assert image["alt"] or image in marks
        assert (image["width"], image["height"]) in {("30", "20"), ("16", "16")}
    for drawn in page.all("svg"):
        assert drawn["role"] == "img"
        assert drawn["aria-label"]
    for attributes in [attributes for _, attributes in page.found if "tabindex" in attributes]:
        assert attributes["tabindex"] == "0"  # what scrolls, in the order of the page
        assert attributes["role"]
        assert attributes["aria-label"]
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_words_stand_out_on_light_paper_and_dark() -> None:
    style = files("ssl_backbones.visualizers").joinpath("gallery.css").read_text()
    light, dark, *_ = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for block in (light, dark):
        colours = dict(re.findall(r"--([a-z]+): #([0-9a-f]{6});", block))
        for paper in ("paper", "card"):
            for ink in ("ink", "soft", "accent"):
                assert contrast(colours[ink], colours[paper]) >= 4.5
            assert contrast(colours["line"], colours[paper]) >= 3
    for rule in ("prefers-color-scheme: dark", "@media print", ":focus-visible"):
        assert rule in style


def test_a_page_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="0 sections"):
        gallery("a", "b", [])


def test_curves_are_what_the_log_holds() -> None:
    lines = [
        {"step": 0, "epoch": 0, "std": 0.2, "rank": 9.0, "knn": 0.3},
        {"step": 10, "epoch": 0, "loss": 2.0, "lr": 0.1, "chance": 2.08},
        {"step": 20, "epoch": 1, "loss": float("nan"), "lr": 0.05, "chance": 2.08},
        {"step": 20, "epoch": 1, "knn": 0.5, "rank": 12.0, "std": 0.4},
    ]
    curves = {curve.title: curve for curve in run_curves(lines, knn_chance=0.1)}
    assert list(curves)[:2] == ["Loss", "k-NN accuracy"]
    assert curves["Loss"].steps.tolist() == [10, 20]
    assert curves["Loss"].reference == ("chance", 2.08)
    assert curves["k-NN accuracy"].values.tolist() == [0.3, 0.5]
    assert curves["k-NN accuracy"].sentence() == (
        "k-NN accuracy: from 30.0 % at step 0 to 50.0 % at step 20, lowest 30.0 %, highest 50.0 %; chance is 10.0 %."
    )
    assert run_curves([]) == []


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf]), min_size=1, max_size=30),
    percent=st.booleans(),
)
def test_a_curve_stays_inside_its_drawing(values: list[float], percent: bool) -> None:
    drawn = drawing(Curve("Loss", np.arange(len(values)) * 7, np.array(values), percent=percent))
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", drawn.path) if pair]
    assert len(points) == np.isfinite(values).sum()
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points)
    assert drawn.dots == (points if len(values) <= 24 else [])
    assert drawn.path.count("M") == sum(
        np.isfinite(value) and not (at and np.isfinite(values[at - 1])) for at, value in enumerate(values)
    )
    finite = np.array(values)[np.isfinite(values)]
    heights = np.array([y for _, y in points])
    assert (np.diff(heights)[np.diff(finite) > 0] <= 0).all()


@example(low=-5e-324, span=5.0)
@given(low=st.floats(-1e9, 1e9), span=st.floats(0, 1e9))
def test_round_numbers_hold_the_range(low: float, span: float) -> None:
    ticks = round_numbers(low, low + span)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-6 * abs(low)
    assert ticks[-1] >= low + span - 1e-6 * abs(low + span)


def test_a_long_curve_is_thinned_to_means() -> None:
    drawn = drawing(Curve("Loss", np.arange(5000), np.arange(5000) * 2.0))
    x, y = np.array([tuple(map(float, pair.split())) for pair in re.split("[ML]", drawn.path) if pair]).T
    assert len(x) == MOST_POINTS
    assert (drawn.last, drawn.dots) == ("4,999", [])
    steps = (x - LEFT) / (RIGHT - LEFT) * 4999
    expected = np.array([part.mean() for part in np.array_split(np.arange(5000), MOST_POINTS)])
    assert np.abs(steps - expected).max() < 1
    assert np.abs((BOTTOM - y) / (BOTTOM - TOP) * 10000 - 2 * expected).max() < 4


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(sample(HOSTILE[0]), encoding="utf-8")
    shot = tmp_path / "shot.png"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    subprocess.run(
        ["chromium", *flags, f"--screenshot={shot}", "--window-size=800,1400", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=HANG,
    )
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    paper = np.array([0xFA, 0xF9, 0xF6])
    assert (np.abs(pixels - paper).max(-1) > 8).mean() > 0.02
    red = (pixels[..., 0] > 200) & (pixels[..., 1:].max(-1) < 60)
    assert red.sum() > 2 * 30 * 20
    inked = np.abs(pixels[:300] - paper).max(-1) > 100
    assert inked.sum() > 500
