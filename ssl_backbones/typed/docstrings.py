"""The text below each field of a dataclass, for a command's help and for Python's own."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any


@cache
def docstrings(kind: type[Any]) -> Mapping[str, str]:
    """The text below each field in the source of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(kind.__mro__)):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, below in pairwise(tree.body):  # type: ignore[attr-defined]
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return MappingProxyType(found)


def tell_fields(kind: type[Any]) -> None:
    """Add the text below each field of a dataclass to its docstring, so that help() tells it."""
    texts = docstrings(kind)  # type: ignore[arg-type]
    told = [f"- {field.name}: {texts.get(field.name, 'as its type says.')}" for field in fields(kind)]
    wrapped = [textwrap.fill(line, 100, subsequent_indent="  ") for line in told]
    kind.__doc__ = "\n".join([inspect.cleandoc(kind.__doc__ or ""), "", *wrapped])
