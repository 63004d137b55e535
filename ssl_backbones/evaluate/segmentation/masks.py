"""Images with a mask each, which says of every pixel what it shows: Pascal VOC folders, and parquet files.

Everingham et al., 2015. https://doi.org/10.1007/s11263-014-0733-5
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.data.addresses import require_disk
from ssl_backbones.data.checks import require_pyarrow
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy
from ssl_backbones.data.frames import frame_of, turned
from ssl_backbones.data.keys import PathKeys, fingerprint_by_sizes_of, fingerprint_of
from ssl_backbones.data.listed import ListedFiles, ListedImages
from ssl_backbones.data.splits import packed_files, packed_kept_out
from ssl_backbones.data.subset import Subset
from ssl_backbones.evaluate.frames import AnnotationsFrame, annotated_frames
from ssl_backbones.evaluate.segmentation.mask_values import MASK_FORMATS, decode_mask
from ssl_backbones.evaluate.voc_lists import list_file, names_in
from ssl_backbones.runs.progress import counted

if TYPE_CHECKING:
    from ssl_backbones.data.parquet_in_memory import EncodedColumn, ParquetImages

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LISTS = Path("ImageSets", "Segmentation")
IMAGES = Path("JPEGImages")
MASKS = ("SegmentationClass", "SegmentationClassAug")
"""VOC's own masks, and those that Hariharan et al. (2011) added, in the folder that mmsegmentation gives them."""


class Scenes(Images):
    """Images, each with a mask of its own size. They have no labels: the masks do."""

    labels = None
    classes: Sequence[str] = ()

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """The class of each pixel (H, W) of the upright image, uint8, or UnreadableImageError."""

    @abstractmethod
    def mask_place(self, index: int) -> str:
        """The mask's place, for a person to find it."""


@final
class ReadScenes(Scenes):
    """N images and their masks, each in a file of its own or in a row of parquet files."""

    def __init__(
        self,
        images: ListedImages | ParquetImages,
        masks: ListedFiles | EncodedColumn,
        parts: Sequence[str],
        turns: NDArray[np.int64],
    ) -> None:
        """`parts` are the names that the fingerprints cover; `turns` (N,) are the EXIF turns by which masks become
        upright as their images are, 1 for none."""
        self.images, self.masks, self.parts, self.turns = images, masks, parts, turns
        self.keys, self.policy = images.keys, images.policy

    @property
    def digests(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """Digests of the images; the fingerprint covers the masks as well."""
        return self.images.digests

    def whole_digests(self) -> NDArray[np.uint8]:
        return self.images.whole_digests()

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.parts, None, np.concatenate([self.images.digests, self.masks.digests]))

    @cached_property
    def fingerprint_by_sizes(self) -> str:
        return fingerprint_by_sizes_of(self.parts, None, np.concatenate([self.images.sizes, self.masks.sizes]))

    def __getitem__(self, index: int) -> Image.Image:
        return self.images[index]

    def mask(self, index: int) -> np.ndarray:
        values = decode_mask(self.masks[index], self.mask_place(index), self.policy)
        return turned(values, int(self.turns[index]))

    def mask_place(self, index: int) -> str:
        if isinstance(self.masks, ListedFiles):
            return str(self.masks[index])
        return f"{self.masks.name!r} of {self.keys[index]!r}"


