"""Annotated images by what `--data` names: VOC's folders, COCO's annotations, or parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.addresses import require_disk
from ssl_backbones.data.checks import require_pyarrow
from ssl_backbones.data.splits import packed_files, packed_kept_out
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.coco_json import coco_file, open_coco
from ssl_backbones.evaluate.detection.parquet_objects import Column, open_parquet
from ssl_backbones.evaluate.detection.voc_folder import LISTS, VALIDATION, is_voc, open_voc
from ssl_backbones.evaluate.frames import AnnotationsFrame


def open_annotated(
    spec: str,
    *,
    column: Column | None = None,
    kept_out: bool = False,
    classes: Sequence[str] | None = None,
    frame: AnnotationsFrame = "auto",
) -> AnnotatedImages:
    """The images of a source with their objects, those to train on unless `kept_out`.

    A VOC or COCO folder may be followed by :split; several VOC folders stand with commas between them. `classes` are
    those trained on, and any other is an ImageSourceError. `frame` is that of annotations whose sizes do not tell it.
    """
    require_disk(spec, "images with their objects")
    files = packed_files(spec)
    if files:
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise ImageSourceError(f"{str(missing)!r} does not exist: give .parquet files that do")
        require_pyarrow()
        return open_parquet(files, column, classes=classes, frame=frame)
    parts = [divided(part) for part in spec.split(",")]
    if all(is_voc(path) for path, _ in parts):
        return open_voc(parts, kept_out=kept_out, classes=classes, frame=frame)
    path, split = parts[0]
    annotations = coco_file(path, split, kept_out)
    if annotations is not None and len(parts) == 1:
        return open_coco(annotations, classes=classes, frame=frame)
    raise ImageSourceError(
        f"{spec!r} has no objects: give a VOC folder (JPEGImages, Annotations), a COCO folder "
        "(annotations/instances_*.json) or parquet files with a column 'objects'"
    )


def open_kept_out(
    spec: str, like: AnnotatedImages, column: Column | None = None, frame: AnnotationsFrame = "auto"
) -> AnnotatedImages:
    """The images kept beside those to train on, of the same classes; ImageSourceError where there are none."""
    files = packed_files(spec)
    beside = packed_kept_out(files) if files else []
    if beside:
        return open_parquet(beside, column, classes=like.classes, frame=frame)
    if not files:
        parts = [divided(part) for part in spec.split(",")]
        if all(is_voc(path) for path, _ in parts):
            held = [(path, "") for path, _ in parts if any(has_list(path, name) for name in VALIDATION)]
            if held:
                return open_voc(held, kept_out=True, classes=like.classes, frame=frame)
        elif (file := coco_file(parts[0][0], "", kept_out=True)) is not None and file != parts[0][0]:
            return open_coco(file, classes=like.classes, frame=frame)
    raise ImageSourceError(f"there are no images to test on beside {spec!r}: name some with --validation")


def has_list(root: Path, name: str) -> bool:
    """True if a VOC folder has a list of this name."""
    return (root / LISTS / f"{name}.txt").is_file()


def divided(part: str) -> tuple[Path, str]:
    """A folder and the split named behind its colon, if any."""
    path = Path(part).expanduser()
    if path.exists() or ":" not in part:
        return path, ""
    folder, _, split = part.rpartition(":")
    return Path(folder).expanduser(), split
