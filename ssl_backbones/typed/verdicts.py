"""The forms of a verdict in results.json: a backbone beside others, and the trend of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from ssl_backbones.checks import check
from ssl_backbones.typed.values import check_form


class Value(TypedDict):
    """The part of a number that it cannot be without."""

    value: float


class NumberForm(Value, total=False):
    """A number with the 95% interval around it."""

    low: float | None
    high: float | None


class CountedForm(TypedDict):
    """Images that were counted."""

    images: int


class Difference(TypedDict):
    """A difference with its interval."""

    value: float
    low: float
    high: float


class Gains(TypedDict, total=False):
    """The gains over another network."""

    knn: Difference
    probe: Difference
    retrieval: Difference


class Ranked(TypedDict):
    """The number of a network that is always measured."""

    rank: NumberForm


class NetworkNumbers(Ranked, total=False):
    """The numbers of a network beside others."""

    knn: NumberForm
    probe: NumberForm
    retrieval: NumberForm


class NetworkForm(TypedDict):
    """A network beside others."""

    name: str
    features: int
    numbers: NetworkNumbers


class OtherForm(TypedDict):
    """A network that the backbone was held against."""

    name: str
    numbers: NetworkNumbers
    gain: Gains


class Baselines(TypedDict):
    """The backbone and the networks that it was held against."""

    images: int
    labelled: int
    networks: list[dict[str, Any]]


class Beside(TypedDict):
    """All that stands beside a verdict."""

    data: CountedForm
    baselines: Baselines


class Trend(TypedDict):
    """Measurements in the second half of a run."""

    of: Literal["knn", "retrieval"]
    steps: list[int]
    shares: list[float]


class Changed(TypedDict):
    """A change that was measured over them."""

    change: Difference


def check_verdict(results: Mapping[str, Any]) -> None:
    """Refuse a backbone beside others, or a trend of its training, that no sentence could tell: ValueError."""
    if results.get("baselines"):
        check_form(Beside, results)
        networks = results["baselines"]["networks"]
        check(bool(networks), "baselines.networks", networks, "the backbone and others")
        for at, network in enumerate(networks):
            check_form(OtherForm if at else NetworkForm, network, f"baselines.networks.{at}")
            gained = not at or network["gain"].keys() & Gains.__annotations__.keys()
            check(bool(gained), f"baselines.networks.{at}.gain", network.get("gain"), "that of a measure")
    if trend := results.get("trend"):
        check_form(Trend, trend, "trend")
        check_form(list[float], trend.get("kept", []), "trend.kept")
        if "change" in trend:
            check_form(Changed, trend, "trend")
            check(bool(trend["steps"] and trend["shares"]), "trend.steps", trend["steps"], "those of its change")
