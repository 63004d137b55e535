"""What is written beside data so that a change to it is seen: an object of JSON that holds its own sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(sealed: Mapping[str, Any]) -> str:
    """The sha256 of an object without its own; every schema keeps this rule."""
    content = {key: value for key, value in sealed.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
