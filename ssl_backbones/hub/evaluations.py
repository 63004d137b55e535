"""Evaluations of a backbone in its card, beside random weights, and those of the networks that its run was given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from huggingface_hub import EvalResult

from ssl_backbones.hub.markup import in_code, plain_text
from ssl_backbones.invocation import repeatable
from ssl_backbones.metrics import Interval, newcombe_difference
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.recipes.recipe import FREE
from ssl_backbones.registry.image_sets import known_by
from ssl_backbones.runs.results import LEARNED, NOT_MEASURED, Number, as_points, in_words, percent, searched_in_words

Results = Mapping[str, Any]
"""The content of a results.json."""
Said = Mapping[str | None, Mapping[str, str]]
"""Fields that name data sets, as a person states them, by the fingerprint of the images."""
KEPT_BESIDE = "the split kept beside "
"""The beginning of a source that is the validation split of another."""
OWN = {"model", "weights_sha256", "init", "random", "seed", "asked_about", "asked_about_by_sizes", "layout"}
"""Settings that name what is evaluated, or how its tensors lie in memory, beside those that a run may change."""


def is_random(results: Results) -> bool:
    """True for an evaluation of random weights, to compare with."""
    return bool(results.get("random_weights") or results.get("settings", {}).get("random"))


def part_of(results: Results, given: Mapping[str, Provenance]) -> str:
    """The part in a run of what was evaluated: "random" weights, one of those given, or "" for the backbone itself."""
    if is_random(results):
        return "random"
    digest = results.get("weights_sha256")
    return next((part for part, network in given.items() if network.sha256 == digest), "")


def stem_of(results: Results, given: Mapping[str, Provenance]) -> str:
    """The stem of an evaluation's file: its protocol and, where it is not of the backbone, what it is of."""
    stem = re.sub(r"[^a-z0-9]+", "_", str(results["protocol"]).lower()).strip("_") or "evaluation"
    part = part_of(results, given)
    return f"{stem}_{part}" if part else stem


def apart(evaluations: Sequence[Results], given: Mapping[str, Provenance]) -> tuple[list[Results], list[Results]]:
    """Evaluations of the backbone and of random weights, and those of the networks that its run was given."""
    by_part = [(part_of(results, given), results) for results in evaluations]
    return [one for part, one in by_part if part in ("", "random")], [one for part, one in by_part if part in given]


def given_rows(evaluations: Sequence[Results], given: Mapping[str, Provenance]) -> list[tuple[str, str]]:
    """Lines of the card's table on what a run was given: what was measured, and of the network itself."""
    return [
        (
            f"the {part}, {given[part].shown}, {results['protocol']}, {name}, {place(results)}"
            + (f", at {size} px" if (size := results.get("settings", {}).get("size")) else ""),
            in_words(number),
        )
        for results in evaluations
        for part in [part_of(results, given)]
        for name, number in headlines(results).items()
    ]


def beside_random(evaluations: Sequence[Results]) -> Iterator[tuple[Results, Results | None]]:
    """Each evaluation of the backbone, and that of random weights by the same protocol on the same images, if any.

    Those that ask about labels it was trained with are left out, as they show nothing of other images.
    """
    baselines = [results for results in evaluations if is_random(results)]
    for results in evaluations:
        if not (is_random(results) or results.get(LEARNED)):
            yield results, next((other for other in baselines if same_question(other, results)), None)


def same_question(one: Results, other: Results) -> bool:
    """True for two evaluations that can be compared: of one network, by one protocol, on the very same images.

    Of those that do not name their network, as 0.1.0.dev0 wrote them, it is taken to be the same.
    """
    networks = {results["architecture"] for results in (one, other) if "architecture" in results}
    return (
        len(networks) < 2
        and one["protocol"] == other["protocol"]
        and chosen(one) == chosen(other)
        and all(same_images(one.get(part) or {}, other.get(part) or {}) for part in ("data", "validation"))
    )


def chosen(results: Results) -> dict[str, Any]:
    """The settings that decide what an evaluation finds; of a searched learning rate, all that were tried."""
    found = {name: value for name, value in results.get("settings", {}).items() if name not in FREE | OWN}
    if search := results.get("learning_rates"):
        found["learning_rates"] = [tried["lr"] for tried in search["tried"]]
        found["optimizer"] = {
            name: part for name, part in found.get("optimizer", {}).items() if not name.endswith("lr")
        }
    return found


