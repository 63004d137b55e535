"""The name of a run's backbone: its recipe's where the images are known to be those of the recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ssl_backbones.credentials import without_credentials
from ssl_backbones.registry.image_sets import are_those


def data_name(recipe: Mapping[str, Any]) -> str:
    """The last part of where the data lay; never the path, which is a machine's own affair."""
    data = without_credentials(str(recipe.get("data", "")))
    return PurePath(data.partition("?")[0] if "://" in data else data).name or "not recorded"


def fingerprint(results: Mapping[str, Any]) -> str | None:
    """The fingerprint of the images that were trained on."""
    found: str | None = results.get("data", {}).get("fingerprint")
    return found


def on_own_images(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """True for a registered recipe on images that are not known to be those it is written for."""
    from ssl_backbones import recipes  # needs the extra for training, as whoever has a run does

    found, meant = fingerprint(results), recipe.get("promise", {}).get("data", "")
    return found is not None and str(recipe["name"]) in recipes.names() and not are_those(meant, found)


def run_name(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The recipe's name; on one's own images that of the run's folder, or the model's with that of the images."""
    name = str(recipe["name"])
    if not on_own_images(recipe, results):
        return name
    folder = PurePath(str(recipe.get("out") or "")).name
    if folder and folder != name:
        return folder
    return f"{recipe['model']}.{re.sub(r'[^A-Za-z0-9_-]+', '_', data_name(recipe)).strip('_') or 'own'}"
