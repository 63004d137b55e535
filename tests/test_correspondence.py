"""From images with masks to what leads from object to object: the measure, the pairs, and the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from runs import image_folder, run, tiny
from scenes import COLOURS, DrawnScenes, png
from scripts import script
from torch import Tensor

from ssl_backbones import commands
from ssl_backbones.evaluate.alignments import matched, mixed, nearest
from ssl_backbones.evaluate.correspondence import PLACE
from ssl_backbones.evaluate.scene_pairs import ScenePairs, pairs_of
from ssl_backbones.methods import LewelBConfig, PixProConfig
from ssl_backbones.metrics import on_same_object

COUNT = 12


@pytest.fixture(scope="module")
def pairs() -> ScenePairs:
    return pairs_of(DrawnScenes(COUNT), 32, (0.4, 1.0), seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of coloured rectangles with the masks that their colours are of, in a file."""
    scenes, path = DrawnScenes(COUNT), tmp_path_factory.mktemp("pairs") / "scenes.parquet"
    images = [{"bytes": scenes.encoded(at), "path": None} for at in range(COUNT)]
    masks = [{"bytes": scenes.encoded_mask(at), "path": None} for at in range(COUNT)]
    pq.write_table(pa.table({"image": images, "mask": masks}), path)
    return path


def test_the_measure_is_its_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, objects, other = (torch.rand(2, 3, 4, generator=generator) for _ in range(4))
    other[0, 1] = 0  # an object that the second view does not show
    objects[1] = 0
    found = on_same_object(first, second, objects, other)
    top = bottom = 0.0
    for n in range(3):
        for k in (0, 2):
            here = sum(float(first[0, n, p] * objects[0, k, p]) for p in range(4))
            there = sum(float(second[0, n, p] * other[0, k, p]) for p in range(4))
            top, bottom = top + here * there, bottom + here
    assert found[0].item() == pytest.approx(top / bottom, rel=1e-5)
    assert found[1].isnan()


def test_masks_lie_where_their_images_do(pairs: ScenePairs) -> None:
    """The colour of a pixel is that of its class, in both views, mirrored ones too."""
    colours = torch.from_numpy(COLOURS.astype(np.int64))
    alike, flipped = [], 0
    for at in range(COUNT):
        for view in range(2):
            mask = pairs.masks[view, at].long()
            told = mask < len(colours)
            apart = (pairs.levels[view, at].long() - colours[mask.clamp(max=3)]).abs().amax(2)
            alike.append((apart[told] < 40).float().mean().item())
            flipped += bool(pairs.corners[view, at, 0] > pairs.corners[view, at, 2])
    assert min(alike) > 0.9
    assert 0 < flipped < 2 * COUNT


def scored(pairs: ScenePairs, align: Callable[[Tensor, Tensor, Tensor], Any], views: Tensor) -> float:
    first, second = align(views[0], views[1], pairs.corners)
    found = on_same_object(first, second, *pairs.objects(slice(0, COUNT), (8, 8)))
    return float(found[~found.isnan()].mean())


