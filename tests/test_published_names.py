"""No name of anybody's file is published with the images that could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published import TERMS
from runs import image_folder, run, tiny
from scripts import script

from ssl_backbones.hub.publishing.names import without_names
from ssl_backbones.methods import MoCoV2Config
from ssl_backbones.runs import checkpoint

SECRET = "birthday_of_somebody"


@pytest.mark.parametrize(
    ("told", "published"),
    [
        ({"unreadable": ["a.jpg"], "unreadable_beside": []}, {"unreadable": 1, "unreadable_beside": 0}),
        ({"bank": {"images": 3, "unreadable": ["a", "b"]}}, {"bank": {"images": 3, "unreadable": 2}}),
        ({"parts": [{"unreadable": ["a"]}]}, {"parts": [{"unreadable": 1}]}),
        (
            {"settings": {"unreadable_share": 0.5, "names": ["a"]}},
            {"settings": {"unreadable_share": 0.5, "names": ["a"]}},
        ),
    ],
)
def test_numbers_stand_in_place_of_names(told: dict, published: dict) -> None:
    assert without_names(told) == published
    assert without_names(published) == published


def test_nothing_published_names_an_unreadable_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = image_folder(tmp_path / "photos")
    (images / "bag" / f"{SECRET}.jpg").write_bytes(b"torn")
    folder = run(tiny(MoCoV2Config, images, tmp_path / "run")).path
    assert SECRET in (folder / "results.json").read_text()
    out = tmp_path / "out"
    words = ["--repo", "org/resnet8_moco_v2.photos", "--yes", *TERMS, "--with_state", "--dry_run", "--out", str(out)]
    script("publish", [str(folder), *words])
    files = [path for path in out.rglob("*") if path.is_file()]
    assert any("checkpoints" in path.parts for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["unreadable"] == 1
    assert "| unreadable images left out | 1 |" in (out / "README.md").read_text()
    assert checkpoint.load_latest(out / "checkpoints") is not None
