"""Evaluations of a backbone in its card: each result beside the same network with random weights."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from math import hypot
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult

from ssl_backbones.registry.photos import known_by

NOT_MEASURED = "not measured"
Results = Mapping[str, Any]
"""What an evaluation left in its results.json."""


def is_random(results: Results) -> bool:
    """Whether the evaluation was one of random weights, to compare with."""
    return bool(results.get("random_weights") or results.get("settings", {}).get("random"))


def beside_random(evaluations: Sequence[Results]) -> Iterator[tuple[Results, Results | None]]:
    """Each evaluation of the backbone, and that of random weights by the same protocol on the same images, if any."""
    baselines = [results for results in evaluations if is_random(results)]
    for results in evaluations:
        if not is_random(results):
            yield results, next((other for other in baselines if asked(other) == asked(results)), None)


def asked(results: Results) -> tuple[Any, ...]:
    """What two evaluations share that can be compared: the protocol, how it was asked, and the very same images."""
    images = ((results.get(part) or {}).get("fingerprint") for part in ("data", "validation"))
    how = (results.get("settings", {}).get(name) for name in ("size", "layer", "epochs", "batch_size"))
    return (results["protocol"], *images, *how)


def headlines(results: Results) -> dict[str, Mapping[str, Any]]:
    """The numbers worth a line: of a sweep its standard cells and the chosen one; never one for each class."""
    numbers: dict[str, Mapping[str, Any]] = results["numbers"]
    standard = {*results.get("standard", {}).values(), "chosen"} if "standard" in results else set(numbers)
    return {name: number for name, number in numbers.items() if name in standard and "/" not in name}


def is_share(number: Mapping[str, Any]) -> bool:
    """Whether a number counts how many of so many, and is told in percent."""
    return "of" in number


def in_words(number: Mapping[str, Any] | None) -> str:
    """A number with its interval, where it has one."""
    if number is None:
        return NOT_MEASURED
    told = percent if is_share(number) else three_digits
    unit = " %" if is_share(number) else ""
    ends = [number[end] for end in ("low", "high") if number.get(end) is not None]
    return f"{told(number['value'])}{unit}" + (f" [{told(ends[0])}, {told(ends[1])}]" if len(ends) == 2 else "")


def gain(number: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
    """By how much a number is above that of random weights, in points with its interval where it is a share."""
    if baseline is None:
        return NOT_MEASURED
    if not is_share(number):
        return f"{number['value'] - baseline['value']:+.3g}"
    above, low, high = (f"{100 * value:+.1f}" for value in difference(number, baseline))
    return f"{above} points [{low}, {high}]"


def difference(number: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float, float]:
    """By how much one share is above another, and the ends of that difference's interval, out of both their own.

    Newcombe's method 10 (1998, Interval estimation for the difference between independent proportions), which is wider
    than need be where both were asked about the same images.
    """
    above = number["value"] - other["value"]
    below = hypot(number["value"] - number["low"], other["high"] - other["value"])
    beyond = hypot(number["high"] - number["value"], other["value"] - other["low"])
    return above, above - below, above + beyond


def percent(value: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return str(round(100 * value, 1))


def three_digits(value: float) -> str:
    """A plain figure."""
    return f"{value:.3g}"


def place(results: Results) -> str:
    """The images that were asked about: the last part of where they lay, never the path."""
    about = results.get("validation") or results.get("data") or {}
    return PurePath(str(about.get("source", ""))).name or "images that are not recorded"


def rows(evaluations: Sequence[Results]) -> Iterator[tuple[str, str, str, str]]:
    """Lines of the card's table: what was measured, of random weights, of this backbone, and the gain."""
    for results, baseline in beside_random(evaluations):
        others = baseline["numbers"] if baseline else {}
        for name, number in headlines(results).items():
            label = f"{results['protocol']}, {name}, {place(results)}"
            yield label, in_words(others.get(name)), in_words(number), gain(number, others.get(name))


def beats_random(evaluations: Sequence[Results]) -> list[str]:
    """Of what was measured of both, what is not surely above random weights: zero is in the difference's interval."""
    equal = []
    for results, baseline in beside_random(evaluations):
        for name, number in headlines(results).items():
            other = baseline["numbers"].get(name) if baseline else None
            if other and is_share(number) and difference(number, other)[1] <= 0:
                equal.append(f"{results['protocol']}, {name}")
    return equal


def linear(evaluations: Sequence[Results]) -> str | None:
    """The first linear evaluation's top-1, and on which images, in words."""
    for results, _ in beside_random(evaluations):
        if str(results["protocol"]).startswith(("linear", "logistic")):
            name, number = next(iter(headlines(results).items()))
            return f"{in_words(number)} ({results['protocol']}, {name}, on {place(results)})"
    return None


def index(evaluations: Sequence[Results]) -> list[EvalResult]:
    """The numbers as the Hub's model-index has them."""
    return [
        EvalResult(
            task_type="image-classification" if is_share(number) else "image-feature-extraction",
            dataset_type=place(results),
            dataset_name=place(results),
            metric_type="accuracy" if is_share(number) else name,
            metric_name=f"{results['protocol']}, {name}",
            metric_value=float(percent(number["value"]) if is_share(number) else three_digits(number["value"])),
        )
        for results, _ in beside_random(evaluations)
        for name, number in headlines(results).items()
    ]


PLACEHOLDERS = {"--data": "DATA", "--validation": "VALIDATION"}
"""What a command tells in place of where somebody's photos lay."""


def commands(evaluations: Sequence[Results], source: str) -> str:
    """How each was measured, to be measured again of the backbone that is loaded by `source`."""
    lines = [f"python training/{retold(results, source)}" for results in evaluations if results.get("command")]
    return "\n".join(["```", *dict.fromkeys(lines), "```"]) if lines else ""


def retold(results: Results, source: str) -> str:
    """A command with the backbone's public name for the folder that was asked about, and DATA for the photos' own."""
    words = shlex.split(str(results["command"]))
    model = None if is_random(results) else results.get("model")
    told = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, _ = word.partition("=")
        if equals and option in PLACEHOLDERS:
            told.append(f"{option}={PLACEHOLDERS[option]}")
        else:
            told.append(PLACEHOLDERS.get(before, source if word == model else word))
    return shlex.join(told)


def stands_for(evaluations: Sequence[Results]) -> str:
    """Which photos DATA is in the commands, and where they come from as far as that is known."""
    found = {place(results): known_by((results.get("data") or {}).get("fingerprint")) for results in evaluations}
    return "DATA is " + " or ".join(f"{name} ({data.origin})" if data else name for name, data in found.items())
