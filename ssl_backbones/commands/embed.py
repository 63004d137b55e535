"""Embed images: write a backbone's features of every image, with its key and label, into one file.

Examples:
    ssl-backbones embed resnet50_swav.in1k_800ep --data images --out features.parquet
    ssl-backbones embed runs/mine --data images --out features.npy --size 64
    ssl-backbones embed runs/mine --data images --out features.parquet --projector logs

A parquet file has the columns key, label, class and features; beside a .npy file, the keys and labels of its rows lie
in a .csv file of the same name. MODEL is a registered name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ssl_backbones.checks import check
from ssl_backbones.credentials import change_texts
from ssl_backbones.data import Images, open_images, opened_once
from ssl_backbones.data.keys import as_unicode
from ssl_backbones.distributed import first_decides, rank, say
from ssl_backbones.evaluate.features import features_of
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.options import FeatureOptions
from ssl_backbones.files import check_writable, replacing
from ssl_backbones.outputs import OutputError, check_output, together
from ssl_backbones.runs.results import about
from ssl_backbones.train.processes import meet

FORMS = (".parquet", ".npy")


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """The model, the images, and the file for the features."""

    out: Path
    """The file to write: features.parquet, or features.npy with features.csv beside it."""
    cache: Path | None = None
    """Folder that caches features, so that a stopped embedding can be resumed. Default: features, beside --out."""
    projector: Path | None = None
    """A folder for the features as TensorBoard's projector shows them."""
    overwrite: bool = False
    """Replace files that exist."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.out.suffix in FORMS, "out", str(self.out), f"a file that ends in {' or '.join(FORMS)}")

    @property
    def cache_folder(self) -> Path:
        """The folder for features: embeddings and evaluations that lie side by side share it."""
        return self.cache or self.out.absolute().parent / "features"

    @property
    def files(self) -> list[Path]:
        """All files that are written, but the projector's."""
        return [self.out] if self.out.suffix == ".parquet" else [self.out, self.out.with_suffix(".csv")]


@dataclass(frozen=True)
class Embeddings:
    """Features of N images, with their names."""

    features: Tensor
    """(N, D) in single precision."""
    keys: Sequence[str]
    """N names, as Unicode."""
    labels: np.ndarray
    """(N,), -1 for an image without one."""
    classes: Sequence[str]

    @property
    def named(self) -> list[str]:
        """The class of each image, N of them, empty without one."""
        return [self.classes[label] if 0 <= label < len(self.classes) else "" for label in self.labels.tolist()]


def run(options: Options) -> None:
    """Embed, and say where the features are."""
    device = meet()
    first_decides(lambda: check_outputs(options))
    whole = opened_once(lambda: open_images(options.data, options.decoding), options.verify)
    images, _ = options.selection.of(whole, None)
    model = options.open_model(device)
    embeddings = embedded(model, images, options)
    if rank() == 0:
        write(embeddings, options, note_of(options, model, images))
        count, width = embeddings.features.shape
        left_out = f", {len(images) - count} that cannot be read left out" if count < len(images) else ""
        say(f"{options.out} holds {width} features of each of {count} images{left_out}")


def check_outputs(options: Options) -> None:
    """Refuse files that exist, unless they may be replaced, and folders that cannot be written to, before any work."""
    for path in options.files:
        check_output(path, options.overwrite)
    if options.projector:
        if find_spec("tensorboard") is None:
            raise OutputError("--projector needs tensorboard, which is not installed: pip install tensorboard")
        if options.projector.exists() and any(options.projector.iterdir()) and not options.overwrite:
            raise OutputError(f"{str(options.projector)!r} is not empty: name another folder with --projector")
        if link := next((path for path in options.projector.rglob("*") if path.is_symlink()), None):
            raise OutputError(
                f"{str(link)!r} is a link, and nothing is written through links: name another --projector"
            )
    check_writable(options.out.parent)


def embedded(model: EvaluatedModel, images: Images, options: Options) -> Embeddings:
    """The features of all images that can be read, in the order of the source."""
    everything = np.ones(len(images), bool)
    features = features_of(model, images, options.extraction(options.cache_folder), wanted=everything)
    readable = features.readable
    labels = np.full(len(images), -1) if images.labels is None else np.asarray(images.labels)
    keys = [key for key, whole in zip(as_unicode(images.keys), readable, strict=True) if whole]
    return Embeddings(features.rows, keys, labels[readable], as_unicode(images.classes))


def note_of(options: Options, model: EvaluatedModel, images: Images) -> dict[str, Any]:
    """Notes for a reader of the features, as JSON."""
    return {
        "model": options.model,
        "pretrained": not options.random,
        **model.identity,
        "data": about(images, options.data),
        "size": model.crop.size,
        "crop_pct": model.crop.crop_pct,
        "interpolation": model.crop.interpolation,
        "precision": options.precision,
        "seed": options.seed,
        "classes": options.classes,
        "hold_out": options.hold_out,
    }


def write(embeddings: Embeddings, options: Options, note: dict[str, Any]) -> None:
    """Write the files, each whole or not at all, and all of them or none."""
    with together(options.files):
        write_files(embeddings, options, note)
    if options.projector:
        project(embeddings, options.projector)


def write_files(embeddings: Embeddings, options: Options, note: dict[str, Any]) -> None:
    """Write the features, with their keys in the same file or in one beside it."""
    if options.out.suffix == ".parquet":
        with replacing(options.out) as file:
            pq.write_table(table(embeddings, note), file, compression="zstd")
    else:
        lines = io.StringIO(newline="")
        rows = zip(embeddings.keys, embeddings.labels.tolist(), embeddings.named, strict=True)
        csv.writer(lines).writerows([("key", "label", "class"), *rows])
        with replacing(options.files[1]) as file:
            file.write(lines.getvalue().encode())
        with replacing(options.out) as file:
            np.save(file, embeddings.features.numpy(), allow_pickle=False)


def table(embeddings: Embeddings, note: dict[str, Any]) -> pa.Table:
    """The features as a table of N rows, with the note as its metadata."""
    width = embeddings.features.shape[1]
    values = pa.array(embeddings.features.numpy().reshape(-1))
    columns = {
        "key": pa.array(embeddings.keys, pa.string()),
        "label": pa.array(embeddings.labels, pa.int64(), mask=embeddings.labels < 0),
        "class": pa.array([name or None for name in embeddings.named], pa.string()),
        "features": pa.FixedSizeListArray.from_arrays(values, width),
    }
    return pa.table(columns).replace_schema_metadata({"ssl_backbones": json.dumps(change_texts(note))})


def project(embeddings: Embeddings, folder: Path) -> None:
    """Write the features for TensorBoard's projector: `tensorboard --logdir FOLDER`."""
    from torch.utils.tensorboard import SummaryWriter

    rows = [list(row) for row in zip(embeddings.keys, embeddings.named, strict=True)]
    with SummaryWriter(str(folder)) as writer:  # type: ignore[no-untyped-call]
        writer.add_embedding(embeddings.features, rows, metadata_header=["key", "class"])  # type: ignore[no-untyped-call]
    say(f"tensorboard --logdir {folder} shows them")
