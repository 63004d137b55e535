"""The terms that go along with a network from run to run, read from the records of what each run was given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from ssl_backbones.registry.licences import binds, recorded
from ssl_backbones.registry.names import HUB, LEFT

OWN_RUN = "a run of this package"


def is_own(found: Mapping[str, Any]) -> bool:
    """True for the record of a run of this package, whose maker chooses the licence where none binds."""
    return str(found.get("source") or "").startswith(OWN_RUN)


def bound_by(found: Mapping[str, Any]) -> list[str]:
    """The licences that bind what is made of a network, by the record of it, its own first."""
    stated = map(recorded, (found.get("licence"), *_texts(found.get("binding"))))
    return [*dict.fromkeys(licence for licence in stated if licence and binds(licence))]


def unlicensed(found: Mapping[str, Any]) -> list[str]:
    """The networks whose licence is not known, by the record of one: itself, and those behind it."""
    free = recorded(found.get("licence")) or is_own(found)
    itself = [] if free else [shown(str(found.get("name") or "a network without a name"))]
    return [*dict.fromkeys([*itself, *_texts(found.get("unknown"))])]


def in_order(terms: Iterable[object]) -> str:
    """The terms of a run's images and of those before them, each once; one that nobody recorded is not passed over."""
    return ", and before that ".join(dict.fromkeys(str(each or "not recorded") for each in terms))


def shown(name: str) -> str:
    """A name as others may read it: a repository whole, of a path its last part that tells something."""
    if name.startswith(HUB) or not is_path(name):
        return name
    path = PurePath(name)
    return path.parent.name if path.name in LEFT and path.parent.name else path.name


def is_path(name: str) -> bool:
    """True for a name that is that of a folder or a file, or looks like one."""
    return os.path.exists(name.removeprefix("local-dir:")) or os.sep in name or "/" in name


def _texts(plain: object) -> list[str]:
    return [*map(str, plain)] if isinstance(plain, list | tuple) else []
