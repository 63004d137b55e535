"""Images with a mask each, which says of every pixel what it shows: Pascal VOC folders, and parquet files.

Everingham et al., 2015. https://doi.org/10.1007/s11263-014-0733-5
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.data.addresses import require_disk
from ssl_backbones.data.checks import require_pyarrow
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy, decode
from ssl_backbones.data.digest_index import Contents, contents_of_list
from ssl_backbones.data.frames import frame_of, turned
from ssl_backbones.data.keys import PathKeys, fingerprint_by_sizes_of, fingerprint_of
from ssl_backbones.data.splits import packed_files, packed_kept_out
from ssl_backbones.data.subset import Subset
from ssl_backbones.evaluate.frames import AnnotationsFrame, annotated_frames
from ssl_backbones.evaluate.segmentation.mask_values import MASK_FORMATS, decode_mask
from ssl_backbones.evaluate.voc_lists import list_file, names_in
from ssl_backbones.runs.progress import counted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LISTS = Path("ImageSets", "Segmentation")
IMAGES = Path("JPEGImages")
MASKS = ("SegmentationClass", "SegmentationClassAug")
"""VOC's own masks, and those that Hariharan et al. (2011) added, in the folder that mmsegmentation gives them."""


class Scenes(Images):
    """Images, each with a mask of its own size. They have no labels: the masks do."""

    labels = None
    classes: Sequence[str] = ()
    policy: DecodePolicy
    turns: NDArray[np.int64] | None = None
    """(N,) EXIF turns by which masks become upright as their images are, 1 for none; None before `fit`, and no turn."""

    @abstractmethod
    def encoded(self, index: int) -> bytes | Path | None:
        """An image as it is encoded, or its file."""

    @abstractmethod
    def encoded_mask(self, index: int) -> bytes | Path | None:
        """The mask of an image as it is encoded, or its file."""

    @abstractmethod
    def mask_place(self, index: int) -> str:
        """The mask's place, for a person to find it."""

    def mask(self, index: int) -> np.ndarray:
        """The class of each pixel (H, W) of the upright image, uint8, or UnreadableImageError."""
        values = decode_mask(self.encoded_mask(index), self.mask_place(index), self.policy)
        return values if self.turns is None else turned(values, int(self.turns[index]))

    def fit(self, frame: AnnotationsFrame, source: str) -> Self:
        """Hold all masks against their images by the headers, and turn those along that were drawn on stored pixels.

        ImageSourceError for a mask of another size than its image, or of an image whose EXIF turn leaves it open.
        """
        masks = (frame_of(self.encoded_mask(index), MASK_FORMATS) for index in range(len(self)))
        told = counted(masks, len(self), "looking at the masks' sizes")
        stated = [None if mask is None else mask.stored for mask in told]
        frames = annotated_frames(self, stated, frame, f"the masks of {source}")
        self.turns = np.array([1 if frame is None else frame.turn for frame in frames], np.int64)
        return self


@final
class VocScenes(Scenes):
    """The images that the lists of a folder in Pascal VOC's layout name, list after list, each named once."""

    def __init__(self, root: Path, lists: Sequence[str], policy: DecodePolicy = USUAL_POLICY) -> None:
        self.root, self.policy = root, policy
        way_out = "name others with --train_lists and --validation_lists"
        files = [list_file(root / LISTS, [word], way_out) for word in lists]
        names = list(dict.fromkeys(name for file in files for name in names_in(file)))
        self.images = PathKeys(relative_file(root, (IMAGES,), name, IMAGE_SUFFIXES, "image") for name in names)
        self.masks = PathKeys(relative_file(root, MASKS, name, (".png",), "mask") for name in names)
        self.keys = self.images
        self.files = PathKeys([*self.images, *self.masks])

    @cached_property
    def contents(self) -> Contents:
        """The sizes and digests of all images, and behind them those of all masks."""
        return contents_of_list(self.root, self.files)

    @property
    def digests(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """Digests of the images; the fingerprint covers the masks as well."""
        return self.contents.digests[: len(self.images)]

    def whole_digests(self) -> NDArray[np.uint8]:
        return contents_of_list(self.root, self.images, whole=True).digests

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.files, None, self.contents.digests)

    @cached_property
    def fingerprint_by_sizes(self) -> str:
        return fingerprint_by_sizes_of(self.files, None, self.contents.sizes)

    def encoded(self, index: int) -> Path:
        return self.root / self.images[index]

    def __getitem__(self, index: int) -> Image.Image:
        path = self.encoded(index)
        return decode(path, str(path), self.policy)

    def encoded_mask(self, index: int) -> Path:
        return self.root / self.masks[index]

    def mask_place(self, index: int) -> str:
        return str(self.encoded_mask(index))


@final
class ParquetScenes(Scenes):
    """The rows of parquet files with a column of images and one of masks, held in memory as they are encoded."""

    def __init__(self, files: Sequence[Path], column: str, policy: DecodePolicy = USUAL_POLICY) -> None:
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
        self.images, self.masks, self.policy = ParquetImages(files, policy), EncodedColumn(files, column), policy
        self.keys = self.images.keys
        if (empty := np.flatnonzero(self.masks.sizes < 0)).size:
            raise ImageSourceError(f"{self.mask_place(int(empty[0]))} is empty: {len(empty)} rows have no mask")

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
        sizes = np.concatenate([self.images.column.sizes, self.masks.sizes])
        return fingerprint_by_sizes_of(self.parts, None, sizes)

    @property
    def parts(self) -> list[str]:
        """The names that the fingerprints cover: of the images, and of the column of masks."""
        return [*self.keys, self.masks.name]

    def encoded(self, index: int) -> bytes | Path | None:
        return self.images.encoded(index)

    def __getitem__(self, index: int) -> Image.Image:
        return self.images[index]

    def encoded_mask(self, index: int) -> bytes | Path | None:
        return self.masks[index]

    def mask_place(self, index: int) -> str:
        return f"{self.masks.name!r} of {self.keys[index]!r}"


@final
class ScenesAt(Scenes):
    """The scenes of a source at some of its rows, in that order."""

    def __init__(self, scenes: Scenes, rows: np.ndarray) -> None:
        self.scenes, self.policy, self.part = scenes, scenes.policy, Subset(scenes, rows)
        self.keys = self.part.keys
        self.turns = None if scenes.turns is None else scenes.turns[rows]

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

    def encoded(self, index: int) -> bytes | Path | None:
        return self.scenes.encoded(int(self.part.rows[index]))

    def encoded_mask(self, index: int) -> bytes | Path | None:
        return self.scenes.encoded_mask(int(self.part.rows[index]))

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
        return ParquetScenes(files, column, policy).fit(frame, repr(spec))
    root = Path(spec).expanduser()
    if spec and (root / LISTS).is_dir():
        return VocScenes(root, lists, policy).fit(frame, repr(spec))
    raise ImageSourceError(
        f"{spec!r} holds no images with masks: give a folder with {IMAGES}, {MASKS[0]} and {LISTS.as_posix()}, as "
        "Pascal VOC has them, or parquet files with a column of masks"
    )


def relative_file(root: Path, folders: Sequence[str | Path], name: str, suffixes: Sequence[str], what: str) -> str:
    """The first file of a name in one of the folders, relative to the root; ImageSourceError where there is none."""
    tried = [Path(folder, name + suffix) for folder in folders for suffix in suffixes]
    found = next((path for path in tried if (root / path).is_file()), None)
    if found is None:
        raise ImageSourceError(
            f"{str(root / tried[0])!r}, the {what} of {name!r}, does not exist: add it, or take {name!r} off its list"
        )
    return found.as_posix()
