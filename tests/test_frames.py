"""Annotations held against images as they are read: sizes, EXIF turns, and every form of annotation alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scripts import script
from turned_scenes import BOX, SIDES, saved, stored_scene

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.frames import Frame, turned, turned_boxes
from ssl_backbones.data.upright import TURNS
from ssl_backbones.evaluate.detection import detect, detect_run
from ssl_backbones.evaluate.detection.open_annotated import open_annotated, open_kept_out
from ssl_backbones.evaluate.detection.squares import squares_of
from ssl_backbones.evaluate.frames import AnnotationsFrame, annotated_frames
from ssl_backbones.evaluate.segmentation import segment, segment_run
from ssl_backbones.evaluate.segmentation.masks import open_scenes
from ssl_backbones.runs import progress


class Encoded:
    """One image in memory."""

    def __init__(self, image: bytes) -> None:
        self.keys, self.image = ["a.png"], image

    def encoded(self, index: int) -> bytes:
        return self.image


SQUARE = (40, 40)


@pytest.mark.parametrize("choice", ["auto", "upright", "stored"])
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("sides", [SIDES, SQUARE])
def test_the_rule(sides: tuple[int, int], turn: int, choice: AnnotationsFrame) -> None:
    images = Encoded(saved(np.zeros((*sides[::-1], 3), np.uint8), turn))
    frame = Frame(sides, turn)

    def turn_by(stated: tuple[float, float] | None) -> int | str:
        try:
            (found,) = annotated_frames(images, [stated], choice, "'them'")
        except ImageSourceError as error:
            said = str(error)
            whole = "\n" not in said and "'a.png'" in said and "'them'" in said
            return ("asked" if "--annotations_frame" in said else "refused") if whole else said
        assert found is not None
        return found.turn

    asked = {"auto": "asked", "upright": 1, "stored": turn}[choice] if turn > 1 else 1
    tells = frame.upright != frame.stored
    assert turn_by(frame.upright) == (1 if tells else asked)
    assert turn_by(frame.stored) == (turn if tells else asked)
    assert turn_by(None) == asked
    for scale in (0.5, 2.0):
        assert turn_by((sides[0] * scale, sides[1] * scale)) == "refused"
    assert turn_by((sides[0], sides[1] + 1)) == "refused"


def test_an_image_that_cannot_be_read_is_left_to_the_account() -> None:
    assert annotated_frames(Encoded(b"torn"), [(3.0, 4.0)], "auto", "'them'") == [None]


def voc_file(root: Path, images: list[bytes], box: tuple[int, ...], size: tuple[int, int], mask: np.ndarray) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    left, top, right, bottom = box
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    corners = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    for number, image in enumerate(images):
        (root / "JPEGImages" / f"{number}.jpg").write_bytes(image)
        one = f"<annotation>{sides}<object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
        (root / "Annotations" / f"{number}.xml").write_text(one)
    for name in ("trainval", "test"):
        (root / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{number}\n" for number in range(len(images))))
    return root


def coco_file(root: Path, images: list[bytes], box: tuple[int, ...], size: tuple[int, int], mask: np.ndarray) -> Path:
    left, top, right, bottom = box
    polygon = [left, top, right, top, right, bottom, left, bottom]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).mkdir()
        for number, image in enumerate(images):
            (root / split / f"{number}.png").write_bytes(image)
        listed = [
            {"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]}
            for number in range(len(images))
        ]
        objects = [
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": [polygon],
            }
            for number in range(len(images))
        ]
        content = {"images": listed, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def parquet_file(
    root: Path, images: list[bytes], box: tuple[int, ...], size: tuple[int, int], mask: np.ndarray, paths: bool = False
) -> Path:
    """With `paths`, rows name files instead of holding bytes, of images and of masks."""
    root.mkdir(parents=True)

    def cell(name: str, content: bytes) -> dict[str, Any]:
        if not paths:
            return {"bytes": content, "path": None}
        (root / "files").mkdir(exist_ok=True)
        (root / "files" / name).write_bytes(content)
        return {"bytes": None, "path": f"files/{name}"}

    features = {"objects": {"feature": {"category": {"names": ["cat"], "_type": "ClassLabel"}}, "_type": "List"}}
    noted = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    encoded = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    drawn = saved(mask, 1)
    table = {
        "image": pa.array([cell(f"{number}.png", image) for number, image in enumerate(images)], encoded),
        "objects": [[{"bbox": [float(value) for value in box], "category": 0}]] * len(images),
        "instance_mask": pa.array([cell(f"mask{number}.png", drawn) for number in range(len(images))], encoded),
    }
    if root.name != "no_columns":
        table |= {"width": [size[0]] * len(images), "height": [size[1]] * len(images)}
    for split in ("train", "validation"):
        pq.write_table(pa.table(table).replace_schema_metadata(noted), root / f"{split}.parquet")
    return root


def path_rows(root: Path, images: list[bytes], box: tuple[int, ...], size: tuple[int, int], mask: np.ndarray) -> Path:
    return parquet_file(root, images, box, size, mask, paths=True)


def no_columns(root: Path, images: list[bytes], box: tuple[int, ...], size: tuple[int, int], mask: np.ndarray) -> Path:
    """The mask alone tells the size."""
    return parquet_file(root / "no_columns", images, box, size, mask)


FORMS: dict[str, Callable[..., Path]] = {
    "voc": voc_file,
    "coco": coco_file,
    "parquet": parquet_file,
    "parquet of paths": path_rows,
    "parquet without sizes": no_columns,
}


def annotated(make: Callable[..., Path], root: Path, turn: int, stored: bool, scale: float = 1.0) -> Path:
    """Three images under an EXIF turn, annotated as they are stored or as they are seen, and then resized."""
    levels = [stored_scene(seed) for seed in range(3)]
    frame = Frame(SIDES, turn)
    mask = np.zeros(SIDES[::-1], np.uint8)
    left, top, right, bottom = BOX
    mask[top:bottom, left:right] = 1
    size = SIDES if stored else frame.upright
    if not stored:
        ((left, top, right, bottom),) = turned_boxes(np.array([BOX], np.float32), frame).astype(int).tolist()
        mask = turned(mask, turn)
    shown = [Image.fromarray(each).resize([int(scale * side) for side in SIDES]) for each in levels]
    images = [saved(np.asarray(each), turn) for each in shown]
    return make(root, images, (left, top, right, bottom), size, mask)


def choice_of(turn: int, stored: bool) -> AnnotationsFrame:
    """The answer where the question is asked."""
    return "auto" if turn in (1, 5, 6, 7, 8) else "stored" if stored else "upright"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "upright"])
def test_boxes_and_masks_lie_on_their_object(form: str, turn: int, stored: bool, tmp_path: Path) -> None:
    spec = str(annotated(FORMS[form], tmp_path / "data", turn, stored))
    frame = choice_of(turn, stored)
    images = open_annotated(spec, frame=frame)
    for opened in (images, open_kept_out(spec, images, frame=frame)):
        for index in range(3):
            white = np.asarray(opened[index])[..., 0] > 200
            ((left, top, right, bottom),) = opened.objects[index].boxes.astype(int)
            inside = np.zeros_like(white)
            inside[top:bottom, left:right] = True
            assert (inside == white).all()
            if opened.masks is not None:
                (drawn,) = opened.drawn(index)[1]
                assert drawn.shape == white.shape
                assert (drawn != white).mean() < 0.03  # polygons take or leave a border
    found = squares_of(images, 40)
    white = np.asarray(found.levels)[:, 0] > 200
    assert (found.boxes.numpy() != white).mean() < 0.02
    assert (found.objects.numpy() != white).mean() < 0.03


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.5, 2])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_another_size_is_refused_in_every_form(form: str, scale: float, turn: int, tmp_path: Path) -> None:
    spec = annotated(FORMS[form], tmp_path / "data", turn, stored=True, scale=scale)
    with pytest.raises(ImageSourceError, match=rf"0\S* has .*are for 60 x 40 \(and 2 more.*at {scale} times") as caught:
        open_annotated(str(spec), frame="stored")
    assert str(int(SIDES[0] * scale)) in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("turn", [2, 3, 4])
def test_turns_that_keep_the_size_are_asked_about_in_every_form(form: str, turn: int, tmp_path: Path) -> None:
    spec = annotated(FORMS[form], tmp_path / "data", turn, stored=True)
    with pytest.raises(ImageSourceError, match="say --annotations_frame upright or --annotations_frame stored"):
        open_annotated(str(spec))


def voc_scenes(root: Path, images: list[bytes], mask: bytes) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, image in enumerate(images):
        (root / "JPEGImages" / f"{number}.png").write_bytes(image)
        (root / "SegmentationClass" / f"{number}.png").write_bytes(mask)
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{number}\n" for number in range(len(images))))
    return root


def parquet_scenes(root: Path, images: list[bytes], mask: bytes) -> Path:
    root.mkdir()
    rows = {"image": [{"bytes": image, "path": None} for image in images], "mask": [mask] * len(images)}
    pq.write_table(pa.table(rows), root / "train.parquet")
    return root


def path_scenes(root: Path, images: list[bytes], mask: bytes) -> Path:
    """Rows that name files, of images and of masks."""
    root.mkdir()
    for number, image in enumerate(images):
        (root / f"{number}.png").write_bytes(image)
        (root / f"mask{number}.png").write_bytes(mask)
    encoded = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = {
        name: pa.array([{"bytes": None, "path": f"{start}{number}.png"} for number in range(len(images))], encoded)
        for name, start in (("image", ""), ("mask", "mask"))
    }
    pq.write_table(pa.table(rows), root / "train.parquet")
    return root


SCENES: dict[str, Callable[..., Path]] = {"voc": voc_scenes, "parquet": parquet_scenes, "parquet of paths": path_scenes}


@pytest.mark.parametrize("form", SCENES)
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "upright"])
def test_segmentation_masks_lie_on_their_object(form: str, turn: int, stored: bool, tmp_path: Path) -> None:
    levels = stored_scene()
    mask = (levels[..., 0] > 200).astype(np.uint8)
    drawn = saved(mask if stored else turned(mask, turn), 1)
    spec = str(SCENES[form](tmp_path / "data", [saved(levels, turn)] * 2, drawn))
    if turn in (2, 3, 4):
        with pytest.raises(ImageSourceError, match="say --annotations_frame upright"):
            open_scenes(spec, "mask", ["train"])
    scenes = open_scenes(spec, "mask", ["train"], frame=choice_of(turn, stored))
    for index in range(2):
        assert (scenes.mask(index) == (np.asarray(scenes[index])[..., 0] > 200)).all()


@pytest.mark.parametrize("form", SCENES)
def test_segmentation_masks_of_another_size_are_refused(form: str, tmp_path: Path) -> None:
    mask = (stored_scene()[..., 0] > 200).astype(np.uint8)
    half = np.asarray(Image.fromarray(stored_scene()).resize((30, 20)))
    spec = SCENES[form](tmp_path / "data", [saved(half, 1)], saved(mask, 1))
    with pytest.raises(ImageSourceError, match=r"0\S* has 30 x 20 pixels.*are for 60 x 40: .*0\.5 times"):
        open_scenes(str(spec), "mask", ["train"])


def test_every_command_asks_and_takes_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = annotated(coco_file, tmp_path / "boxes", 3, stored=True)
    mask = saved((stored_scene()[..., 0] > 200).astype(np.uint8), 1)
    masks = voc_scenes(tmp_path / "masks", [saved(stored_scene(), 3)] * 2, mask)
    (masks / "ImageSets/Segmentation/val.txt").write_text("0\n")
    detection = replace(detect_run.PRESETS["small"], model="resnet8", out="out", data=str(boxes), batch_size=2)
    segmentation = replace(segment_run.PRESETS["small"], model="resnet8", out="out", data=str(masks), batch_size=2)
    for run, opening in ((detection, detect.open_data), (segmentation, segment.open_data)):
        with pytest.raises(ImageSourceError, match="say --annotations_frame upright or --annotations_frame stored"):
            opening(run)
        for images in opening(replace(run, annotations_frame="stored")):
            assert len(images) > 0
    few = ("--out", str(tmp_path / "out"), "--size", "24", "--curves", "0")
    with pytest.raises(SystemExit, match="2"):
        script("localise", ["resnet8", "--random", "--data", str(boxes), *few])
    assert "say --annotations_frame upright" in capsys.readouterr().err
    script("localise", ["resnet8", "--random", "--data", str(boxes), *few, "--annotations_frame", "upright"])
    assert (tmp_path / "out/results.json").is_file()


def test_what_several_threads_look_at_is_found_in_its_order() -> None:
    assert [*progress.looked_at(lambda index: 2 * index, 30, "looking")] == [2 * index for index in range(30)]
