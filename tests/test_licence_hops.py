"""Licences and terms of images over several runs: each that binds goes along, and each that is not known stays so."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import timm
import yaml
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from runs import image_folder, run, stop, tiny
from small_methods import leave_teacher
from test_given import START, results_with

from ssl_backbones import __main__, create_model, describe
from ssl_backbones.catalogue.start import open_start
from ssl_backbones.commands.publish import check_known
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.given import GivenError, Terms, bound_to, clash, givens, settled, unsettled
from ssl_backbones.hub.publishing.material import MaterialError
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.models.provenance import Provenance, provenance_of
from ssl_backbones.registry.licences import binds, fits_all
from ssl_backbones.typed.values import to_plain

LICENCES = (
    None,
    "unknown",
    "mit",
    "apache-2.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "gpl-3.0",
    "dinov3-license",
    "other",
)
GIVEN = st.tuples(st.sampled_from(LICENCES), st.sampled_from([None, "CC0", "non-commercial research"]))
HOPS = st.tuples(st.booleans(), st.none() | GIVEN, st.sampled_from(["run", "backbone alone", "published"]))
NETWORK: Any = create_model("resnet8_byol", num_classes=0)
RECIPE = {"name": "mine", "model": "resnet8_byol", "size": 32, "data": "photos"}


@dataclass
class Chain:
    """All that went into a network, over the runs before it."""

    place: str | Path
    network: Provenance
    bound: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    terms: set[str] = field(default_factory=set)

    def add(self, other: Provenance) -> None:
        self.bound |= {other.licence} if other.licence and binds(other.licence) else set()
        self.unknown |= set() if other.licence else {other.shown}
        self.terms |= {other.images_terms} if other.images_terms else set()


def others(name: str, licence: str | None, terms: str | None) -> Provenance:
    """Weights of somebody else's."""
    return replace(START, name=name, licence=licence, images_terms=terms, source="https://example.org/a")


def opened(place: Path, licence: str | None) -> Provenance:
    """The weights in a folder, as the next run finds them."""
    NETWORK.pretrained_cfg = {"architecture": "resnet8", "license": licence}
    return provenance_of(place, NETWORK)


def leave(place: Path, given: dict[str, Provenance]) -> dict[str, Any]:
    """The records of a run that was given these networks."""
    results = results_with() | {"start": None, "protocol": "pretraining", "model": "resnet8_byol"}
    results |= {part: to_plain(each) for part, each in given.items()}
    results = json.loads(json.dumps({name: value for name, value in results.items() if value is not None}))
    place.mkdir()
    (place / "recipe.json").write_text(json.dumps(RECIPE))
    (place / "results.json").write_text(json.dumps(results))
    return results


def check_card(chain: Chain, results: dict[str, Any]) -> None:
    """Hold the draft of a run, and what may be published of it, to all that went into it."""
    given, card = givens(results), model_card(RECIPE, results, {})
    limits, front = card.partition("## Licence")[2], yaml.safe_load(card.split("---")[1])
    for told in chain.bound | chain.unknown | chain.terms:
        assert told in limits
    assert ("and whoever publishes what is made of it" in limits) == bool(chain.unknown)
    if clash(given):
        assert not any(fits_all(licence, chain.bound) for licence in chain.bound)
        assert front["license_name"].startswith("none-")
        with pytest.raises(GivenError, match="no licence is known that fits"):
            settled(Terms("mit"), given)
        return
    if chain.unknown:
        assert front["license"] == bound_to(given) == "unknown"
        with pytest.raises(MaterialError, match="state the licence of these weights with --licence"):
            check_known(given, None)
    elif chain.bound:
        assert fits_all(settled(Terms(), given).licence, chain.bound)
    else:
        assert front["license"] == "apache-2.0"
    if chain.bound:
        with pytest.raises(GivenError, match="binds what is made of it"):
            settled(Terms("mit"), given)


