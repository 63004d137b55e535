"""The networks that a run was given, its start or a teacher: what its card tells of them, and the terms that bind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ssl_backbones.models.provenance import Provenance
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.licences import (
    HUB_LICENCES,
    LISTED,
    UNKNOWN,
    fits,
    fits_all,
    marked,
    most_binding,
    on_the_hub,
    slug,
)
from ssl_backbones.registry.names import HUB
from ssl_backbones.registry.tags import LICENCE
from ssl_backbones.typed.values import from_plain

PARTS = {"start": "It began with the weights of", "teacher": "It learnt from the features of"}
"""The entries of results.json that hold a provenance, and the beginnings of the sentences on them."""
REPOSITORY = re.compile(r"(?!(?:blog|collections|datasets|docs|papers|spaces)/)\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""Pattern of a model's repository on the Hub."""


class GivenError(Refusal, ValueError):
    """A licence that a given network does not allow, or a record of one that cannot be read."""


@dataclass(frozen=True)
class Terms:
    """Licence and terms as a person states them; images known by their fingerprint need no statement."""

    licence: str | None = None
    """Licence of the weights, as the Hub abbreviates it; None for this package's, or that of the initial weights or
    teacher."""
    licence_link: str | None = None
    """The address of its text, where the Hub does not list it."""
    images: str | None = None
    """The name of the images."""
    images_terms: str | None = None
    """The terms of their owners."""
    dataset: str | None = None
    """Their id on the Hub, if they have one."""

    def __str__(self) -> str:
        return marked(self.licence, f"[{self.licence}]({self.licence_link})" if self.licence_link else None)

    @property
    def on_the_hub(self) -> dict[str, Any]:
        """The fields of a card that say the licence; one that is not listed goes by its name if no link is known."""
        licence = self.licence or LICENCE
        if self.licence_link or licence in LISTED:
            return on_the_hub(licence, self.licence_link)
        return {"license": "other", "license_name": slug(licence)}


UNLICENSED = Terms("none, as no licence fits all that they were made of")
"""The terms of the draft of a run that cannot be published: its results are kept all the same."""


def givens(results: Mapping[str, Any]) -> dict[str, Provenance]:
    """The networks that a run was given, by their part in it; GivenError where a record of one cannot be read."""
    found = {part: results[part] for part in PARTS if results.get(part) is not None}
    try:
        return {part: from_plain(Provenance, plain, part) for part, plain in found.items()}
    except ValueError as error:
        raise GivenError(f"results.json does not tell what the run was given ({error}): restore it") from error


def bound_to(given: Mapping[str, Provenance]) -> str | None:
    """The licence that binds what is made of the given networks; None where its maker may choose, or none fits all.

    It is "unknown" where that of any network behind them is.
    """
    if clash(given):
        return None
    return UNKNOWN if unlicensed(given) else most_binding(licences(given))


def licences(given: Mapping[str, Provenance]) -> list[str]:
    """The licences that bind what is made of the given networks, as far as they are known."""
    return [licence for each in given.values() for licence in each.bound]


def unlicensed(given: Mapping[str, Provenance]) -> str:
    """The given networks, and those behind them, whose licence is not known, by name; empty where there are none."""
    return " and ".join(dict.fromkeys(name for each in given.values() for name in each.unlicensed))


def unsettled(given: Mapping[str, Provenance]) -> str:
    """The reasons why the licence of what is made of the given networks is not settled; empty where it is."""
    names, bound = unlicensed(given), " and ".join(dict.fromkeys(licences(given)))
    beside = f", beside {bound}, which binds what is made of it," if bound else ","
    unknown = f"the licence of {names} is not known{beside} and whoever publishes what is made of it has to settle that"
    return "; ".join(filter(None, (clash(given), names and unknown)))


def clash(given: Mapping[str, Provenance]) -> str:
    """The reason why what is made of the given networks cannot be published: no licence fits all; empty if one does."""
    found = licences(given)
    if fits_all(most_binding(found), found):
        return ""
    bound = {part: f"{each.shown} ({' and '.join(each.bound)})" for part, each in given.items() if each.bound}
    return (
        f"no licence is known that fits what is made of {' and '.join(bound.values())}, so it can be used and not "
        f"published: for weights that can be, take another {' or another '.join(bound)}"
    )


def settled(terms: Terms, given: Mapping[str, Provenance]) -> Terms:
    """The terms with the licence that the given networks bind to; GivenError for another, or where none fits all.

    Where that of any is not known and none is stated, it is "unknown".
    """
    if barred := clash(given):
        raise GivenError(barred)
    licence = terms.licence or bound_to(given) or LICENCE
    bound = [(each.shown, required) for each in given.values() for required in each.bound if terms.licence]
    misfit = next((f"{name}, {required}" for name, required in bound if not fits(licence, required)), None)
    if misfit:
        raise GivenError(
            f"the licence {licence} is not that of {misfit}, which binds what is made of it: leave --licence out to "
            "take that one"
        )
    if terms.licence is None and licence not in HUB_LICENCES:
        sources = (each.source or "" for each in given.values() if each.licence == licence)
        link = next((source for source in sources if re.fullmatch(r"https://\S+", source)), None)
        terms = replace(terms, licence_link=terms.licence_link or link)
    return replace(terms, licence=licence)


def sentences(given: Mapping[str, Provenance]) -> list[str]:
    """A sentence on each network that was given."""
    return [f"{PARTS[part]} {each}." for part, each in given.items()]


def with_labels(given: Mapping[str, Provenance]) -> str:
    """Words on the labels behind the given networks, after those on the method; empty where there were surely none."""
    told = {"classes": "trained with labels", "captions": "trained with captions"}
    words = [
        f"{'from weights' if part == 'start' else 'towards features of a network'} "
        f"{told.get(each.labels, 'of which it is not recorded whether labels made them')}"
        for part, each in given.items()
        if each.labels != "none"
    ]
    return f", {' and '.join(words)}" if words else ""


def base_model(given: Mapping[str, Provenance]) -> str | None:
    """The Hub's repository of the start, if it lies there: ORG/NAME and no more, or the Hub would refuse the card."""
    start = given.get("start")
    if start is None:
        return None
    source, pages = start.source or "", "https://huggingface.co/"
    page = source.removeprefix(pages) if source.startswith(pages) else ""
    named = start.name.partition(":")[2].partition("@")[0] if start.name.startswith(HUB) else ""
    return next((each for each in (start.repository, named, page) if REPOSITORY.fullmatch(each or "")), None)


def terms_of(given: Mapping[str, Provenance], stated: str | None = None) -> list[str]:
    """A sentence on the licence of each given network and the terms of the images behind it, and on what is open.

    `stated` is the licence that whoever publishes has given what was made of them.
    """
    told = [
        f"Of the {part}, {each.shown}: {each.terms}; of its images ({each.images or 'not recorded'}): "
        f"{each.images_terms or 'not stated'}."
        for part, each in given.items()
    ]
    names = unlicensed(given)
    if stated and names:
        return [*told, f"The licence of {names} was not known; whoever published these weights states {stated}."]
    return [*told, f"Not settled: {unsettled(given)}."] if unsettled(given) else told
