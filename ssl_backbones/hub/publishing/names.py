"""No name of a file in what is published: the number of images that could not be read stays, and their names go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_backbones.files import object_digest, write_json
from ssl_backbones.runs.manifest import MANIFEST, CheckpointError, read_manifest
from ssl_backbones.typed.values import check_form

UNREADABLE = "unreadable"
"""The beginning of the keys under which results and checkpoints list such images."""


def without_names(value: Any) -> Any:
    """A JSON value in which the number of images that could not be read stands in place of their names."""
    if isinstance(value, dict):
        return {
            key: len(part) if key.startswith(UNREADABLE) and isinstance(part, list) else without_names(part)
            for key, part in value.items()
        }
    return [without_names(part) for part in value] if isinstance(value, list) else value


def clear_names(checkpoint: Path) -> None:
    """Take the names of images that could not be read out of a copy of a checkpoint; a run resumed from it counts anew.

    Raises CheckpointError for a checkpoint that is not whole.
    """
    manifest = read_manifest(checkpoint)
    accounts = manifest["scalars"].get(UNREADABLE, {})
    try:
        check_form(dict[str, dict[str, Any]], accounts, UNREADABLE)
    except ValueError as error:
        raise CheckpointError(f"the {MANIFEST} of {checkpoint} is not what a run wrote ({str(error)[:-1]})") from error
    named = [account for account in accounts.values() if account.get("photos")]
    if named:
        for account in named:
            account["photos"] = {}
        write_json(checkpoint / MANIFEST, manifest | {"sha256": object_digest(manifest)})
