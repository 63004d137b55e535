"""Folders and parquet files of small images, and how to tell that two of them hold the same."""

from __future__ import annotations

import json
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import drawn_image
from runs import image_folder

from ssl_backbones.data import Images


def fill(root: Path, *paths: str) -> Path:
    """A folder with a different image at each path; a path that ends in a slash is an empty folder."""
    for number, path in enumerate(paths):
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(hostile.jpeg(seed=number))
    return root


def structs(count: int, seed: int = 0) -> pa.Array:
    """Images (N,) as `datasets` keeps them."""
    rows = [{"bytes": hostile.jpeg(seed=seed + row), "path": f"{row}.jpg"} for row in range(count)]
    return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def raw(count: int, seed: int = 0) -> pa.Array:
    return pa.array([hostile.jpeg(seed=seed + row) for row in range(count)], pa.binary())


def write(file: Path, classes: list[str] | None = None, **columns) -> Path:
    """A parquet file of the columns, with class names for `label` where they are given."""
    table = pa.table(columns)
    if classes:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)
    return file


def same(one: Images, other: Images) -> bool:
    """True if two collections hold the same names, labels and images."""
    labels = [images.labels.tolist() if images.labels is not None else None for images in (one, other)]
    return (
        list(one.keys) == list(other.keys)
        and labels[0] == labels[1]
        and list(one.classes) == list(other.classes)
        and one.fingerprint == other.fingerprint
        and all(np.array_equal(np.asarray(one[i]), np.asarray(other[i])) for i in range(len(one)))
    )


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in two classes, some with names that try to be more than names."""
    folder = image_folder(tmp_path_factory.mktemp("look") / "photos", 16, ("<b>bag</b>", "帽子"))
    drawn_image(77, 30, 20).save(folder / "帽子" / "\"><script>alert('1')<&amp;.jpg", format="JPEG")
    (folder / "帽子" / "broken.jpg").write_bytes(b"no image")
    return folder
