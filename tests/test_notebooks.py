"""The notebooks run from their first cell to their last, and are committed with what they printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from ssl_backbones.recipes import get

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'ssl-backbones[docs]'")
BOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_three() -> None:
    assert len(BOOKS) == 3


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_its_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert str(ROOT.parent) not in path.read_text(encoding="utf-8")


def test_the_outputs_are_those_of_todays_sample_recipe() -> None:
    told = (ROOT / "docs" / "notebooks" / "own_images.ipynb").read_text(encoding="utf-8")
    assert f'"{get("sample").epochs} epochs of ' in told


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'ssl-backbones[docs]'")
    shutil.copytree(ROOT / "training" / "sample_photos", tmp_path / "training" / "sample_photos")
    book = nbformat.read(path, 4)
    client.NotebookClient(book, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
