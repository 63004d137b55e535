"""Backbones in a folder to carry to a machine without network, and the proof that they arrived whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from ssl_backbones.catalogue.lookup import create_model, describe
from ssl_backbones.cleanup import is_new_or_empty, new_folder
from ssl_backbones.files import file_digest, read_object, write_json
from ssl_backbones.hub.export import preparation, save_backbone
from ssl_backbones.hub.sidecar import about, check_no_token
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.manifest import Entry
from ssl_backbones.typed.values import check_form

MANIFEST = "bundle.json"
SCHEMA = 1


class Schema(TypedDict):
    """The part of a bundle's manifest that every version has."""

    schema: int


class Manifest(Schema):
    """The files of a bundle, with size and sha256, and the folders of its models."""

    files: dict[str, Entry]
    models: list[str]


class BundleError(Refusal, ValueError):
    """A bundle that is not what was written; the message names the first file that differs."""


def write_bundle(models: Iterable[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Write each model as a folder that timm loads, and a manifest of every file; return the models' folders.

    Raises BundleError, with nothing written, where a file or a folder that is not empty lies there, and where a file
    would hold an access token.
    """
    place = Path(folder)
    if not is_new_or_empty(place):
        raise BundleError(f"{str(place)!r} is not empty: name a new folder, so that the bundle is all it holds")
    with new_folder(place) as root:
        names = [_write_model(name, root) for name in models]
        files = {}
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            name = path.relative_to(root).as_posix()
            check_no_token({name: path.read_bytes()}, BundleError)
            files[name] = {"size": path.stat().st_size, "sha256": file_digest(path)}
        write_json(root / MANIFEST, {"schema": SCHEMA, "models": names, "files": files})
    return [place / name for name in names]


def verify_bundle(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders of the models of a bundle, once every file is found to be what was written, and no other is there."""
    root = Path(folder)
    manifest = _manifest(root)
    for name, wanted in manifest["files"].items():
        path = _inside(root, name)
        if not path.is_file():
            raise BundleError(f"{name!r} is missing from the bundle {str(root)!r}: {_AGAIN}")
        if path.stat().st_size != wanted["size"] or file_digest(path) != wanted["sha256"]:
            raise BundleError(f"{name!r} in the bundle {str(root)!r} is not what was written: {_AGAIN}")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    if extra := sorted(found - manifest["files"].keys() - {MANIFEST}):
        raise BundleError(f"{extra[0]!r} was added to the bundle {str(root)!r}: {_AGAIN}")
    return [_inside(root, name) for name in manifest["models"]]


_AGAIN = "copy it again from where it was made, or make it anew with `ssl-backbones bundle MODEL --out DIR`"


def _write_model(name: str, root: Path) -> str:
    """One more model as model.safetensors and config.json, with the preparation, licence and origin that it had.

    Return the name of its folder.
    """
    known = describe(name)
    model = create_model(name, pretrained=True, num_classes=0)
    folder = root / re.sub(r"[^\w.-]+", "_", Path(name).resolve().name if os.path.isdir(name) else known.name)
    if folder.exists():
        raise BundleError(f"two models of the bundle would be called {folder.name!r}: bundle them apart")
    save_backbone(model, folder, known.backbone, **preparation(model), **about(model))
    return folder.name


def _manifest(root: Path) -> dict[str, Any]:
    """The manifest of a bundle, of the form that is read here."""
    manifest = read_object(root / MANIFEST, _AGAIN, BundleError, check=partial(check_form, Schema))
    if manifest["schema"] != SCHEMA:
        raise BundleError(
            f"{str(root)!r} is a bundle of schema {manifest['schema']}, and this version reads {SCHEMA}: {_AGAIN}"
        )
    try:
        check_form(Manifest, manifest)
    except ValueError as error:
        raise BundleError(f"the {MANIFEST} of {str(root)!r} is damaged ({str(error).rstrip('.')}): {_AGAIN}") from error
    for name in (*manifest["files"], *manifest["models"]):
        _inside(root, name)
    return manifest


def _inside(root: Path, name: str) -> Path:
    """A path of the bundle; BundleError for one that leads out of it."""
    parts = PurePosixPath(name).parts
    path = root.joinpath(*parts) if parts else root
    leads_out = not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name or ":" in name
    if leads_out or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"the bundle {str(root)!r} names {name!r}, which leads out of its folder: do not use it")
    return path
