"""The page of a run while it trains: written at each measurement, of no weight, and gone without a loss."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runs import after, asked_to_stop, elsewhere, outcome, run, run_whole, tiny
from whole_runs import data

from ssl_backbones.files import write_file
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.train import live_page
from ssl_backbones.train.live_page import RELOAD

__all__ = ["data"]

AGAIN = f'<meta http-equiv="refresh" content="{RELOAD}">'


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that are written while runs train, in order."""
    written: list[str] = []

    def keep(path: Path, content: bytes) -> None:
        written.append(content.decode())
        write_file(path, content)

    monkeypatch.setattr(live_page, "write_file", keep)
    return written


def test_the_page_is_written_at_each_measurement(data: Path, tmp_path: Path, pages: list[str]) -> None:
    folder = run_whole(tiny(BYOLConfig, data, tmp_path / "run", epochs=3)).path
    places = [re.search(r"Training, step (\d+) of 9", page)[1] for page in pages]
    assert places == ["0", "3", "6", "9"]
    assert all(AGAIN in page and "resnet8_tiny.photos" in page for page in pages)
    assert [page.count("<circle") > 0 for page in pages] == [True] * 4
    assert "Effective rank of the features: from" in pages[-1]
    last = (folder / "gallery.html").read_text()
    assert AGAIN not in last
    assert "Nearest neighbours" in last
    assert "<dt>Duration</dt>" in last


def test_training_is_the_same_with_and_without_a_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "with")
    run(recipe, page=True)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_page, "write_file", full)
    capsys.readouterr()
    run(elsewhere(recipe, tmp_path / "without"), page=True)
    assert capsys.readouterr().out.count("gallery.html was not written, and training goes on") == 1
    assert outcome(tmp_path / "with") == outcome(tmp_path / "without")


@pytest.mark.parametrize("ends", ["stopped", "broken"])
def test_the_page_of_a_run_that_ended_early_says_so(ends: str, data: Path, tmp_path: Path, pages: list[str]) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run")

    def breaks() -> None:
        raise ZeroDivisionError

    with pytest.raises((SystemExit, ZeroDivisionError)), after(4, asked_to_stop if ends == "stopped" else breaks):
        run(recipe, page=True)
    assert "Ended early, at step 4 of 6: the same command goes on." in pages[-1]
    assert AGAIN not in pages[-1]
    count = len(pages)
    run(recipe, page=True)
    assert AGAIN in pages[count]
