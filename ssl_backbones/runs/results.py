"""results.json: the numbers that a run or an evaluation found, and what it takes to find them again.

    protocol, model, weights_sha256     what was measured, and of which weights
    architecture                        the name that timm has for the evaluated network
    numbers                             name: {value, low, high, ...}; an accuracy in [0, 1] with its 95% interval
    settings, seed, command             how; the settings of a pretraining run are its recipe.json
    data, validation                    {source, images, fingerprint, fingerprint_by_sizes}; validation is null where
                                        there is none. The second is what 0.1.0.dev0 called the fingerprint.
                                        `whole_fingerprint` is of the source that these are a part of, if they are.
                                        `copies` of validation counts those of its images that are training images
    compute, versions, date             on what

Whatever else a protocol has to tell (a sweep, the classes one by one) stands beside these under names of its own;
"learning_rates" are all that were tried, where several were, and how the best was chosen. A
pretraining run tells its recipe, the fields of it that were altered, and how far it went; its numbers are "rank" and
"std", "retrieval" and, with labels, "knn", each beside the same before training ("knn before"), and "knn gain".
Beside them stand "baselines", the same questions asked of other networks, "trend", the second half of the run, and
"verdict", what they show in words. "learned_from_these_labels" is true where the backbone was trained with the labels
of the images that it was asked about.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ssl_backbones.credentials import change_texts, without_credentials
from ssl_backbones.data import CachedImages, Images
from ssl_backbones.data.copies import copies_among
from ssl_backbones.distributed import world_size
from ssl_backbones.files import UnreadableError, read_object, write_json
from ssl_backbones.invocation import repeatable
from ssl_backbones.metrics import wilson_interval
from ssl_backbones.runs.papers_figures import papers_figures
from ssl_backbones.runs.versions import versions
from ssl_backbones.typed.records import check_results

Number = Mapping[str, Any]
"""A value and, where one is known, the 95% interval around it (low, high); and what else there is to say of it."""

NOT_MEASURED, NOT_FINITE = "not measured", "not finite"
PRETRAINING = "pretraining"
"""The protocol of a run that makes a backbone."""
LEARNED = "learned_from_these_labels"
"""The mark of results about images whose labels the backbone was trained with."""
LEARNED_SAYS = (
    "This backbone was trained with the labels that are asked about here, so its figures say nothing of other images: "
    "keep some out of the training with --hold_out."
)


def write_results(folder: str | Path, results: dict[str, Any]) -> dict[str, Any]:
    """Put results.json in place as a whole with the papers' figures, say these, and return what it holds.

    What opens an address that was named in a command is left out.
    """
    results = change_texts(results)
    figures: dict[str, list[str]] = {}
    for number, figure in papers_figures(results):
        figures.setdefault(number, []).append(str(figure))
        print(f"The paper's {number}, on its own images: {figure}", flush=True)
    if figures:
        results = {**results, "papers": figures}
    write_json(Path(folder) / "results.json", results)
    return results


def results_of(
    *,
    protocol: str,
    model: str,
    weights_sha256: str,
    data: Images,
    numbers: Mapping[str, Number],
    seed: int,
    device: torch.device | str,
    precision: str,
    layout: str | None = None,
    settings: Mapping[str, Any] | None = None,
    validation: Images | None = None,
    sources: tuple[str, str] = ("", ""),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of results.json.

    `sources` are what was given as data and as validation; `more` is what the protocol tells beside its numbers.
    Without `settings`, neither those nor the command are told. ValueError for a number without a value, and for a name
    in `more` that results have already.
    """
    results: dict[str, Any] = {
        "protocol": protocol,
        "model": model,
        "weights_sha256": weights_sha256,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": seed,
        **({} if settings is None else {"command": command(), "settings": dict(settings)}),
        "data": about(data, sources[0]),
        "validation": None if validation is None else about(validation, sources[1]) | shared(validation, data),
        "numbers": checked(numbers),
        "compute": {"device": str(device), "processes": world_size(), "precision": precision}
        | ({} if layout is None else {"layout": layout}),
        "versions": versions(),
    }
    if taken := sorted(set(more or {}) & set(results)):
        raise ValueError(f"results have {taken[0]!r} already; give what a protocol tells beside it another name.")
    return results | dict(more or {})


