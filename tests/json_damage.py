"""Damage to JSON files by a seeded generator: other types and sizes, deep nesting, NaN, foreign keys, bytes cut."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from fuzz_reader import cut, flip

from ssl_backbones.files import object_digest

LEAVES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 2**40, -(2**70), 10**400, 0.5, -1e308, float("nan"), float("inf")),
    *("", "x", "../../x", "/etc/passwd", "\0", "\ud800", "1", "<b>|`", "x" * 100_000),
    *([], {}, [[]], [None], {"": None}, {"value": "x"}, [1, "x"], [10**9] * 4, ["a"] * 1000),
)
"""Values to put in place of any other."""
ARGUMENTS = ("global_pool", "in_chans", "layers", "img_size", "features_only", "block", "channels", "pretrained_cfg")
FOREIGN = (
    "model_args",
    "num_classes",
    "fixed_input_size",
    "input_size",
    "mean",
    "numbers",
    "selection",
    "papers",
    "altered",
)
"""Keys that a file may lack, and that something reads."""


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: the object or list, and the key or index."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from nodes(value[key])


def other_value(value: Any, generator: random.Random) -> Any:
    """A JSON value changed at a place or two: another leaf, a key gone or renamed, an item twice, or all of it."""
    value = copy.deepcopy(value)
    for _ in range(generator.choice((1, 1, 1, 2))):
        places = list(nodes(value))
        if not places or generator.random() < 0.03:
            return generator.choice(LEAVES)
        whole, key = generator.choice(places)
        kind = generator.random()
        if kind < 0.6:
            whole[key] = copy.deepcopy(generator.choice(LEAVES))
        elif kind < 0.7 and isinstance(whole, dict):
            whole[generator.choice(FOREIGN)] = foreign(generator)
        elif kind < 0.85:
            del whole[key]
        elif isinstance(whole, dict):
            whole[generator.choice(("x", "type", "__class__", f"{key} "))] = whole.pop(key)
        else:
            whole.append(whole[key])
    return value


def foreign(generator: random.Random) -> Any:
    """A value under a key that was not there: a leaf, or arguments of a network."""
    leaf = copy.deepcopy(generator.choice(LEAVES))
    return {generator.choice(ARGUMENTS): leaf} if generator.random() < 0.5 else leaf


def deep(value: Any, generator: random.Random) -> bytes:
    """A JSON text with a place nested too deep for what walks by recursion."""
    depth = generator.choice((60, 500, 200_000))
    text = json.dumps(value)
    at = text.find(":") + 1
    return (text[:at] + "[" * depth + "]" * depth + "," + text[at:]).encode()


def sealed(value: Any) -> Any:
    """A manifest or an index whose own sha256 fits what it now says."""
    return value | {"sha256": object_digest(value)} if isinstance(value, dict) and "sha256" in value else value


def damaged(content: bytes, lines: bool, generator: random.Random) -> bytes:
    """The content of a JSON file, or of one line of a file of lines, damaged."""
    if lines:
        parts = content.splitlines(keepends=True)
        at = generator.randrange(len(parts))
        return b"".join([*parts[:at], damaged(parts[at].rstrip(), False, generator) + b"\n", *parts[at + 1 :]])
    kind = generator.random()
    if kind < 0.08:
        return bytes(generator.choice((cut, flip))(bytearray(content), generator))
    if kind < 0.12:
        return generator.choice((b"", b"\n", b"[]", b"null", b"\xff\xfe", content * 2, b"\xef\xbb\xbf" + content))
    value = json.loads(content)
    if kind < 0.16:
        return deep(value, generator)
    changed = other_value(value, generator)
    return json.dumps(sealed(changed) if generator.random() < 0.8 else changed).encode()
