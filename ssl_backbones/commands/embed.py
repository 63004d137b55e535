"""Embed images: write a backbone's features of every image, with its key and label, into one file.

Examples:
    ssl-backbones embed resnet50_swav.in1k_800ep --data images --out features.parquet
    ssl-backbones embed runs/mine --data images --out features.npy --size 64
    ssl-backbones embed runs/mine --data images --out features.parquet --projector logs

A parquet file has the columns key, label, class and features; beside a .npy file, the keys and labels of its rows lie
in a .csv file of the same name. MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from ssl_backbones.cleanup import is_new_or_empty
from ssl_backbones.data import Images, open_images, opened_once
from ssl_backbones.data.keys import as_unicode
from ssl_backbones.distributed import first_decides, rank, say
from ssl_backbones.evaluate.image_table import (
    TableOptions,
    keys_of,
    left_out,
    note_of,
    rows_of,
    write_csv,
    write_parquet,
)
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.options import FeatureOptions
from ssl_backbones.files import replacing
from ssl_backbones.outputs import OutputError, together
from ssl_backbones.train.processes import meet


@dataclass(frozen=True, kw_only=True)
class Options(TableOptions, FeatureOptions):
    """The model, the images, and the file for the features."""

    out: Path
    """The file to write: features.parquet, or features.npy with features.csv beside it."""
    projector: Path | None = None
    """A folder for the features as TensorBoard's projector shows them."""
    forms = (".parquet", ".npy")

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
        write(embeddings, options, told(options, model, images))
        count, width = embeddings.features.shape
        say(f"{options.out} holds {width} features of each of {count} images{left_out(images, count)}")


def check_outputs(options: Options) -> None:
    """Refuse files that exist, unless they may be replaced, and folders that cannot be written to, before any work."""
    options.check_files()
    if options.projector:
        if find_spec("tensorboard") is None:
            raise OutputError("--projector needs tensorboard, which is not installed: pip install tensorboard")
        if not is_new_or_empty(options.projector) and not (options.overwrite and options.projector.is_dir()):
            raise OutputError(f"{str(options.projector)!r} is not empty: name another folder with --projector")
        if link := next((path for path in options.projector.rglob("*") if path.is_symlink()), None):
            raise OutputError(
                f"{str(link)!r} is a link, and nothing is written through links: name another --projector"
            )


def embedded(model: EvaluatedModel, images: Images, options: Options) -> Embeddings:
    """The features of all images that can be read, in the order of the source."""
    features = rows_of(model, images, options)
    labels = np.full(len(images), -1) if images.labels is None else np.asarray(images.labels)
    keys = keys_of(images, features)
    return Embeddings(features.rows, keys, labels[features.readable], as_unicode(images.classes))


def told(options: Options, model: EvaluatedModel, images: Images) -> dict[str, Any]:
    """Notes for a reader of the features, as JSON."""
    taken = {"seed": options.seed, "classes": options.classes, "hold_out": options.hold_out}
    return {**note_of(model, images, options), "pretrained": not options.random, **taken}


def write(embeddings: Embeddings, options: Options, note: dict[str, Any]) -> None:
    """Write the files, each whole or not at all, and all of them or none."""
    with together(options.files):
        write_files(embeddings, options, note)
    if options.projector:
        project(embeddings, options.projector)


def write_files(embeddings: Embeddings, options: Options, note: dict[str, Any]) -> None:
    """Write the features, with their keys in the same file or in one beside it."""
    if options.out.suffix == ".parquet":
        write_parquet(options.out, columns(embeddings), note)
    else:
        named = {"key": embeddings.keys, "label": embeddings.labels.tolist(), "class": embeddings.named}
        write_csv(options.files[1], named)
        with replacing(options.out) as file:
            np.save(file, embeddings.features.numpy(), allow_pickle=False)


def columns(embeddings: Embeddings) -> dict[str, pa.Array]:
    """The features as the columns of a table of N rows."""
    width = embeddings.features.shape[1]
    values = pa.array(embeddings.features.numpy().reshape(-1))
    return {
        "key": pa.array(embeddings.keys, pa.string()),
        "label": pa.array(embeddings.labels, pa.int64(), mask=embeddings.labels < 0),
        "class": pa.array([name or None for name in embeddings.named], pa.string()),
        "features": pa.FixedSizeListArray.from_arrays(values, width),
    }


def project(embeddings: Embeddings, folder: Path) -> None:
    """Write the features for TensorBoard's projector: `tensorboard --logdir FOLDER`."""
    from torch.utils.tensorboard import SummaryWriter

    rows = [list(row) for row in zip(embeddings.keys, embeddings.named, strict=True)]
    with SummaryWriter(str(folder)) as writer:  # type: ignore[no-untyped-call]
        writer.add_embedding(embeddings.features, rows, metadata_header=["key", "class"])  # type: ignore[no-untyped-call]
    say(f"tensorboard --logdir {folder} shows them")
