"""The licences that the Hub knows, and how one that it does not know is written.

The list is that of its documentation, docs/hub/repositories-licenses.md of https://github.com/huggingface/hub-docs at
242f4a1 (2026-08-22). A card whose `license` is none of these is refused when it is sent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

HUB_LICENCES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
    """.split()  # noqa: SIM905
)
LISTED = HUB_LICENCES - {"other"}
"""Those that name a licence; `other` stands for any that the Hub does not list."""
UNKNOWN = "unknown"
"""The Hub's word for a licence that is not known, which binds nobody and frees nobody."""


PERMISSIVE = frozenset(
    """
    apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc0-1.0 isc ncsa pddl unlicense wtfpl zlib
    """.split()  # noqa: SIM905
)
"""Licences that leave whoever makes something new of the weights free to choose its licence."""


def is_non_commercial(licence: str | None) -> bool:
    """True for a licence that forbids commercial use, as far as its name tells."""
    return re.search(r"-nc(-|$)|non-?commercial|research|^apple-amlr$", slug(licence or "")) is not None


def marked(licence: str | None, shown: str | None = None) -> str:
    """A licence by its name, or by what is `shown` for it, marked where it forbids commercial use."""
    named = shown or licence or "not stated"
    return f"{named}, NON-COMMERCIAL" if is_non_commercial(licence) else named


def binds(licence: str | None) -> bool:
    """True for a licence that what is made of the weights has to be given too, unless its text says otherwise."""
    return licence is not None and slug(licence) not in PERMISSIVE


def fits(licence: str, required: str) -> bool:
    """True if what is made of weights may have a licence: the one that they require, or another non-commercial one.

    CC BY goes along with any CC licence that asks for attribution too. Where it is only recorded that the Hub does not
    list the required one, "other", any that the Hub does not list fits.
    """
    stated, own = slug(licence), slug(required)
    unnamed = own == "other" and stated not in HUB_LICENCES
    attributed = bool(re.fullmatch(r"cc-by-\d\.\d", own)) and stated.startswith("cc-by-")
    return stated == own or unnamed or attributed or (is_non_commercial(required) and is_non_commercial(licence))


def most_binding(licences: Iterable[str]) -> str | None:
    """The licence that what is made of networks under these has to be given; None where none binds.

    It fits all of them if one does, and else it is a non-commercial one if there is one.
    """
    bound = [*filter(binds, licences)]
    return min(bound, key=lambda each: (not fits_all(each, bound), not is_non_commercial(each)), default=None)


def fits_all(licence: str | None, licences: Iterable[str]) -> bool:
    """True if what is made of networks under these licences may have the given one."""
    return all(fits(licence or "", each) for each in licences if binds(each))


def on_the_hub(licence: str, link: str | None = None) -> dict[str, Any]:
    """The fields of a card that say a licence: its own name, or `other` with the name and a link to its text.

    ValueError for a name that the Hub does not list without a link, and for a link beside one that it lists.
    """
    if link and (slug(licence) in HUB_LICENCES | {""} or not re.match(r"https?://\S+$", link)):
        raise ValueError(
            f"licence_link is {link!r} of the licence {licence!r}, but must be the address of the text of one that "
            "the Hub does not list, named by --licence."
        )
    if link:
        return {"license": "other", "license_name": slug(licence), "license_link": link}
    if licence not in LISTED:
        near = nearest(licence)
        raise ValueError(
            f"licence is {licence!r}, but must be one that the Hub lists{'; the nearest: ' * bool(near)}"
            f"{', '.join(near)}; for any other give --licence_link too, the address of its text."
        )
    return {"license": licence}


def nearest(licence: str) -> list[str]:
    """The listed licences that are most like a name, of the same family if there is one."""
    short = re.sub("-licen[cs]e$", "", slug(licence))
    listed = sorted(LISTED)
    family = [name for name in listed if name.partition("-")[0] == short.partition("-")[0]]
    return difflib.get_close_matches(short, family or listed, n=3, cutoff=0.0 if family else 0.5)


def recorded(licence: object) -> str | None:
    """A licence as a description or a record states it, by the Hub's name if it lists that one; None for "unknown"."""
    name = slug(str(licence or ""))
    return None if name in {"", UNKNOWN} else name if name in HUB_LICENCES else str(licence)


def slug(licence: str) -> str:
    """A licence's name as the Hub writes names: "CC BY-NC 4.0" is cc-by-nc-4.0."""
    return re.sub(r"[^a-z0-9.+]+", "-", licence.lower()).strip("-")
