"""The numbers in a card, and those that it may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_backbones.catalogue.lookup import describe, list_models
from ssl_backbones.hub.evaluations import beside_random, gain, headlines
from ssl_backbones.registry.image_sets import known_by
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.runs.results import upgraded

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)*(?:e-?\d+)?(?![\w])")
CONFIDENCE = {"95"}
"""The one number of the card's own: that of the interval, which its key names."""


def leaves(value: Any) -> Iterator[Any]:
    """Every plain value in nested dicts and lists, and the names of the dicts."""
    if isinstance(value, dict | list | tuple):
        if isinstance(value, dict):
            yield from value
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def spellings(*sources: Any) -> set[str]:
    """Every way in which a number of the sources may stand in a card: as it is, as a percentage, with three digits."""
    found: set[str] = set()
    for leaf in leaves(list(sources)):
        if isinstance(leaf, int | float) and not isinstance(leaf, bool):
            found |= {text.lstrip("-") for text in (str(leaf), str(round(100 * leaf, 1)), f"{leaf:.3g}")}
        elif isinstance(leaf, str):
            found |= set(NUMBER.findall(leaf))
    return found


ASIDE = re.compile(r"```.*?```|`[\w./-]+\.(?:safetensors|json|md)`", re.DOTALL)
"""Code and names of files, in which a figure is no claim."""


def unfounded(card: str, name: str, records: Path) -> list[str]:
    """The numbers of a card that neither the results in its folder hold, nor the registry, nor the papers' names."""
    found = [json.loads(path.read_bytes()) for path in sorted(records.rglob("*.json"))]
    found += [upgraded(value) for value in found if "versions" in value]
    registered = vars(describe(name)) if name in list_models(include_tags=True) else {}
    images = [known_by(value["data"]["fingerprint"]) for value in found if isinstance(value.get("data"), dict)]
    origins = [data.origin for data in images if data]
    known = (
        spellings(found, registered, origins, [str(paper) for paper in PAPERS.values()], name) | CONFIDENCE | {"2.0"}
    )
    counts = [value["unreadable"] for value in found if "unreadable" in value]
    known |= {str(len(count) if isinstance(count, list) else count) for count in counts}
    known |= set(NUMBER.findall(" ".join(gains([value for value in found if "numbers" in value]))))
    return sorted(set(NUMBER.findall(ASIDE.sub("", card))) - known)


def gains(evaluations: list[Any]) -> Iterator[str]:
    """The differences between evaluations and those of random weights."""
    for results, baseline in beside_random(evaluations):
        for number_name, number in headlines(results).items():
            yield gain(number, baseline["numbers"].get(number_name) if baseline else None)
