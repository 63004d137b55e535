"""Images replaced by others of equal names and sizes, between two starts: every command notices, and says so."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import labelled_runs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import test_detect
import test_segment
from drawn_objects import coco, parquet, png, voc
from evaluations import evaluated, labelled_images, refusal
from PIL import Image
from runs import image_folder, killed
from scenes import voc_folder
from test_head_training import in_epoch

from ssl_backbones.data.digests import spread
from ssl_backbones.evaluate.classification import head_training
from ssl_backbones.evaluate.detection.open_annotated import open_annotated
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.cache import COMPARED, ImageCacheError

OFTEN = Checkpoints(every_steps=1, every_minutes=0)
SAVED = ("--checkpoints.every_steps", "1")


def images_in(root: Path) -> list[Path]:
    """The files of the images below a folder, and not those of masks."""
    files = sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".png"))
    return [path for path in files if "SegmentationClass" not in path.parts]


def unpacked(root: Path) -> Path:
    """The folder with its images as BMP, under their old names."""
    for path in images_in(root):
        with Image.open(path) as image:
            image.convert("RGB").save(path, "BMP")
    return root


def replace(*paths: Path) -> None:
    """Put the negative of each image in its place: the name and the size stay."""
    for path in paths:
        size = path.stat().st_size
        with Image.open(path) as image:
            levels = 255 - np.asarray(image)
        Image.fromarray(levels).save(path, "BMP")
        assert path.stat().st_size == size  # all that version 0.1 looked at


def pretraining(path: Path) -> tuple[Path, Callable[[], object]]:
    data = unpacked(image_folder(path / "data"))
    recipe = runs.tiny(BYOLConfig, data, path / "out", checkpoints=OFTEN)
    return data, lambda: runs.run(recipe)


def probe_on_views(path: Path) -> tuple[Path, Callable[[], object]]:
    data = unpacked(labelled_runs.divided(path / "data"))
    options = labelled_runs.small(linear, "moco_v2", data, path / "out", checkpoints=OFTEN)
    return data, lambda: labelled_runs.run(linear, options)


def probe_on_features(path: Path) -> tuple[Path, Callable[[], object]]:
    data = unpacked(labelled_runs.divided(path / "data"))
    options = labelled_runs.small(linear, "patch", data, path / "out")
    return data, lambda: labelled_runs.run(linear, options)


def fine_tuning(path: Path) -> tuple[Path, Callable[[], object]]:
    data = unpacked(labelled_runs.divided(path / "data"))
    options = labelled_runs.small(finetune, "patch", data, path / "out", checkpoints=OFTEN)
    return data, lambda: labelled_runs.run(finetune, options)


def few_labels(path: Path) -> tuple[Path, Callable[[], object]]:
    data = unpacked(labelled_runs.divided(path / "data"))
    options = labelled_runs.small(semi, "lewel_10pct", data, path / "out", checkpoints=OFTEN, share=0.5)
    return data, lambda: labelled_runs.run(semi, options)


def segmentation(path: Path) -> tuple[Path, Callable[[], object]]:
    data = unpacked(voc_folder(path / "data"))
    return data, lambda: test_segment.run(data, path / "out", *SAVED)


def detection(path: Path, make: Callable[[Path], Path] = voc, *words: str) -> tuple[Path, Callable[[], object]]:
    data = unpacked(make(path / "data"))
    words = (*test_detect.SHORT, *SAVED, *words)
    return data, lambda: test_detect.run(pytest.MonkeyPatch(), "resnet8", data, path / "out", *words)


def detection_with_masks(path: Path) -> tuple[Path, Callable[[], object]]:
    return detection(path, coco, "--head", "mask_fpn")


TRAINED = [
    pretraining,
    probe_on_views,
    probe_on_features,
    fine_tuning,
    segmentation,
    detection,
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in (few_labels, detection_with_masks)),
]
"""The slow ones share all but their data and head with others."""


@pytest.mark.parametrize("kind", TRAINED)
def test_a_run_killed_and_given_other_images_is_refused(
    kind: Callable[[Path], tuple[Path, Callable[[], object]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(head_training, "EVERY", -1.0)
    data, start = kind(tmp_path)
    with runs.after(2, killed), in_epoch(1, killed), pytest.raises(runs.Killed):
        start()
    assert list((tmp_path / "out" / "checkpoints").iterdir())
    replace(*images_in(data))
    capsys.readouterr()
    with pytest.raises((Refusal, SystemExit)) as end:
        start()
    said = str(end.value) if isinstance(end.value, Refusal) else capsys.readouterr().err
    assert "the images are not those that the " in said
    assert "begin another" in said
    replace(*images_in(data))  # the negative of a negative
    start()
    assert (tmp_path / "out" / "results.json").exists()


def other_polygons(root: Path) -> None:
    """Masks that fill a part of their boxes alone."""
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for item in content["annotations"]:
            left, top, right, _, _, bottom, _, _ = item["segmentation"][0]
            item["segmentation"] = [[left, top, right, top, right, bottom]]
        file.write_text(json.dumps(content))


def other_numbers(root: Path) -> None:
    """Instance masks that show the upper half of each object."""
    for file in root.iterdir():
        table = pq.read_table(file)
        rows = table.to_pylist()
        for row in rows:
            with Image.open(io.BytesIO(row["instance_mask"]["bytes"])) as image:
                mask = np.asarray(image).copy()
            mask[40:] = 0
            row["instance_mask"]["bytes"] = png(Image.fromarray(mask))
        pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


@pytest.mark.parametrize(("make", "alter"), [(coco, other_polygons), (parquet, other_numbers)])
def test_other_masks_of_the_same_boxes_are_other_data(
    make: Callable[[Path], Path], alter: Callable[[Path], None], tmp_path: Path
) -> None:
    data = make(tmp_path / "data")
    before, again = open_annotated(str(data)), open_annotated(str(data))
    assert before.fingerprint == again.fingerprint
    alter(data)
    after = open_annotated(str(data))
    assert [found.boxes.tolist() for found in after.objects] == [found.boxes.tolist() for found in before.objects]
    assert after.unannotated.fingerprint == before.unannotated.fingerprint
    assert after.fingerprint != before.fingerprint
    rows = np.array([0, 2])
    assert after.at(rows).fingerprint != before.at(rows).fingerprint == again.at(rows).fingerprint


@pytest.mark.parametrize("protocol", ["knn", "logistic", "mlp"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_an_evaluation_started_again_on_other_images_is_refused(
    tmp_path: Path, protocol: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = unpacked(labelled_images(tmp_path / "data"))
    evaluated(protocol, data, tmp_path / "out")
    replace(*images_in(data / part))
    assert "holds the run of another recipe (" in refusal(capsys, protocol, data, tmp_path / "out")


def test_images_replaced_under_a_cache_are_refused(tmp_path: Path) -> None:
    data = unpacked(image_folder(tmp_path / "data", 96))
    recipe = runs.tiny(BYOLConfig, data, tmp_path / "first", cache=str(tmp_path / "cache"), epochs=1)
    runs.run(recipe)
    kept = set(spread(96, COMPARED))
    others = [path for at, path in enumerate(images_in(data)) if at not in kept]
    assert len(others) == 80  # none of those that are decoded and compared
    replace(*others)
    with pytest.raises(ImageCacheError, match=r"is not what the cache in .* was made of"):
        runs.run(runs.elsewhere(recipe, tmp_path / "second"))
