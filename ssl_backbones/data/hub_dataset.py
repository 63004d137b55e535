"""Images of a dataset on the Hub, or in parquet files too large for memory: `datasets` keeps them, we decode them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ssl_backbones.data.columns import (
    class_names,
    digests_of,
    encoded_images,
    files_of,
    image_column,
    label_column,
    labels_of,
    named_file,
    sizes_of,
)
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.keys import RowKeys, fingerprint_by_sizes_of
from ssl_backbones.data.rows import RowImages
from ssl_backbones.refusal import reason


class HubImages(RowImages):
    """The rows of a `datasets.Dataset`, which lie in a memory-mapped file: workers share it, and a pickle names it."""

    def __init__(
        self, dataset: Any, name: str, policy: DecodePolicy = USUAL_POLICY, folders: Collection[Path] = ()
    ) -> None:
        """Look at the columns; rows may name files below the folders. ImageSourceError where there is no row."""
        self.policy, self.folders = policy, tuple(folders)
        table = dataset.with_format("arrow")[:]
        schema = dataset.features.arrow_schema
        image = image_column(schema, name)
        names = class_names(schema)
        label = label_column(schema, names)
        self.keys = RowKeys([str(dataset.split or "train")], [len(dataset)])
        if not len(self.keys):
            raise ImageSourceError(f"there is no row in {name}: choose another split, as in org/name:validation")
        self.labels, self.classes = labels_of(table[label], names.get(label)) if label else (None, [])
        self.sizes = sizes_of(encoded_images(table[image]), files_of(table[image], folders))
        self.fingerprint_by_sizes = fingerprint_by_sizes_of(self.keys, self.labels, self.sizes)
        self.rows, self.image, self.name = undecoded(dataset.select_columns([image]), image), image, name

    @cached_property
    def digests(self) -> np.ndarray:  # type: ignore[override]
        """The digests of all rows (N, D), taken at first use: it reads a few pages of each."""
        return self.digests_as(whole=False)

    def whole_digests(self) -> np.ndarray:
        return self.digests_as(whole=True)

    def digests_as(self, whole: bool) -> np.ndarray:
        """The digests of all rows (N, D), over every byte if they are to be `whole`."""
        column = self.rows.with_format("arrow")[:][self.image]
        files, named = [Path(file["filename"]) for file in self.rows.cache_files], files_of(column, self.folders)
        return digests_of(encoded_images(column), named, files, f"{self.name}, {self.image}", whole)

    def encoded(self, index: int) -> bytes | Path | None:
        (held,) = self.rows[range(len(self))[index]].values()
        if isinstance(held, dict):
            held = held["bytes"] if held["bytes"] is not None else named_file(held.get("path"), self.folders)
        found: bytes | Path | None = held
        return found


def undecoded(dataset: Any, column: str) -> Any:
    """The dataset with images left as the bytes they are: our policy for odd images is not that of `datasets`."""
    from datasets import Image as ImageFeature

    if isinstance(dataset.features[column], ImageFeature):
        return dataset.cast_column(column, ImageFeature(decode=False))
    return dataset


def load(name: str, policy: DecodePolicy = USUAL_POLICY) -> HubImages:
    """The images of `org/name`, its split train, or of another as in `org/name:validation`."""
    identity, _, split = name.partition(":")
    datasets = imported()
    try:
        dataset = datasets.load_dataset(identity, split=split or "train")
    # Not found, gated, offline, no such split, a script that is no longer run: `datasets` has an error for each.
    except Exception as error:
        raise ImageSourceError(
            f"{name!r} is no path here, and cannot be had from the Hub as a dataset ({type(error).__name__}: "
            f"{reason(error)}): "
            "check the name and the split behind the colon, set HF_ENDPOINT to a mirror before Python starts, or give "
            "a folder or .parquet files of your own"
        ) from error
    return HubImages(dataset, name, policy)


def splits(name: str) -> list[str]:
    """The splits of a dataset on the Hub."""
    return list(imported().get_dataset_split_names(name.partition(":")[0]))


def load_parquet(files: Sequence[Path], policy: DecodePolicy = USUAL_POLICY) -> HubImages:
    """The images of parquet files, laid out once in the cache of `datasets`, from which they are memory-mapped."""
    datasets = imported()
    data_files = {"train": [str(file) for file in files]}
    try:
        dataset = datasets.load_dataset("parquet", data_files=data_files, split="train")
    except Exception as error:
        text = reason(error.__cause__ or error)
        raise ImageSourceError(f"{files[0].as_posix()!r} and its like cannot be read as parquet ({text})") from error
    return HubImages(dataset, repr(str(files[0])), policy, dict.fromkeys(file.parent for file in files))


def imported() -> Any:
    """The module `datasets`, which takes seconds to import and is only there with the extra for training."""
    try:
        import datasets
    except ImportError as error:
        raise ImageSourceError("datasets is not installed: pip install 'ssl-backbones[train]'") from error
    return datasets
