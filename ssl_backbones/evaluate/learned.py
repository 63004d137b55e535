"""Labels that a backbone was trained with: what it scores on their images says nothing of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_backbones.data import Images
from ssl_backbones.data.subset import HELD_OUT, as_list
from ssl_backbones.files import UnreadableError
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import learns_from_labels
from ssl_backbones.visualizers.run_section import recorded_recipe, recorded_results


def learned_from(folder: Path, images: Images) -> bool:
    """True for the folder of a run that was trained with labels of these images, or of others of the same source.

    Those that the run held out are no such images. False where the folder's records cannot be read.
    """
    try:
        recipe, data = recorded_recipe(folder), recorded_results(folder).get("data") or {}
    except UnreadableError:
        return False
    if images.labels is None or not labels_used(recipe):
        return False
    trained = {data.get("fingerprint"), data.get("whole_fingerprint")}
    if not trained & {images.fingerprint, images.fingerprint_by_sizes, images.whole_fingerprint}:
        return False
    held_out = folder / HELD_OUT
    return not held_out.exists() or not set(as_list(images).split(b"\n")) <= set(held_out.read_bytes().split(b"\n"))


def labels_used(recipe: Mapping[str, Any]) -> bool:
    """True for the recipe, as JSON has it, of a method that learns from labels, or of a task on top of a backbone."""
    name, choices = Name.parse(str(recipe.get("model", ""))).method, recipe.get("method")
    return "task" in recipe or (isinstance(choices, dict) and learns_from_labels(name, choices))
