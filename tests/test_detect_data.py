"""Images with objects from VOC folders, COCO annotations and parquet files, and what is refused of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_objects import NAMES, coco, parquet, png, scene, voc, xml
from PIL import Image
from scenes import voc_folder

from ssl_backbones.data import ImageSourceError, Request
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.box_views import BoxBatches, ResizeFlip
from ssl_backbones.evaluate.detection.open_annotated import open_annotated, open_kept_out
from ssl_backbones.evaluate.detection.voc_folder import VOC_CLASSES
from ssl_backbones.evaluate.segmentation.masks import open_scenes

KINDS: dict[str, Callable[[Path], Path]] = {"voc": voc, "coco": coco, "parquet": parquet}


@pytest.fixture(params=list(KINDS))
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of each kind, with four scenes to train on and four to be tested on."""
    return KINDS[request.param](tmp_path / request.param)


def test_every_source_gives_the_same_objects(root: Path) -> None:
    images = open_annotated(str(root))
    # COCO's classes come in the order of their numbers, and there the dog's is the lower.
    names = ("dog", "cat") if root.name == "coco" else NAMES
    assert len(images) == 4
    for number in range(4):
        objects, expected = images.objects[number], scene(number)
        assert objects.boxes.tolist() == [list(box) for box in expected.boxes]
        labels = [images.classes[label] for label in objects.labels]
        if root.name == "voc":
            assert images.classes[:2] != list(NAMES)  # VOC's own twenty
        else:
            assert images.classes == list(names)
        assert labels == [NAMES[label] for label in expected.labels]
        assert images[number].size == expected.image.size
    assert images.metric == ("voc" if root.name == "voc" else "coco")


def test_what_is_kept_out_has_the_classes_of_training(root: Path) -> None:
    images = open_annotated(str(root))
    kept_out = open_kept_out(str(root), images)
    assert kept_out.classes == images.classes
    assert [len(found) for found in kept_out.objects] == [len(scene(number).boxes) for number in range(4, 8)]
    assert kept_out.fingerprint != images.fingerprint


def test_masks_are_the_objects_own(root: Path) -> None:
    images = open_annotated(str(root))
    if root.name == "voc":
        with pytest.raises(ImageSourceError, match="has boxes alone: take a head without masks"):
            images.require_masks("the head mask_fpn")
        return
    objects, masks = images.drawn(0)
    expected = scene(0).numbers
    assert masks.dtype == np.uint8
    assert masks.shape == (2, *expected.shape)
    for number, mask in enumerate(masks, start=1):
        assert (mask == (expected == number)).mean() > 0.98  # polygons take or leave a border
    assert len(objects) == 2
    assert images.drawn(3)[1].shape[0] == 0


def test_the_fingerprint_tells_annotations_apart_and_not_places(tmp_path: Path) -> None:
    first, second = voc(tmp_path / "a"), voc(tmp_path / "b")
    assert open_annotated(str(first)).fingerprint == open_annotated(str(second)).fingerprint
    file = second / "Annotations" / "000000.xml"
    file.write_text(xml(scene(0), difficult=1))
    assert open_annotated(str(first)).fingerprint != open_annotated(str(second)).fingerprint


def test_several_voc_folders_with_their_lists_are_one_source(tmp_path: Path) -> None:
    first, second = voc(tmp_path / "VOC2007"), voc(tmp_path / "VOC2012", train=3)
    images = open_annotated(f"{first}:trainval,{second}")
    assert len(images) == 7
    assert len(set(images.keys)) == 7
    assert images[6].size == scene(2).image.size
    assert len(open_annotated(f"{first}:test")) == 4