def same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True for records of the same images: by content, or by sizes where 0.1.0.dev0 wrote one of the two."""
    by_sizes = "fingerprint_by_sizes"
    if by_sizes in one and by_sizes in other:
        return bool(one.get("fingerprint") == other.get("fingerprint"))
    return bool(one.get(by_sizes, one.get("fingerprint")) == other.get(by_sizes, other.get("fingerprint")))


def headlines(results: Results) -> dict[str, Number]:
    """The numbers worth a line: of a sweep its standard cells and the chosen one; never one for each class."""
    numbers: dict[str, Number] = results["numbers"]
    standard = {*results.get("standard", {}).values(), "chosen"} if "standard" in results else set(numbers)
    return {name: number for name, number in numbers.items() if name in standard and "/" not in name}


def is_share(number: Number) -> bool:
    """True for a number that counts how many of so many, which is told in percent."""
    return "of" in number


def gain(number: Number, baseline: Number | None) -> str:
    """The difference to random weights in words, in points with its interval where it is one of shares."""
    if baseline is None:
        return NOT_MEASURED
    if not is_share(number):
        return f"{number['value'] - baseline['value']:+.3g}"
    above = difference(number, baseline)
    return as_points(asdict(above))


def difference(number: Number, other: Number) -> Interval:
    """The difference of two numbers that were measured independently, with its interval.

    The interval is wider than need be where both were asked about the same images.
    """
    one, another = (Interval(found["value"], found["low"], found["high"]) for found in (number, other))
    return newcombe_difference(one, another)


def place(results: Results) -> str:
    """The name of the images that were asked about: the last part of where they lay, never the path."""
    about = results.get("validation") or results.get("data") or {}
    return PurePath(str(about.get("source", ""))).name or "images that are not recorded"


def rows(evaluations: Sequence[Results]) -> Iterator[tuple[str, str, str, str]]:
    """Lines of the card's table: what was measured, of random weights, of this backbone, and the gain."""
    for results, baseline in beside_random(evaluations):
        others = baseline["numbers"] if baseline else {}
        for name, number in headlines(results).items():
            label = f"{results['protocol']}, {name}, {place(results)}"
            yield label, in_words(others.get(name)), in_words(number), gain(number, others.get(name))


def remarks(results: Results, evaluations: Sequence[Results]) -> list[str]:
    """Sentences on the numbers of a run and its evaluations: how rates were chosen, which images were learnt from."""
    return [*searches(evaluations), *copies([results, *evaluations]), *learned([results, *evaluations])]


def learned(evaluations: Sequence[Results]) -> list[str]:
    """A line on each evaluation that asked about labels the backbone was trained with."""
    lines = [
        f"{results['protocol']}, {place(results)}: the backbone was trained with these labels, so what is measured by "
        "them says nothing of other images and is no comparison."
        for results in evaluations
        if results.get(LEARNED)
    ]
    return list(dict.fromkeys(lines))


def searches(evaluations: Sequence[Results]) -> list[str]:
    """A line on each evaluation whose learning rate was searched: all rates, and what the best was chosen on."""
    return [
        f"{results['protocol']}{' of random weights' if is_random(results) else ''}, {place(results)}: "
        f"{searched_in_words(results['learning_rates'])}"
        for results in evaluations
        if "learning_rates" in results
    ]


def copies(evaluations: Sequence[Results]) -> list[str]:
    """A line on each of the validation splits that share images with those that were learnt from."""
    asked = [(results, results.get("validation") or {}) for results in evaluations]
    lines = [
        f"{results['protocol']}, {place(results)}: {about['copies']} of the {about['images']} images asked about were "
        "learnt from, which flatters the numbers."
        for results, about in asked
        if about.get("copies")
    ]
    return list(dict.fromkeys(lines))


