"""Sentences name the first of many and tell how many more there are, and refuse what is no choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_origin

import numpy as np
import pytest

from ssl_backbones.checks import few
from ssl_backbones.methods import METHODS
from ssl_backbones.models.objective import Objective
from ssl_backbones.typed.values import concrete, declared_types

CHOICES = [
    pytest.param(kind, name, id=f"{kind.__name__}.{name}")
    for kind in (*METHODS.values(), *concrete(Objective))
    for name, declared in declared_types(kind).items()
    if get_origin(declared) is Literal
]


@pytest.mark.parametrize(
    ("names", "shown", "apart", "spelled", "said"),
    [
        ([], 3, ", ", str, ""),
        (["a", "b", "c"], 3, ", ", repr, "'a', 'b', 'c'"),
        (("a", "b", "c", "d", "e"), 3, ", ", str, "a, b, c and 2 more"),
        (["a is 1 there", "b is 2 there", "c"], 2, "; ", str, "a is 1 there; b is 2 there and 1 more"),
        (np.arange(5), 1, ", ", lambda row: f"{row}.jpg", "0.jpg and 4 more"),
    ],
)
def test_the_first_names_and_the_number_of_the_others(
    names: Sequence[Any], shown: int, apart: str, spelled: Callable[[Any], str], said: str
) -> None:
    assert few(names, shown, apart, spelled) == said


@pytest.mark.parametrize(("kind", "name"), CHOICES)
def test_a_configuration_takes_nothing_but_the_choices_of_its_field(kind: type[Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be one of .*{getattr(kind(), name)}.*, not 'nonsense'$"):
        kind(**{name: "nonsense"})
