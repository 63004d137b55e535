"""From images with boxes and masks to a table of what maps are worth."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import drawn_image
from drawn_objects import coco, voc
from PIL import Image
from runs import image_folder, run, tiny
from scripts import script

from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.detection.open_annotated import open_annotated
from ssl_backbones.evaluate.detection.squares import Squares, middle, squares_of
from ssl_backbones.evaluate.localise import CENTRE, Row, chosen_on_the_others, table
from ssl_backbones.evaluate.maps import MapOptions, opened_models
from ssl_backbones.methods import LewelBConfig
from ssl_backbones.metrics import pointing_game

IMAGES = 6


def encoded(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(path: Path, drop: tuple[str, ...] = ()) -> Path:
    """Images with an object in the left half of the middle square, and a crowd at the right."""
    columns: dict[str, list[Any]] = {"image": [], "objects": [], "instance_mask": []}
    for number in range(IMAGES):
        width, height = 40 + 2 * number, 30
        mask = np.zeros((height, width), np.uint8)
        mask[10:20, 8:18] = 1
        mask[5:9, 30:36] = 255
        columns["image"].append(encoded(drawn_image(number, width, height)))
        crowd = {"bbox": [30.0, 5.0, 36.0, 9.0], "iscrowd": True}
        columns["objects"].append([{"bbox": [8.0, 10.0, 18.0, 22.0], "iscrowd": False}, crowd])
        columns["instance_mask"].append(encoded(Image.fromarray(mask)))
    pq.write_table(pa.table({name: values for name, values in columns.items() if name not in drop}), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("annotated") / "photos.parquet")


@pytest.fixture(scope="module")
def lewel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lewel")
    return run(tiny(LewelBConfig, image_folder(path / "photos"), path / "run")).path


def squares(data: str, size: int) -> Squares:
    """The squares of annotated images."""
    return squares_of(open_annotated(data, column="any"), size)


def call(data: Path, out: Path, *more: str, models: tuple[str, ...] = ("resnet8", "--random")) -> None:
    few = ("--size", "24", "--curves", "3", "--steps", "2", "--batch_size", "4")
    script("localise", [*models, "--data", str(data), "--out", str(out), *few, *more])


class TestAnnotated:
    def test_objects_are_cut_as_their_images_are(self, data: Path) -> None:
        found = squares(str(data), 30)
        assert found.levels.shape == (IMAGES, 3, 30, 30)
        assert found.masks is not None
        for number in range(IMAGES):
            left = (40 + 2 * number - 30) / 2  # of the middle square, at its own scale
            columns = torch.arange(30) + 0.5 + left
            rows = torch.arange(30) + 0.5
            wide = (columns > 8) & (columns < 18)
            assert torch.equal(found.boxes[number], ((rows > 10) & (rows < 22))[:, None] & wide)
            assert torch.equal(found.masks[number], ((rows > 10) & (rows < 20))[:, None] & wide)
        assert found.objects is found.masks
        assert middle(Image.new("RGB", (9, 4)), 7, Image.Resampling.NEAREST).size == (7, 7)

    def test_boxes_alone_will_do(self, tmp_path: Path) -> None:
        found = squares(str(write(tmp_path / "boxes.parquet", drop=("instance_mask",))), 16)
        assert found.masks is None
        assert found.objects is found.boxes

    @pytest.mark.parametrize("make", [voc, coco])
    def test_other_annotations_do_as_well(self, make: Callable[[Path], Path], tmp_path: Path) -> None:
        found = squares(str(make(tmp_path / "objects")), 32)
        assert 0 < found.boxes.float().mean() < 1
        assert (found.masks is None) == (make is voc)

    def test_refusals(self, tmp_path: Path) -> None:
        bare = write(tmp_path / "bare.parquet", drop=("objects",))
        with pytest.raises(ImageSourceError, match=r"has no column 'objects' \(columns: image, instance_mask\)"):
            squares(str(bare), 16)
        with pytest.raises(ImageSourceError, match="has no objects: give a VOC folder"):
            squares(str(image_folder(tmp_path / "folder", 2)), 16)
        rows = pq.read_table(write(tmp_path / "odd.parquet")).to_pylist()
        rows[2]["instance_mask"] = encoded(Image.new("L", (3, 3)))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "odd.parquet")
        with pytest.raises(
            ImageSourceError, match=r"parquet:2' has 44 x 30 pixels, and its annotations in .* are for 3 x 3"
        ):
            squares(str(tmp_path / "odd.parquet"), 16)

    def test_the_real_images(self, shared_data: Path) -> None:
        found = squares(str(shared_data / "voc_mini" / "validation.parquet"), 64)
        assert found.masks is not None
        assert len(found.levels) == 147
        inside = (found.masks & found.boxes).sum() / found.masks.sum()
        assert inside > 0.95
        assert 0.2 < found.masks.float().mean() < found.boxes.float().mean() < 0.7


def test_the_table_and_the_numbers_are_left(
    data: Path, lewel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(data, tmp_path / "out", "--with_random", models=(str(lewel),))
    said = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text().strip() == said.strip()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    maps = ["uniform", CENTRE, "grad_cam", "norm", "principal", "alignment, average map", "alignment, chosen map"]
    for network in (str(lewel), f"{lewel} (random weights)"):
        for name in maps:
            measures = ["pointing", "energy"] + ["deletion", "insertion"] * (name != "alignment, average map")
            for measure in measures:
                number = results["numbers"][f"{network}, {name}, {measure}"]
                assert 0 <= number["low"] <= number["value"] <= number["high"] <= 1
            assert f"| {network} | {name} |" in said
    assert (results["protocol"], results["settings"]["size"], results["data"]["images"]) == ("localisation", 24, IMAGES)
    found = squares(str(data), 24)
    uniform = results["numbers"][f"{lewel}, uniform, energy"]["value"]
    assert uniform == pytest.approx(found.objects.double().mean().item())
    blind = pointing_game(torch.ones(IMAGES, 24, 24), found.boxes, 0.03 * 24).mean().item()
    assert results["numbers"][f"{lewel}, uniform, pointing"]["value"] == pytest.approx(blind)
    assert "Better than the centre prior in pointing: " in said


def test_the_same_command_finds_the_same(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        call(data, tmp_path / name)
    assert (tmp_path / "one" / "table.md").read_text() == (tmp_path / "two" / "table.md").read_text()
    assert "alignment" not in (tmp_path / "one" / "table.md").read_text()


def test_a_map_is_chosen_by_images_it_is_not_judged_on() -> None:
    energy = torch.tensor([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.9, 0.1, 0.5], [0.1, 0.9, 0.5]])
    assert chosen_on_the_others(energy).tolist() == [1, 0, 1, 0]


def test_a_verdict_needs_the_whole_interval() -> None:
    spread = torch.linspace(0, 0.4, 9)
    centre = Row("net", CENTRE, {"pointing": spread, "energy": spread})
    better = Row("net", "good", {"pointing": spread + torch.linspace(0.1, 0.3, 9), "energy": spread})
    said = table([centre, better])
    assert "Better than the centre prior in pointing: good of net. The other 0 of 1 are not shown to be." in said
    assert "Better than the centre prior in energy: none. The other 1 of 1 are not shown to be." in said
    assert "| net | good | 0.400 [0.242, 0.558] | 0.200 [0.095, 0.305] | +0.200 [+0.147, +0.253]" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "layer9"), "has no layer 'layer9': choose one of act1, layer1, layer2, layer3"),
        (("--curves", "1"), "curves is 1, but must be 0, or 2 images at least"),
        (("--tolerance", "2"), "tolerance is 2.0, but must be a share from 0 to 1"),
        (("--size", "4"), "size is 4, but must be at least 8"),
        (("--max_pixels", "1200"), "42 x 30 pixels are more than the 1200 allowed: allow them with --max_pixels 1260"),
        (("--max_pixels", "0"), "max_pixels is 0, but must be at least 1"),
    ],
)
def test_refusals(
    data: Path, tmp_path: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(data, tmp_path / "out", *words)
    said = capsys.readouterr().err.strip()
    assert said.startswith("localise.py: ")
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize("inside", [0, 1])
@pytest.mark.parametrize("drop", [(), ("instance_mask",)])
def test_objects_beside_the_square_are_refused_before_a_model_sees_an_image(
    inside: int,
    drop: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = pq.read_table(write(tmp_path / "all.parquet", drop)).to_pylist()
    for row in rows[inside:]:
        row["objects"] = [{"bbox": [0.0, 10.0, 4.0, 22.0], "iscrowd": False}]
        if not drop:
            width, height = Image.open(io.BytesIO(row["image"]["bytes"])).size
            mask = np.zeros((height, width), np.uint8)
            mask[10:20, 0:4] = 1
            row["instance_mask"] = encoded(Image.fromarray(mask))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "beside.parquet")
    monkeypatch.setattr("ssl_backbones.evaluate.localise.Measurement", None)
    with pytest.raises(SystemExit, match="2"):
        call(tmp_path / "beside.parquet", tmp_path / "out")
    assert f"{inside} of {IMAGES} images in" in capsys.readouterr().err


def test_what_is_there_is_kept(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        call(data, tmp_path)
    assert "holds results: name another folder with --out, or pass --overwrite" in capsys.readouterr().err
    call(data, tmp_path, "--overwrite", "--curves", "0")
    assert "deletion" not in (tmp_path / "table.md").read_text()
    with pytest.raises(SystemExit, match="2"):
        call(data, tmp_path / "none", models=("resnet20_moco_v2",))
    assert "no weights are published" in capsys.readouterr().err


def test_a_network_that_is_asked_for_twice_is_measured_once() -> None:
    asked = MapOptions(("resnet8_byol", "resnet8_byol"), "", Path(), size=32, random=True, with_random=True)
    assert [model.name for model in opened_models(asked)] == ["resnet8_byol (random weights)"]
    asked = replace(asked, random=False)
    assert [model.name for model in opened_models(asked)] == ["resnet8_byol", "resnet8_byol (random weights)"]