def over_random(evaluations: Sequence[Results]) -> list[tuple[str, Interval]]:
    """The difference to random weights of all that was measured of both with an interval, and is better the larger.

    That is all but the figures of `diagnose`, of which neither large nor small is better in itself.
    """
    found = []
    for results, baseline in beside_random(evaluations):
        for name, number in headlines(results).items():
            other = baseline["numbers"].get(name) if baseline else None
            if other and has_interval(number) and has_interval(other) and results["protocol"] != DIAGNOSIS:
                found.append((f"{results['protocol']}, {name}, {place(results)}", difference(number, other)))
    return found


def has_interval(number: Number) -> bool:
    """True for a number with its interval."""
    return number.get("low") is not None and number.get("high") is not None


def not_above_random(evaluations: Sequence[Results]) -> list[str]:
    """All that is not surely above random weights: zero is in the difference's interval."""
    return [label for label, difference in over_random(evaluations) if difference.low <= 0]


def linear(evaluations: Sequence[Results]) -> str | None:
    """The first linear evaluation's top-1, and on which images, in words."""
    for results, _ in beside_random(evaluations):
        if str(results["protocol"]).startswith(("linear", "logistic")):
            for name, number in headlines(results).items():
                return f"{in_words(number)} ({results['protocol']}, {name}, on {place(results)})"
    return None


def data_set(folder: str, fingerprint: str | None, said: Said = MappingProxyType({})) -> dict[str, str]:
    """The fields of the model-index that name images: as is said or known of their fingerprint, or by their folder."""
    known = known_by(fingerprint)
    return {"dataset_type": folder, "dataset_name": known.name if known else folder, **said.get(fingerprint, {})}


def asked_about(results: Results, said: Said) -> dict[str, Any]:
    """The fields of the model-index that name the images that were asked about, a split kept beside others by these."""
    data, validation = (results.get(part) or {} for part in ("data", "validation"))
    folder = place(results).removeprefix(KEPT_BESIDE)
    if str(validation.get("source", "")).startswith(KEPT_BESIDE):
        return {**data_set(folder, data.get("fingerprint"), said), "dataset_split": "validation"}
    return {**data_set(folder, (validation or data).get("fingerprint"), said)}


def index(evaluations: Sequence[Results], said: Said = MappingProxyType({})) -> list[EvalResult]:
    """The numbers as the Hub's model-index has them."""
    return [
        EvalResult(
            task_type="image-classification" if is_share(number) else "image-feature-extraction",
            **asked_about(results, said),
            metric_type="accuracy" if is_share(number) else name,
            metric_name=f"{results['protocol']}, {name}",
            metric_value=float(percent(number["value"]) if is_share(number) else f"{number['value']:.3g}"),
        )
        for results, _ in beside_random(evaluations)
        for name, number in headlines(results).items()
    ]


DIAGNOSIS = "diagnose"
"""The protocol whose figures say what features are like, and not how good they are."""
PLACEHOLDERS = {"--data": "DATA", "--validation": "VALIDATION"}
"""Words of a command in place of where somebody's images lay."""


def commands(
    evaluations: Sequence[Results], source: str, given: Mapping[str, Provenance] = MappingProxyType({})
) -> list[str]:
    """The command of each evaluation, which measures it again of the backbone that is loaded by `source`."""
    found = [
        retold(results, "" if part_of(results, given) else source) for results in evaluations if results.get("command")
    ]
    return list(dict.fromkeys(found))


def retold(results: Results, source: str) -> str:
    """A command with DATA for the images' own name, and the backbone's public one, if any, for what was asked about."""
    words = shlex.split(str(results["command"]))
    model = results.get("model") if source else None
    told = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, _ = word.partition("=")
        if equals and option in PLACEHOLDERS:
            told.append(f"{option}={PLACEHOLDERS[option]}")
        else:
            told.append(PLACEHOLDERS.get(before, source if plain_text(word) == model else word))
    return in_code(repeatable(told))


def stands_for(evaluations: Sequence[Results]) -> str:
    """A sentence on what DATA is in the commands, and where the images come from as far as that is known."""
    data = {place(each).removeprefix(KEPT_BESIDE): each.get("data") or {} for each in evaluations}
    found = {name: known_by(about.get("fingerprint")) for name, about in data.items()}
    return "DATA is " + " or ".join(f"{name} ({data.origin})" if data else name for name, data in found.items())
