"""Odd values in annotations: named at opening, refused or left out by a stated rule, and never met by a run."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_objects import coco, parquet, voc, xml
from drawn_objects import scene as drawn_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as runs

from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.coco_shapes import Shapes, shape_of, unpacked_counts
from ssl_backbones.evaluate.detection.open_annotated import open_annotated

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400))
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=8), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
"""Whatever JSON can hold, and the numbers that it cannot."""
WIDTH, HEIGHT = 96, 80
"""Sides of the drawn scenes, in pixels."""


def check_usable(images: AnnotatedImages) -> None:
    """Everything that a run takes of annotations is finite, inside its image and can be drawn."""
    for index, objects in enumerate(images.objects):
        assert np.isfinite(objects.boxes).all()
        assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()
        assert (objects.boxes >= 0).all()
        assert (objects.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
        if images.masks is not None:
            assert images.all_masks(index).shape == (len(objects), HEIGHT, WIDTH)


def opened(root: Path) -> AnnotatedImages | str:
    """The images of a source, or the sentence it is refused with."""
    try:
        images = open_annotated(str(root))
    except ImageSourceError as error:
        return str(error)
    check_usable(images)
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "annotations/instances_train2017.json").read_text())
    return found


def opened_with(folder: Path, content: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> Any:
    """The outcome for a changed COCO file."""
    changed = copy.deepcopy(content)
    change(changed)
    (folder / "annotations/instances_train2017.json").write_text(json.dumps(changed))
    return opened(folder)


def alter(field: str, value: Any, part: str = "annotations", place: int = 1) -> Callable[[dict[str, Any]], Any]:
    """The change of one field of one object."""
    return lambda content: content[part][place].update({field: value})


SQUARE = [8, 8, 20, 8, 20, 20, 8, 20]
WHOLE = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bbox", None),
        ("bbox", ["96", "8", "32", "24"]),
        ("bbox", [1, 2, 3]),
        ("bbox", [1, 2, 3, 4, 5]),
        ("bbox", [1, 2, 3, None]),
        ("bbox", [1, 2, 3, True]),
        ("bbox", {"x": 1}),
        ("iscrowd", "yes"),
        ("iscrowd", 2),
        ("iscrowd", [0]),
        ("category_id", None),
        ("category_id", True),
        ("category_id", 99),
        ("category_id", [7]),
        ("image_id", None),
        ("image_id", [0]),
        ("image_id", 99),
        ("segmentation", SQUARE),
        ("segmentation", "a mask"),
        ("segmentation", 1),
        ("segmentation", {}),
        ("segmentation", [[8, 8, 20, 8, 20, 20, 8]]),
        ("segmentation", [[8, 8, 20, 8, 20, float("nan")]]),
        ("segmentation", [[8, 8, 20, 8, 20, float("inf")]]),
        ("segmentation", [[8, 8, 20, 8, 20, "20"]]),
        ("segmentation", [[8, 8, 20, 8, 20, None]]),
        ("segmentation", [[8, 8, 20, 8, 20, 10**9]]),
        ("segmentation", [[8, 8, 20, 8, 20, 10**400]]),
        ("segmentation", WHOLE | {"size": [WIDTH, HEIGHT]}),
        ("segmentation", WHOLE | {"size": None}),
        ("segmentation", WHOLE | {"counts": [100, 50]}),
        ("segmentation", WHOLE | {"counts": [-100, 250, HEIGHT * WIDTH - 150]}),
        ("segmentation", WHOLE | {"counts": ["100"]}),
        ("segmentation", WHOLE | {"counts": None}),
        ("segmentation", WHOLE | {"counts": "\u00e9"}),
        ("segmentation", WHOLE | {"counts": "o"}),
        ("segmentation", WHOLE | {"counts": "o" * 1000}),
        ("segmentation", WHOLE | {"counts": ""}),
    ],
)
def test_an_object_of_an_odd_value_is_refused_by_its_name(
    folder: Path, content: dict[str, Any], field: str, value: Any
) -> None:
    said = opened_with(folder, content, alter(field, value))
    assert isinstance(said, str)
    assert said.startswith("annotation 2")
    assert "instances_train2017.json'" in said
    assert "\n" not in said


@pytest.mark.parametrize("field", ["width", "height"])
@pytest.mark.parametrize("value", [None, 0, -96, 95.5, float("nan"), float("inf"), "96", True, [96], 2**40])
def test_an_image_of_an_odd_size_is_refused_by_its_name(
    folder: Path, content: dict[str, Any], field: str, value: Any
) -> None:
    said = opened_with(folder, content, alter(field, value, "images"))
    assert isinstance(said, str)
    assert said.startswith("the image '1.png' in ")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (alter("id", 0, "images"), "two images with the id 0, one of them '0.png'"),
        (alter("id", None, "images"), "the image '1.png' in .* has null as id"),
        (alter("file_name", None, "images"), "has null as a file_name"),
        (alter("file_name", "", "images"), "has '' as a file_name"),
        (alter("id", 7, "categories"), "categories with the ids 7, 7"),
        (alter("id", "dog", "categories"), "categories with the ids 7, 'dog'"),
        (alter("id", {}, "categories"), "the category 'dog' in .* has {} as id"),
        (lambda content: content["annotations"].append(None), "one without image_id, null in place 7"),
    ],
)
def test_the_lists_are_checked_as_well(folder: Path, content: dict[str, Any], change: Any, expected: str) -> None:
    said = opened_with(folder, content, change)
    assert isinstance(said, str)
    assert re.search(expected, said)


LEFT_OUT = {
    "bbox": [[8, 8, 0, 20], [8, 8, -5, 20], [500, 8, 20, 20], [8, 8, float("nan"), 20], [8, 8, float("inf"), 20]],
    "segmentation": [[[8, 8, 20, 20]], [[]], [[8, 8], [9, 9, 10, 10]]],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in LEFT_OUT.items() for value in values])
def test_objects_without_an_area_are_left_out_named_and_counted(
    folder: Path, content: dict[str, Any], field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images = opened_with(folder, content, alter(field, value))
    assert images.dropped == 1
    assert [len(found) for found in images.objects] == [1, 2, 2, 0]
    assert "1 objects without an area in " in caplog.text
    assert "the first is annotation 2 of '0.png'" in caplog.text
    assert images.masks is not None


def test_a_polygon_of_two_points_beside_a_whole_one_is_left_out(folder: Path, content: dict[str, Any]) -> None:
    images = opened_with(folder, content, alter("segmentation", [[8, 8, 40, 40], SQUARE]))
    assert images.dropped == 0
    assert images.all_masks(0)[1].sum() == images.all_masks(0)[1][8:21, 8:21].sum() > 0


@pytest.mark.parametrize("value", [None, -1, "768", [1], 10**400])
def test_areas_are_not_read(folder: Path, content: dict[str, Any], value: Any) -> None:
    images, plain = (opened_with(folder, content, change) for change in (alter("area", value), lambda content: None))
    assert images.fingerprint == plain.fingerprint


@pytest.mark.parametrize("value", [None, []])
def test_an_object_without_a_mask_leaves_the_source_with_boxes(
    folder: Path, content: dict[str, Any], value: Any
) -> None:
    assert opened_with(folder, content, alter("segmentation", value)).masks is None


FIELDS = {
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
}


@pytest.mark.parametrize(("part", "field"), [(part, field) for part in sorted(FIELDS) for field in FIELDS[part]])
def test_a_text_of_two_lines_is_told_in_one(part: str, field: str, folder: Path, content: dict[str, Any]) -> None:
    found = opened_with(folder, content, alter(field, "two\nlines", part))
    assert not isinstance(found, str) or "\n" not in found


@SHARED
@given(data=st.data())
def test_any_value_anywhere_is_refused_in_a_sentence_or_of_use(
    folder: Path, content: dict[str, Any], data: st.DataObject
) -> None:
    part = data.draw(st.sampled_from(sorted(FIELDS)))
    field, value = data.draw(st.sampled_from(FIELDS[part])), data.draw(ODD)
    if field in ("bbox", "segmentation") and data.draw(st.booleans()):
        value = data.draw(st.lists(NUMBERS, min_size=4, max_size=8))
        value = [value] if field == "segmentation" else value
    found = opened_with(folder, content, alter(field, value, part))
    assert not isinstance(found, str) or "\n" not in found


@SHARED
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**31))
def test_runs_are_those_of_pycocotools(width: int, height: int, share: float, seed: int) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    packed = runs.encode(np.asfortranarray(mask))["counts"].decode()
    columns = mask.T.ravel()
    edges = np.flatnonzero(np.diff(columns, prepend=0))
    counts = np.diff([0, *edges, len(columns)]).tolist()
    assert unpacked_counts(packed) == counts
    for written in (packed, counts):
        shape = shape_of({"size": [height, width], "counts": written}, (width, height), "here")
        assert (Shapes([[shape]], [(width, height)])(0, np.array([0]))[0] == mask).all()


@SHARED
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_packed_runs_of_any_letters_are_refused_or_can_be_drawn(packed: str) -> None:
    size = (5, 4)
    try:
        shape = shape_of({"size": [4, 5], "counts": packed}, size, "here")
    except ImageSourceError:
        return
    assert Shapes([[shape]], [size])(0, np.array([0])).shape == (1, 4, 5)


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voc(tmp_path_factory.mktemp("voc") / "voc")


def opened_voc(root: Path, tag: str, value: str) -> Any:
    """The outcome where every such tag of an annotation holds a text."""
    text = xml(drawn_scene(0))
    start, end = f"<{tag}>", f"</{tag}>"
    first = text.index(start) + len(start)
    content = text[:first] + escape(value) + text[text.index(end, first) :]
    (root / "Annotations/000000.xml").write_text(content, encoding="utf-8")
    return opened(root)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        *((tag, value) for tag in ("width", "height") for value in ("0", "-96", "95.5", "nan", "inf", "x", "")),
        *((tag, value) for tag in ("xmin", "ymin", "xmax", "ymax") for value in ("x", "", "1,5")),
        *(("difficult", value) for value in ("yes", "2", "-1")),
    ],
)
def test_odd_values_of_voc_are_refused_by_the_file(voc_root: Path, tag: str, value: str) -> None:
    said = opened_voc(voc_root, tag, value)
    assert isinstance(said, str)
    assert "000000.xml'" in said
    assert "\n" not in said


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "97"])
def test_boxes_of_voc_without_an_area_are_left_out(
    voc_root: Path, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert opened_voc(voc_root, "xmin", value).dropped == 1
    assert "object 1 of " in caplog.text


@SHARED
@given(
    st.sampled_from(["width", "height", "xmin", "ymin", "xmax", "ymax", "difficult", "name"]),
    st.one_of(
        st.floats().map(str),
        st.integers().map(str),
        st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=9),
    ),
)
def test_any_text_in_voc_is_refused_in_a_sentence_or_of_use(voc_root: Path, tag: str, value: str) -> None:
    found = opened_voc(voc_root, tag, value)
    assert not isinstance(found, str) or "\n" not in found


def opened_parquet(root: Path, change: Callable[[list[dict[str, Any]]], Any], kind: pa.DataType | None = None) -> Any:
    """The outcome for changed rows, their boxes of another type if one is given."""
    table = pq.read_table(parquet(root) / "train.parquet")
    rows = table.to_pylist()
    change(rows)
    one = {"bbox": pa.list_(kind or pa.float64()), "category": pa.int64(), "difficult": pa.int8()}
    objects = pa.list_(pa.struct(list(one.items())))
    fields = [pa.field("objects", objects) if field.name == "objects" else field for field in table.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    pq.write_table(pa.Table.from_pylist(rows, schema), root / "train.parquet")
    return opened(root)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bbox", None),
        ("bbox", [1.0, 2.0, 3.0]),
        ("bbox", [1.0, 2.0, 3.0, None]),
        ("category", None),
        ("category", -1),
        ("category", 2),
        ("difficult", 2),
    ],
)
def test_odd_values_of_parquet_objects_are_refused_by_the_row(tmp_path: Path, field: str, value: Any) -> None:
    said = opened_parquet(tmp_path, lambda rows: rows[1]["objects"][0].update({field: value}))
    assert isinstance(said, str)
    assert said.startswith("object 1 of row 'train.parquet:1'")


@pytest.mark.parametrize("field", ["width", "height"])
@pytest.mark.parametrize("value", [None, 0, -96])
def test_odd_sizes_of_parquet_are_refused_by_the_row(tmp_path: Path, field: str, value: Any) -> None:
    said = opened_parquet(tmp_path, lambda rows: rows[1].update({field: value}))
    assert isinstance(said, str)
    assert said.startswith("the row 'train.parquet:1' has width")


def test_boxes_of_text_and_objects_of_null_are_refused_by_the_row(tmp_path: Path) -> None:
    def spell(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for item in row["objects"]:
                item["bbox"] = [str(value) for value in item["bbox"]]

    assert "object 1 of row 'train.parquet:0' has ['" in opened_parquet(tmp_path / "text", spell, pa.string())
    said = opened_parquet(tmp_path / "null", lambda rows: rows[1]["objects"].append(None))
    assert said.startswith("object 3 of row 'train.parquet:1' is null")


@pytest.mark.parametrize("box", [[8.0, 8.0, 8.0, 20.0], [200.0, 8.0, 210.0, 20.0], [float("nan"), 8.0, 20.0, 20.0]])
def test_boxes_of_parquet_without_an_area_are_left_out(
    tmp_path: Path, box: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    assert opened_parquet(tmp_path, lambda rows: rows[1]["objects"][0].update(bbox=box)).dropped == 1
    assert "object 1 of row 'train.parquet:1'" in caplog.text


def test_a_mask_that_is_no_png_is_refused_by_the_row(tmp_path: Path) -> None:
    for content in (b"torn", None):
        said = opened_parquet(
            tmp_path, lambda rows, held=content: rows[1].update(instance_mask={"bytes": held, "path": None})
        )
        assert said.startswith("the row 'train.parquet:1' has no instance_mask that can be read")
