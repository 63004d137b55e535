"""Weights that go into the package itself: small, registered, and shown to be better than none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_backbones.catalogue.lookup import describe, list_models
from ssl_backbones.files import write_file
from ssl_backbones.hub.evaluations import apart, beside_random, not_above_random
from ssl_backbones.hub.given import givens
from ssl_backbones.hub.publishing.material import Material, MaterialError
from ssl_backbones.registry.image_sets import are_those

LARGEST = 2 * 10**6
"""Bytes of a file in the package, at most."""
QUESTIONS = ("knn", "logistic")
"""Beginnings of the protocols by which weights must be surely above random ones."""


def ship(material: Material, weights: Path, folder: Path) -> Path:
    """Put a file of weights where the package looks for them; or MaterialError, with nothing written."""
    check_ships(material, weights)
    folder.mkdir(exist_ok=True)
    write_file(folder / f"{material.name}.safetensors", weights.read_bytes())
    return folder / f"{material.name}.safetensors"


def check_ships(material: Material, weights: Path) -> None:
    """Refuse a file of weights that may not be part of the package."""
    if material.name not in list_models(include_tags=True):
        raise MaterialError(
            f"{material.name!r} is no registered name, so nobody could ask for it: add a row to "
            "ssl_backbones/registry/tags.py first"
        )
    if altered := sorted({"epochs", "max_steps", "size"} & set(material.results.get("altered", {}))):
        raise MaterialError(
            f"the run was altered from its recipe in {', '.join(altered)}, so it is not {material.name}: train by the "
            "recipe as it is, or publish the weights with --repo"
        )
    size = weights.stat().st_size
    if size > LARGEST:
        raise MaterialError(f"the weights have {size:,} bytes, but {LARGEST:,} may ship: publish them with --repo")
    data = describe(material.name).data or ""
    if not are_those(data, material.fingerprint):
        raise MaterialError(
            f"{material.name!r} says {data}, and the images are not known to be those: record their fingerprint in "
            "ssl_backbones/registry/image_sets.py if they are, or publish the weights with --repo"
        )
    check_worth(apart(material.evaluations, givens(material.results))[0])


def check_worth(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Refuse weights that were not shown to be above random ones by every one of QUESTIONS."""
    compared = {results["protocol"] for results, baseline in beside_random(evaluations) if baseline}
    for protocol in QUESTIONS:
        if not any(asked.startswith(protocol) for asked in compared):
            raise MaterialError(
                f"what ships must be shown to beat random weights: evaluate it by {protocol}, once more with --random, "
                "and name both folders with --evaluation"
            )
    if equal := not_above_random(evaluations):
        raise MaterialError(
            f"what ships must beat random weights, and does not surely in {'; '.join(equal)}: train it longer, or "
            "enter its card alone with --enter"
        )
