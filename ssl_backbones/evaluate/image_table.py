"""A file with a row for each image that can be read: its options, and how it is written."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_backbones.checks import check
from ssl_backbones.credentials import change_texts
from ssl_backbones.data import Images
from ssl_backbones.data.keys import as_unicode
from ssl_backbones.evaluate.feature_store import folder_beside
from ssl_backbones.evaluate.features import Features, features_of
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.options import ImageOptions
from ssl_backbones.files import check_writable, replacing
from ssl_backbones.outputs import check_output
from ssl_backbones.runs.results import about


@dataclass(frozen=True, kw_only=True)
class TableOptions(ImageOptions, ABC):
    """The file to write, and a folder for what the network gives meanwhile."""

    out: Path
    """The file to write."""
    cache: Path | None = None
    """Folder that caches what the network gives, so that a stopped command can be resumed. Default: features, beside
    --out."""
    overwrite: bool = False
    """Replace files that exist."""
    forms: ClassVar[tuple[str, ...]]
    """Endings of the file that a command writes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.out.suffix in self.forms, "out", str(self.out), f"a file that ends in {' or '.join(self.forms)}")

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """All files that are written."""

    @property
    def cache_folder(self) -> Path:
        """The folder for features: embeddings and evaluations that lie side by side share it."""
        return self.cache or folder_beside(self.out)

    def check_files(self) -> None:
        """Refuse files that exist, unless they may be replaced, and folders that cannot be written to: OutputError."""
        for path in self.files:
            check_output(path, self.overwrite)
        check_writable(self.out.parent)


def rows_of(model: EvaluatedModel, images: Images, options: TableOptions) -> Features:
    """All that a model gives, a row for each image that can be read, in the order of the source."""
    everything = np.ones(len(images), bool)
    return features_of(model, images, options.extraction(options.cache_folder), wanted=everything)


def keys_of(images: Images, rows: Features) -> list[str]:
    """The keys of the images that have a row, as Unicode."""
    return [key for key, whole in zip(as_unicode(images.keys), rows.readable, strict=True) if whole]


def note_of(model: EvaluatedModel, images: Images, options: TableOptions) -> dict[str, Any]:
    """Notes for a reader of the rows, as JSON."""
    return {
        "model": options.model,
        **model.identity,
        "data": about(images, options.data),
        "size": model.crop.size,
        "crop_pct": model.crop.crop_pct,
        "interpolation": model.crop.interpolation,
        "precision": options.precision,
    }


def left_out(images: Images, written: int) -> str:
    """The images that have no row, in words; empty where all have one."""
    return f", {len(images) - written} that cannot be read left out" if written < len(images) else ""


def write_parquet(path: Path, columns: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    """Write columns as parquet, with the note as its metadata."""
    table = pa.table(dict(columns)).replace_schema_metadata({"ssl_backbones": json.dumps(change_texts(note))})
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as CSV, their names in its first line."""
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([tuple(columns), *zip(*columns.values(), strict=True)])
    with replacing(path) as file:
        file.write(lines.getvalue().encode())