@final
class ScenesAt(Scenes):
    """The scenes of a source at some of its rows, in that order."""

    def __init__(self, scenes: Scenes, rows: np.ndarray) -> None:
        self.scenes, self.policy, self.part = scenes, scenes.policy, Subset(scenes, rows)
        self.keys = self.part.keys

    @property
    def digests(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        return self.part.digests

    def whole_digests(self) -> NDArray[np.uint8] | None:
        return self.part.whole_digests()

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return self.part.fingerprint

    @property
    def fingerprint_by_sizes(self) -> str:  # type: ignore[override]
        return self.part.fingerprint_by_sizes

    def __getitem__(self, index: int) -> Image.Image:
        return self.part[index]

    def mask(self, index: int) -> np.ndarray:
        return self.scenes.mask(int(self.part.rows[index]))

    def mask_place(self, index: int) -> str:
        return self.scenes.mask_place(int(self.part.rows[index]))


def open_scenes(
    spec: str,
    column: str,
    lists: Sequence[str],
    policy: DecodePolicy = USUAL_POLICY,
    frame: AnnotationsFrame = "auto",
    *,
    beside: bool = False,
) -> Scenes:
    """The scenes of a VOC folder, by its lists, or of parquet files, by their column of masks; or ImageSourceError.

    `frame` is that of masks whose sizes do not tell it. With `beside`, it is the parquet files for validation that are
    opened, beside those to train on that `spec` names.
    """
    require_disk(spec, "images with their masks")
    files = packed_files(spec) if spec else []
    if files and beside and not (files := packed_kept_out(trained_on := files)):
        raise ImageSourceError(
            f"there are no validation*.parquet beside {str(trained_on[0])!r}: name images to be tested on with "
            "--validation"
        )
    if files:
        require_pyarrow()
        if missing := [file for file in files if not file.is_file()]:
            raise ImageSourceError(f"{str(missing[0])!r} does not exist: give .parquet files that do")
        images, masks = parquet_pairs(files, column, policy)
        return read_scenes(images, masks, [*images.keys, column], frame, repr(spec))
    root = Path(spec).expanduser()
    if spec and (root / LISTS).is_dir():
        pictures, drawn = listed_pairs(root, lists, policy)
        return read_scenes(pictures, drawn, PathKeys([*pictures.keys, *drawn.keys]), frame, repr(spec))
    raise ImageSourceError(
        f"{spec!r} holds no images with masks: give a folder with {IMAGES}, {MASKS[0]} and {LISTS.as_posix()}, as "
        "Pascal VOC has them, or parquet files with a column of masks"
    )


def listed_pairs(root: Path, lists: Sequence[str], policy: DecodePolicy) -> tuple[ListedImages, ListedFiles]:
    """The images that the lists of a folder in Pascal VOC's layout name, list after list, each once, and their masks.

    ImageSourceError where a list, an image or a mask is missing.
    """
    way_out = "name others with --train_lists and --validation_lists"
    files = [list_file(root / LISTS, [word], way_out) for word in lists]
    names = list(dict.fromkeys(name for file in files for name in names_in(file)))
    images = [relative_file(root, (IMAGES,), name, IMAGE_SUFFIXES, "image") for name in names]
    masks = [relative_file(root, MASKS, name, (".png",), "mask") for name in names]
    return ListedImages(root, images, policy), ListedFiles(root, masks)


def parquet_pairs(files: Sequence[Path], column: str, policy: DecodePolicy) -> tuple[ParquetImages, EncodedColumn]:
    """The images of parquet files, and a column of masks, held in memory as they are encoded.

    ImageSourceError where there is no such column, or a row of it is empty.
    """
    from ssl_backbones.data.columns import holds_bytes
    from ssl_backbones.data.parquet import check_alike, schema_of
    from ssl_backbones.data.parquet_in_memory import EncodedColumn, ParquetImages

    schemas = [schema_of(file) for file in files]
    possible = [field.name for field in schemas[0] if holds_bytes(field.type)]
    if column not in possible:
        raise ImageSourceError(
            f"{str(files[0])!r} has no column {column!r} of masks: choose one of {', '.join(possible) or 'none'} "
            "with --mask_column"
        )
    check_alike(files, schemas, [column])
    images, masks = ParquetImages(files, policy), EncodedColumn(files, column)
    if (empty := np.flatnonzero(masks.sizes < 0)).size:
        raise ImageSourceError(f"{column!r} of {images.keys[int(empty[0])]!r} is empty: {len(empty)} rows have no mask")
    return images, masks


def read_scenes(
    images: ListedImages | ParquetImages,
    masks: ListedFiles | EncodedColumn,
    parts: Sequence[str],
    frame: AnnotationsFrame,
    source: str,
) -> ReadScenes:
    """Scenes whose masks are held against their images by the headers; those drawn on stored pixels are turned along.

    ImageSourceError for a mask of another size than its image, or of an image whose EXIF turn leaves it open.
    """
    found = (frame_of(masks[index], MASK_FORMATS) for index in range(len(masks)))
    told = counted(found, len(masks), "looking at the masks' sizes")
    stated = [None if mask is None else mask.stored for mask in told]
    frames = annotated_frames(images, stated, frame, f"the masks of {source}")
    turns = np.array([1 if each is None else each.turn for each in frames], np.int64)
    return ReadScenes(images, masks, parts, turns)


def relative_file(root: Path, folders: Sequence[str | Path], name: str, suffixes: Sequence[str], what: str) -> str:
    """The first file of a name in one of the folders, relative to the root; ImageSourceError where there is none."""
    tried = [Path(folder, name + suffix) for folder in folders for suffix in suffixes]
    found = next((path for path in tried if (root / path).is_file()), None)
    if found is None:
        raise ImageSourceError(
            f"{str(root / tried[0])!r}, the {what} of {name!r}, does not exist: add it, or take {name!r} off its list"
        )
    return found.as_posix()
