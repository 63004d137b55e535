"""The picture of mined pairs shows the photos that the file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_backbones.commands import draw_pairs
from ssl_backbones.data import open_images
from ssl_backbones.mining import Pairs

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve plain photos, each class of a colour, each photo of a shade of it."""
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for shade in range(6):
            tone = tuple(level * (10 + shade) // 16 for level in colour)
            Image.new("RGB", (20, 10), tone).save(tmp_path / "photos" / name / f"{shade}.png")
    return tmp_path / "photos"


@pytest.fixture
def pairs(data: Path) -> Path:
    images = open_images(str(data))
    own = np.arange(12)
    rows = np.stack([own // 6 * 6 + (own + step) % 6 for step in (1, 2, 3, 4)], axis=1)
    Pairs(rows, {}).write(data.parent / "pairs.parquet", images)
    return data.parent / "pairs.parquet"


def test_each_row_is_a_photo_and_its_four_partners(data: Path, pairs: Path) -> None:
    out = data.parent / "pairs.png"
    draw_pairs.main([str(pairs), "--data", str(data), "--out", str(out), "--count", "12", "--side", "16"])
    drawn = np.asarray(Image.open(out))
    shades = [[level * (10 + shade) // 16 for level in colour] for colour in COLOURS.values() for shade in range(6)]
    for step in range(5):
        for own in range(12):
            partner = own // 6 * 6 + (own + step) % 6
            assert (drawn == shades[partner]).all(axis=2).sum() >= 5 * 16 * 8
    rows = [np.flatnonzero((drawn == shade).all(axis=2).any(axis=1)) for shade in shades]
    assert rows[0].max() < rows[6].min()  # blue stands above red, and no row mixes them


def test_refusals_are_a_sentence(data: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "pairs.png"
    out.touch()
    for words, expected in (
        ([str(pairs), "--data", str(data), "--out", str(out)], "exists: name another file"),
        ([str(pairs), "--data", str(data / "red"), "--out", str(data.parent / "b.png")], "mined from other images"),
        ([str(pairs), "--data", str(data), "--out", str(data.parent / "b.png"), "--count", "0"], "--help lists"),
    ):
        with pytest.raises(SystemExit) as end:
            draw_pairs.main(words)
        assert end.value.code == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("draw_pairs.py: ")
        assert expected in said
        assert len(said.splitlines()) == 1