def checked(numbers: Mapping[str, Number]) -> dict[str, dict[str, Any]]:
    """The numbers as plain objects; ValueError for one without a value."""
    for name, number in numbers.items():
        if "value" not in number:
            raise ValueError(f"the number {name!r} is {dict(number)}, which holds no value.")
    return {name: dict(number) for name, number in numbers.items()}


def about(images: Images, source: str) -> dict[str, Any]:
    """The source, number and fingerprints of images, and how the pixels of a cache were re-encoded, if they were."""
    told: dict[str, Any] = {
        "source": without_credentials(source),  # cards take it from here before anything is written
        "images": len(images),
        "fingerprint": images.fingerprint,
        "fingerprint_by_sizes": images.fingerprint_by_sizes,
    }
    if images.whole_fingerprint != images.fingerprint:
        told["whole_fingerprint"] = images.whole_fingerprint
    if isinstance(images, CachedImages) and images.encoded:
        told["reencoded"] = images.index["content"]
    return told


def shared(validation: Images, data: Images) -> dict[str, int]:
    """The number of validation images that are training images, by their digests; empty where none is."""
    count = len(copies_among(validation, data))
    return {"copies": count} if count else {}


def command() -> str:
    """The words that started this process, as a shell takes them."""
    return repeatable(sys.argv)


def proportion(correct: int, total: int) -> dict[str, float | int]:
    """An accuracy as a number of results.json: with its 95% interval, and the counts that it is made of."""
    interval = wilson_interval(correct, total)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "correct": correct, "of": total}


def read_results(path: Path, way_out: str, refusal: type[Exception] = UnreadableError) -> dict[str, Any]:
    """The results in a file, of today's shape whatever their age; `refusal` with the way out where there are none."""
    return upgraded(read_object(path, way_out, refusal, check=check_results))


def upgraded(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results of today's shape: a pretraining run once wrote {"knn": {"before", "after", "after_95", ...}}."""
    if "numbers" in results:
        return dict(results)
    told = {name: value for name, value in results.items() if name not in ("knn", "std", "rank")}
    numbers: dict[str, Number] = {}
    if knn := results.get("knn"):
        total = knn["queries"]
        for name, value in (("knn before", knn["before"]), ("knn", knn["after"])):
            numbers[name] = proportion(round(value * total), total) | {"value": value, "k": knn["k"]}
        (low, high), (least, most) = knn["after_95"], knn["gain_95"]
        numbers["knn"] = {**numbers["knn"], "low": low, "high": high}
        numbers["knn gain"] = {"value": knn["gain"], "low": least, "high": most, "of": total}
        told |= {"kind": knn["protocol"], "chance": knn["chance"]}
        told |= {"bank": {"images": knn["bank"]}, "queries": {"images": total}}
    for name in ("std", "rank"):
        if name in results:
            numbers[f"{name} before"] = {"value": results[name]["before"]}
            numbers[name] = {"value": results[name]["after"]}
    return {"protocol": PRETRAINING, "validation": None} | told | {"numbers": numbers}


def in_words(number: Number | None) -> str:
    """A number with its interval, where it has one; a share of so many in percent, any other with three digits."""
    if number is None:
        return NOT_MEASURED
    return as_share(number) if "of" in number else spelled(number, ".3g")


def searched_in_words(search: Mapping[str, Any]) -> str:
    """The account of a search of the learning rate, as results have it, in a sentence that tells every rate."""
    rates = [
        f"{tried['lr']:g} ({NOT_FINITE if tried['value'] is None else in_words(tried)}"
        f"{', the best' if tried['lr'] == search['chosen'] else ''})"
        for tried in search["tried"]
    ]
    return f"Learning rates by {search['by']} on {search['chosen_on']}: {', '.join(rates)}."


def as_share(number: Number) -> str:
    """A share in [0, 1] with its interval: 57.8 % [52.5, 62.9]."""
    return spelled(number, ".1f", 100, " %")


def as_points(number: Number) -> str:
    """A difference of two shares with its interval: +21.1 points [+15.7, +26.3]."""
    return spelled(number, "+.1f", 100, " points")


def spelled(number: Number, form: str, scale: float = 1, unit: str = "") -> str:
    """A number in a format of Python's, and behind its unit the ends of its interval, where it has them."""
    ends = [f"{scale * number[end]:{form}}" for end in ("low", "high") if number.get(end) is not None]
    return f"{scale * number['value']:{form}}{unit}" + (f" [{', '.join(ends)}]" if len(ends) == 2 else "")


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f}"