def test_difficult_objects_and_crowds_are_ignored_in_a_test_and_only_crowds_in_training(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc")
    (root / "Annotations" / "000000.xml").write_text(xml(scene(0), difficult=1))
    difficult = open_annotated(str(root))
    assert difficult.objects[0].ignored.all()
    batches = BoxBatches(difficult, ResizeFlip(80, 80, 96, 0.0), 0, masks=False)
    assert len(batches[Request(0, np.array([0]))].content[1][0]["boxes"]) == 2
    other = coco(tmp_path / "coco")
    edit(other, lambda content: content["annotations"][0].update(iscrowd=1))
    crowd = open_annotated(str(other))
    assert crowd.objects[0].ignored.tolist() == [True, False]
    batches = BoxBatches(crowd, ResizeFlip(80, 80, 96, 0.0), 0, masks=False)
    assert len(batches[Request(0, np.array([0]))].content[1][0]["boxes"]) == 1


def edit(root: Path, change: Callable[[dict[str, Any]], Any], name: str = "train2017") -> None:
    """Alter a COCO file."""
    file = root / "annotations" / f"instances_{name}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_boxes_of_no_area_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = coco(tmp_path / "coco")

    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"][2] = 0
        content["annotations"][1]["bbox"] = [500, 10, 20, 20]  # beyond the image
        content["annotations"][2]["bbox"][3] = float("nan")

    edit(root, spoil)
    images = open_annotated(str(root))
    assert images.dropped == 3
    assert sum(map(len, images.objects)) == 3
    assert "3 objects without an area" in caplog.text
    assert "instances_train2017.json' were left out, the first is annotation 1 of '0.png'" in caplog.text
    objects, masks = images.drawn(1)  # masks stay with their objects
    assert len(objects) == len(masks) == 1
    left, top, right, bottom = objects.boxes[0].astype(int)
    assert masks[0, top:bottom, left:right].mean() > 0.9


def refused(spec: Path | str, *expected: str) -> None:
    """The sentence that a source is refused with."""
    with pytest.raises(ImageSourceError) as caught:
        open_annotated(str(spec))
    for words in expected:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read"),
        ("", "cannot be read as XML"),
        ("<annotation>", "cannot be read as XML"),
        (xml(scene(0), ("cat", "")), "without name"),
        ("<annotation><object><name>cat</name></object></annotation>", "without bndbox"),
        (xml(scene(0)).replace("<xmin>", "<xmin>x"), "which is no number"),
        (
            '<!DOCTYPE a [<!ENTITY b "cat"><!ENTITY c "&b;&b;">]>' + xml(scene(0)).replace(">cat<", ">&c;<"),
            "declares a document type",
        ),
    ],
)
def test_a_bad_voc_annotation_is_refused_by_its_name(tmp_path: Path, content: str | None, expected: str) -> None:
    root = voc(tmp_path / "voc")
    file = root / "Annotations" / "000000.xml"
    file.unlink()
    if content is not None:
        file.write_text(content)
    refused(root, "000000.xml", expected)


def test_a_document_type_is_refused_in_any_encoding(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc")
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "cat">]>' + xml(scene(0))
    (root / "Annotations" / "000000.xml").write_bytes(text.encode("utf-16"))
    refused(root, "declares a document type")


