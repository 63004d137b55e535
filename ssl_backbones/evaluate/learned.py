"""Labels that a backbone was trained with: what it scores on their images says nothing of others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ssl_backbones.data import Images
from ssl_backbones.data.subset import HELD_OUT, as_list
from ssl_backbones.models.provenance import records, run_file
from ssl_backbones.registry.errors import ON_THE_WAY, PretrainedWeightsError
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import learns_from_labels


def learned_from(name: str, images: Images) -> bool:
    """True for weights of a run that was trained with labels of these images, or of others of the same source.

    They go by any name: `hf-hub:org/name`, a run's folder, its folder `backbone`. Images that the run held out are no
    such images. False where its records cannot be read.
    """
    if images.labels is None:
        return False
    with suppress(PretrainedWeightsError, *ON_THE_WAY):
        recipe, results = records(name)
        return labels_used(recipe) and same_source(results.get("data"), images) and not held_out(name, results, images)
    return False


def same_source(data: object, images: Images) -> bool:
    """True for images of the source that results tell as `data`; False where it is no account of images."""
    asked = (images.fingerprint, images.fingerprint_by_sizes, images.whole_fingerprint)
    told = (data.get("fingerprint"), data.get("whole_fingerprint")) if isinstance(data, dict) else ()
    return any(each in asked for each in told)


def held_out(name: str, results: Mapping[str, Any], images: Images) -> bool:
    """True for images that a run kept out of its training: any that it lists; where it is published, all of them."""
    asked = as_list(images)
    if (listed := run_file(name, HELD_OUT)) is not None:
        return set(asked.split(b"\n")) <= set(listed.read_bytes().split(b"\n"))
    selection = results.get("selection")
    return isinstance(selection, dict) and selection.get("sha256") == hashlib.sha256(asked).hexdigest()


def labels_used(recipe: Mapping[str, Any]) -> bool:
    """True for the recipe, as JSON has it, of a method that learns from labels, or of a task on top of a backbone."""
    name, choices = Name.parse(str(recipe.get("model", ""))).method, recipe.get("method")
    return "task" in recipe or (isinstance(choices, dict) and learns_from_labels(name, choices))