def test_features_that_know_the_class_lead_to_it_and_others_do_not(pairs: ScenePairs) -> None:
    """One feature a class: correspondences and maps stay on the object; of noise they are as good as chance."""
    classes = torch.stack([(pairs.masks == kind).float() for kind in range(4)], dim=2)
    knowing = torch.stack([torch.nn.functional.adaptive_avg_pool2d(view, 8) for view in classes])
    noise = torch.randn(2, COUNT, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    chance = scored(pairs, lambda *views: (*matched(*views)[:1], torch.full((COUNT, 1, 64), 1 / 64)), noise)
    for align in (matched, mixed):
        assert scored(pairs, align, knowing) > chance + 0.4
        assert abs(scored(pairs, align, noise) - chance) < 0.08
    assert scored(pairs, nearest, noise) > chance + 0.1


@pytest.fixture(scope="module")
def called(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of runs with maps and embeddings of their own, and of random weights."""
    path = tmp_path_factory.mktemp("correspond")
    photos = image_folder(path / "photos")
    runs = [str(run(tiny(kind, photos, path / kind.name, epochs=1)).path) for kind in (LewelBConfig, PixProConfig)]
    few = ("--size", "32", "--batch_size", "5", "--shown", "2", "--with_random", "--data", str(data))
    assert commands.main(["correspond", *runs, *few, "--out", str(path / "found")]) == 0
    return path / "found"


@pytest.mark.slow
def test_everything_is_measured_told_and_shown(called: Path) -> None:
    results = json.loads((called / "results.json").read_text())
    kinds = [line.split(" | ")[2] for line in (called / "table.md").read_text().splitlines()[2:] if " | " in line]
    assert kinds.count(PLACE) == 1
    assert kinds.count("LEWEL's alignment maps") == 2  # the run's, and those of its network with random weights
    assert kinds.count("PixPro's map of its own embeddings") == 1
    assert len(kinds) == 1 + 3 * 2 + 3
    assert len(results["numbers"]) == 2 * len(kinds)
    for name, number in results["numbers"].items():
        assert number["low"] <= number["value"] <= number["high"], name
    with Image.open(called / "pairs.png") as figure:
        assert figure.width > 128 * (1 + len(kinds))
        assert figure.height > 128 * 4


@pytest.mark.parametrize("name", ["table.md", "pairs.png"])
def test_somebodys_file_is_kept(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(b"somebody's")
    words = ["correspond", "resnet8", "--random", "--size", "32", "--data", str(data), "--out", str(tmp_path)]
    assert commands.main(words) == 2
    assert f"{tmp_path / name} exists: name another folder with --out, or pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"somebody's"
    assert commands.main([*words, "--overwrite"]) == 0
    assert (tmp_path / name).read_bytes() != b"somebody's"


def test_a_network_without_feature_maps_is_refused_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["resnet8", "vit_tiny_patch16_224", "--random", "--size", "224", "--data", str(data)]
    assert commands.main(["correspond", *words, "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert "a method needs feature maps" in said
    assert "measured on" not in said


def test_results_are_the_same_in_other_parts(data: Path, tmp_path: Path) -> None:
    found = []
    for number, size in enumerate(("3", "12")):
        out = tmp_path / str(number)
        words = ["resnet8", "--random", "--size", "32", "--data", str(data), "--batch_size", size, "--shown", "0"]
        script("correspond", [*words, "--out", str(out)])
        found.append(json.loads((out / "results.json").read_text())["numbers"])
        assert not (out / "pairs.png").exists()
    for name, number in found[0].items():
        assert number == pytest.approx(found[1][name], rel=1e-4)


def test_what_cannot_be_measured_is_refused_in_a_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.parquet"
    sizes = [DrawnScenes(COUNT)[at].size for at in range(COUNT)]
    bare = [{"bytes": png(np.zeros((height, width), np.uint8)), "path": None} for width, height in sizes]
    pq.write_table(pq.read_table(data).set_column(1, "mask", pa.array(bare)), empty)
    full = tmp_path / "full"
    full.mkdir()
    (full / "results.json").write_text("{}")
    for words, sentence in (
        (["--data", str(empty), "--out", str(tmp_path / "o")], "0 of 12 images in .* show an object in both views"),
        (["--data", str(data), "--out", str(full)], "holds results: name another folder with --out"),
        (["--data", str(data), "--out", str(tmp_path / "o"), "--mask_column", "image2"], "no column 'image2' of masks"),
        (["--data", str(data), "--out", str(tmp_path / "o"), "--area", "0", "1"], "area is"),
        (["--data", str(data), "--out", str(tmp_path / "o"), "--size", "4"], "size is 4"),
    ):
        assert commands.main(["correspond", "resnet8", "--random", *words]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("ssl-backbones correspond: ")
        assert re.search(sentence, said), said