def test_lists_that_are_missing_or_empty_are_refused(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc")
    refused(f"{root}:nothing", "nothing.txt", "lists there: test, trainval")
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("\n")
    refused(root, "trainval.txt", "names no image")


@pytest.mark.parametrize(("make", "place"), [(voc, "Main/trainval"), (voc_folder, "Segmentation/train")])
def test_a_list_in_another_encoding_is_refused_by_the_name_in_it(
    make: Callable[[Path], Path], place: str, tmp_path: Path
) -> None:
    root = make(tmp_path / "voc")
    (root / "ImageSets" / f"{place}.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ImageSourceError, match=r"caf\ufffd.* take .* off (its|the) list"):
        open_annotated(str(root)) if make is voc else open_scenes(str(root), "mask", ["train"])


def test_lists_of_all_classes_are_told_before_those_of_one(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc")
    for name in VOC_CLASSES:
        (root / "ImageSets" / "Main" / f"{name}_train.txt").touch()
    refused(f"{root}:nothing", "lists there: test, trainval, aeroplane_train, ", " and 14 more)")


def test_a_class_that_training_lacks_is_refused_by_the_file(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", names=("cat", "dragon"))
    images = open_annotated(str(root))
    assert images.classes == ["cat", "dragon"]
    (root / "Annotations" / "000004.xml").write_text(xml(scene(4), ("unicorn", "unicorn")))
    with pytest.raises(ImageSourceError, match=r"000004\.xml' names the class 'unicorn'"):
        open_kept_out(str(root), images)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.pop("annotations"), "no list of annotations"),
        (lambda content: content["annotations"][0].pop("bbox"), "without bbox"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "annotation 1 of '0.png' in"),
        (lambda content: content["annotations"][0].update(image_id=99), "image 99, which it does not list"),
        (lambda content: content["annotations"][0].update(category_id=99), "the class 'number 99'"),
        (lambda content: content["annotations"].clear(), "holds no object"),
        (
            lambda content: content["annotations"][0].update(segmentation={"size": [8, 9], "counts": [72]}),
            "annotation 1 of '0.png' in",
        ),
        (lambda content: [image.update(file_name="none.png") for image in content["images"]], "'none.png'"),
    ],
)
def test_bad_coco_annotations_are_refused_by_their_file(tmp_path: Path, change: Any, expected: str) -> None:
    root = coco(tmp_path / "coco")
    edit(root, change)
    refused(root, "instances_train2017.json", expected)


def test_a_coco_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    (root / "annotations" / "instances_train2017.json").write_text("{")
    refused(root, "it is no JSON")


def rewritten(root: Path, column: str, values: list[Any]) -> Path:
    """A parquet file with another column of values."""
    table = pq.read_table(root / "train.parquet")
    at = table.schema.get_field_index(column)
    pq.write_table(table.set_column(at, column, pa.array(values, table[column].type)), root / "train.parquet")
    return root


def test_bad_parquet_files_are_refused_by_the_row(tmp_path: Path) -> None:
    root = parquet(tmp_path / "a")
    objects = pq.read_table(root / "train.parquet")["objects"].to_pylist()
    refused(rewritten(parquet(tmp_path / "b"), "objects", [None, *objects[1:]]), "'train.parquet:0' has no annotation")
    objects[1][0]["category"] = 7
    refused(rewritten(parquet(tmp_path / "c"), "objects", objects), "'train.parquet:1'", "'number 7'")
    masks = [{"bytes": png(Image.new("L", size)), "path": None} for size in [(96, 80), (80, 96), (96, 80), (96, 80)]]
    refused(
        rewritten(parquet(tmp_path / "d"), "instance_mask", masks),
        "row 'train.parquet:1' has 80 x 96 pixels and its columns say 96 x 80",
    )
    table = pq.read_table(root / "train.parquet")
    pq.write_table(table.drop_columns(["objects"]), root / "train.parquet")
    refused(root, "train.parquet", "no column 'objects'")


def test_what_has_no_objects_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photos", "has no objects: give a VOC folder")
    refused(tmp_path / "none.parquet", "does not exist")


def test_targets_follow_the_image_through_resize_and_flip(tmp_path: Path) -> None:
    images = open_annotated(str(parquet(tmp_path / "data")))
    for flip in (False, True):
        batches = BoxBatches(images, ResizeFlip(160, 160, 192, float(flip)), 0, masks=True)
        levels, targets = batches[Request(0, np.array([0, 3]))].content
        assert levels[0].shape == (3, 160, 192)
        expected = scene(0)
        for box, label, mask, before in zip(
            targets[0]["boxes"].int().tolist(), targets[0]["labels"], targets[0]["masks"], expected.boxes, strict=True
        ):
            left, top, right, bottom = box
            width = before[2] - before[0]
            assert right - left == 2 * width
            assert left == (192 - 2 * before[2] if flip else 2 * before[0])
            inside = levels[0][:, top + 2 : bottom - 2, left + 2 : right - 2].float().mean((1, 2))
            assert (inside[0] > inside[2]) == (label == 1)  # red is the first class
            assert mask[top:bottom, left:right].all()
            assert mask.sum() == (right - left) * (bottom - top)
        assert len(targets[1]["boxes"]) == 0
        assert targets[1]["masks"].shape == (0, 160, 192)


def test_batches_are_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    images = open_annotated(str(parquet(tmp_path / "data")))
    batches = BoxBatches(images, ResizeFlip(160, 64, 320), 3, masks=True)
    together = batches[Request(1, np.array([0, 1, 2]))].content
    alone = pickle.loads(pickle.dumps(batches))[Request(1, np.array([1]))].content  # as a spawned worker has it
    assert (together[0][1] == alone[0][0]).all()
    assert (together[1][1]["boxes"] == alone[1][0]["boxes"]).all()
    shapes = {batches[Request(epoch, np.array([0]))].content[0][0].shape[1:] for epoch in range(40)}
    assert {min(shape) for shape in shapes} == {64, 96, 128, 160}


def test_the_long_side_is_bounded_and_the_batch_padded_with_zeros(tmp_path: Path) -> None:
    images = open_annotated(str(voc(tmp_path / "voc")))
    transform = ResizeFlip(80, 80, 90, 0.0)
    batches = BoxBatches(images, transform, 0, masks=False)
    content = batches[Request(0, np.array([0, 1]))].content
    (shown, sizes), _ = batches.on_device(content)
    assert sizes == [(75, 90)] * 2
    assert shown.shape == (2, 3, 96, 96)
    assert (shown[:, :, 75:] == 0).all()
    assert (shown[:, :, :, 90:] == 0).all()


def test_voc_mini_is_read_by_either_naming(shared_data: Path) -> None:
    by_voc = open_annotated(str(shared_data / "voc_mini"))
    by_coco = open_annotated(str(shared_data / "voc_mini"), column="category")
    assert isinstance(by_voc, AnnotatedImages)
    assert (len(by_voc), len(by_voc.classes), by_voc.metric) == (147, 20, "voc")
    assert (len(by_coco), len(by_coco.classes), by_coco.metric) == (147, 80, "coco")
    objects, masks = by_coco.drawn(0)
    stated = pq.read_table(shared_data / "voc_mini" / "train.parquet")["objects"][0].as_py()
    drawn, whole = masks.sum(axis=(1, 2)), np.array([stated[number]["area"] for number in objects.source])
    assert (drawn <= whole).all()  # larger objects were painted first
    assert drawn[0] == whole[0]
