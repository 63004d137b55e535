"""Near-copies of training images among the validation images are counted and named, whatever holds them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluations import evaluated, refusal
from PIL import Image
from torch.nn.functional import cosine_similarity

from ssl_backbones.metrics.near_copies import nearest_of_bank

TRAIN, COPIES, OTHERS = 40, 7, 9


def scene(seed: int) -> Image.Image:
    """An image of coarse patches, unlike any of another seed."""
    levels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(levels).resize((48, 48), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def contents() -> dict[str, dict[str, bytes]]:
    """Training images, and validation images of which the first are smaller and more coarsely saved copies."""
    train = {f"{n:02}.jpg": encoded(scene(n), 95) for n in range(TRAIN)}
    copies = {f"copy_{n}.jpg": encoded(scene(n).resize((40, 40)), 75) for n in range(COPIES)}
    return {"train": train, "val": copies | {f"own_{n}.jpg": encoded(scene(1000 + n), 90) for n in range(OTHERS)}}


def bare_folder(path: Path) -> Path:
    for split, images in contents().items():
        (path / split).mkdir(parents=True)
        for name, content in images.items():
            (path / split / name).write_bytes(content)
    return path


def class_folders(path: Path) -> Path:
    for split, images in contents().items():
        for number, (name, content) in enumerate(images.items()):
            folder = path / split / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return path


def parquet(path: Path) -> Path:
    path.mkdir()
    for split, images in contents().items():
        rows = [{"bytes": content, "path": name} for name, content in images.items()]
        pq.write_table(pa.table({"image": rows}), path / f"{split.replace('val', 'validation')}.parquet")
    return path


@pytest.mark.parametrize("source", [bare_folder, class_folders, parquet])
def test_near_copies_are_counted_and_named(source, tmp_path: Path, capsys) -> None:
    results = evaluated("diagnose", source(tmp_path / "data"), tmp_path / "out")
    found = results["near_copies"]
    assert (found["correct"], found["of"], found["cosine"]) == (COPIES, COPIES + OTHERS, 0.99)
    lines = [line.split("\t") for line in (tmp_path / "out" / "near_copies.txt").read_text().splitlines()]
    assert len(lines) == COPIES
    assert [float(line[0]) for line in lines] == sorted((float(line[0]) for line in lines), reverse=True)
    if source is not parquet:  # whose keys are rows
        names = {(Path(asked).stem, Path(known).stem) for _, asked, known in lines}
        assert names == {(f"copy_{n}", f"{n:02}") for n in range(COPIES)}
    else:
        assert all(asked.rpartition(":")[2] == known.rpartition(":")[2] for _, asked, known in lines)
    said = capsys.readouterr().out
    assert said.count("nearly the same:") == 3
    assert "near-copies of training images among the validation images: 43.8 %" in said
    assert "copy_" not in json.dumps(results)


def test_without_validation_images_or_by_choice_none_are_looked_for(tmp_path: Path) -> None:
    data = bare_folder(tmp_path / "data")
    none = evaluated("diagnose", data, tmp_path / "none", "--copies", "0")
    alone = evaluated("diagnose", data / "train", tmp_path / "alone", "--validation", str(data / "train"))
    assert "near_copies" not in none
    assert alone["near_copies"]["value"] == 1
    few = evaluated("diagnose", data, tmp_path / "few", "--copies", "5")
    assert few["near_copies"]["of"] == 5


def test_a_negative_count_is_refused(tmp_path: Path, capsys) -> None:
    said = refusal(capsys, "diagnose", tmp_path, tmp_path / "out", "--copies", "-1")
    assert "copies is -1, but must be at least 0" in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_nearest_is_that_of_a_loop(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = (3 + torch.randn(50, 6, generator=generator)).to(dtype)
    queries = torch.cat([bank[:4], (3 + torch.randn(20, 6, generator=generator)).to(dtype)])
    monkeypatch.setattr("ssl_backbones.metrics.near_copies.BLOCK", 150)  # three queries at once
    cosines, rows = nearest_of_bank(bank, queries)
    mean = bank.float().mean(0)
    for query, cosine, row in zip(queries, cosines, rows, strict=True):
        every = [float(cosine_similarity(query.float() - mean, other.float() - mean, dim=0)) for other in bank]
        assert row == int(np.argmax(every))
        assert cosine == pytest.approx(max(every), abs=1e-5)
    assert rows[:4].tolist() == [0, 1, 2, 3]


def test_features_that_do_not_fit_are_refused() -> None:
    for bank, queries in ((torch.ones(3, 2), torch.ones(3, 4)), (torch.ones(0, 2), torch.ones(3, 2))):
        with pytest.raises(ValueError, match="of one D, N at least 1"):
            nearest_of_bank(bank, queries)