def handed_on(chain: Chain, place: Path, given: dict[str, Provenance], how: str) -> Provenance:
    """The backbone of a run, as the next one takes it."""
    licence = bound_to(given)
    if how == "backbone alone":
        bare = opened(place / "elsewhere", licence)
        assert bare.licence is None or (not chain.unknown and fits_all(bare.licence, chain.bound))
        chain.bound, chain.unknown, chain.terms = set(), set(), set()
        chain.add(bare)
        return bare
    if how == "published" and not clash(given):
        stated = next(iter(sorted(each for each in chain.bound if fits_all(each, chain.bound))), "mit")
        check_known(given, stated)
        licence = settled(Terms(stated), given).licence
        chain.bound |= {licence} if binds(licence) else set()
    return opened(place, licence)


@drawn(GIVEN, st.lists(HOPS, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_whatever_the_licences_of_a_chain_none_is_lost_and_none_that_is_not_known_becomes_known(
    first: tuple[str | None, str | None], hops: list[tuple[bool, tuple[str | None, str | None] | None, str]]
) -> None:
    chain = Chain("first", others("first", *first))
    chain.add(chain.network)
    with TemporaryDirectory() as folder:
        for number, (teaches, beside, how) in enumerate(hops):
            parts = ("teacher", "start") if teaches else ("start", "teacher")
            given = {parts[0]: chain.network}
            if beside:
                given[parts[1]] = others(f"theirs-{number}", *beside)
                chain.add(given[parts[1]])
            place = Path(folder) / f"run-{number}"
            check_card(chain, leave(place, given))
            chain.network = found = handed_on(chain, place, given, how)
            assert set(found.bound) == chain.bound
            assert set(found.unlicensed) == chain.unknown
            assert all(terms in str(found.images_terms) for terms in chain.terms)


def test_images_of_which_no_terms_are_recorded_are_not_passed_over(tmp_path: Path) -> None:
    leave(tmp_path / "run", {"start": others("a", "mit", None), "teacher": others("b", "mit", "CC0")})
    assert opened(tmp_path / "run", None).images_terms == "not recorded, and before that CC0"


def test_beside_a_licence_that_is_not_known_one_that_binds_is_told(tmp_path: Path) -> None:
    leave(tmp_path / "run", {"start": others("a", None, "CC0"), "teacher": others("b", "cc-by-nc-4.0", "CC0")})
    found = opened(tmp_path / "run", None)
    assert "the licence of a is not known, beside cc-by-nc-4.0, which binds what is made of it," in unsettled(
        {"start": found}
    )


def test_a_run_from_weights_of_unknown_licence_tells_it_in_all_that_it_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At its start, unfinished and finished, to the next run, and when it is published."""
    start = leave_teacher(tmp_path / "theirs", license="unknown")
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "photos", 9), tmp_path / "run", init=start, epochs=1)
    told = "the licence of theirs is not known, and whoever publishes what is made of it has to settle that"
    stop(recipe, 1)
    assert f"warning: {told}." in capsys.readouterr().out
    assert __main__.main(["convert", recipe.out, "--out", str(tmp_path / "unfinished")]) == 0
    run(recipe)
    for folder in (tmp_path / "unfinished", tmp_path / "run" / "backbone"):
        cfg = timm.create_model(f"local-dir:{folder}", pretrained=True).pretrained_cfg
        assert cfg["license"] == "unknown"
        assert told in cfg["description"]
        assert told in str(describe(folder))
    assert open_start(str(tmp_path / "run"), "resnet8").provenance.unlicensed == ["theirs"]
    assert open_start(str(tmp_path / "unfinished"), "resnet8").provenance.unlicensed == ["unfinished"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "license: unknown" in card
    assert f"Not settled: {told}." in card
    words = ["publish", recipe.out, "--data_terms", "CC0", "--out", str(tmp_path / "published")]
    assert __main__.main(words) == 2
    assert "the licence of theirs, of which the weights were made, is not known" in capsys.readouterr().err
    assert __main__.main([*words, "--licence", "mit"]) == 0
    published = (tmp_path / "published" / "README.md").read_text()
    assert "The licence of theirs was not known; whoever published these weights states mit." in published
    assert "Not settled" not in published
    next_start = open_start(str(tmp_path / "published"), "resnet8").provenance
    assert (next_start.licence, next_start.unlicensed) == ("mit", ["theirs"])
    assert "licence: mit (and behind it that of theirs, which is not known)" in str(next_start)
