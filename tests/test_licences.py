"""A licence that the Hub would refuse is refused before anything is read, with the nearest that it knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import ssl_backbones
from ssl_backbones import __main__
from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.given import Terms
from ssl_backbones.registry.licences import HUB_LICENCES, marked, on_the_hub
from ssl_backbones.registry.tags import TAGS

LINK = "https://example.org/terms"
REFUSED = {
    "gpl-2.0-or-later": "gpl-2.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "GPL v2 or later": "gpl-2.0",
    "CC0": "cc0-1.0",
    "Apache-2.0": "apache-2.0",
    "MIT License": "mit",
    "cc-by-nc-5.0": "cc-by-nc-4.0",
    "other": "",
    "": "",
}
"""Names that are not the Hub's, and one that must be among the nearest."""


def front_of(card: str) -> dict[str, str]:
    return yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize(
    ("licence", "link", "told"),
    [
        ("mit", None, "mit"),
        ("cc-by-nc-4.0", None, "cc-by-nc-4.0, NON-COMMERCIAL"),
        ("research only", LINK, f"[research only]({LINK}), NON-COMMERCIAL"),
        (None, None, "not stated"),
    ],
)
def test_a_licence_is_marked_where_it_forbids_commercial_use(licence: str | None, link: str | None, told: str) -> None:
    assert marked(licence, link and f"[{licence}]({link})") == str(Terms(licence, link)) == told


def test_the_list_is_the_hubs():
    assert len(HUB_LICENCES) == 83
    assert all(name == name.lower() for name in HUB_LICENCES)


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.name)
def test_every_licence_in_the_registry_is_one_of_the_hubs(tag: ssl_backbones.registry.tags.Tag):
    assert on_the_hub(tag.licence) == {"license": tag.licence}


@pytest.mark.parametrize("name", sorted(HUB_LICENCES - {"other"}))
def test_a_listed_licence_is_written_by_its_name_and_takes_no_link(name: str):
    assert on_the_hub(name) == {"license": name}
    with pytest.raises(ValueError, match="does not list"):
        on_the_hub(name, LINK)


@pytest.mark.parametrize("command", ["publish", "convert"])
@pytest.mark.parametrize("name", REFUSED)
def test_any_other_is_refused_with_the_nearest(name: str, command: str, tmp_path: Path, capsys):
    words = {"publish": ["--repo", "org/name", "--dry_run"], "convert": ["--out", str(tmp_path / "out")]}[command]
    assert __main__.main([command, str(tmp_path / "nothing"), *words, "--licence", name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert repr(name) in said
    assert REFUSED[name] in said.partition("the nearest: ")[2].replace(";", ",").split(", ") or not REFUSED[name]
    assert "--licence_link" in said


@pytest.mark.parametrize("name", ["CC BY-NC 4.0", "Apache-2.0", "other", "Other", "", " - "])
def test_a_listed_licence_in_other_letters_is_not_made_another_by_a_link(name: str):
    with pytest.raises(ValueError, match="does not list"):
        on_the_hub(name, LINK)


@pytest.mark.parametrize("link", ["example.org/terms", "ftp://example.org", "LICENSE", "https://example.org/a b"])
def test_a_link_must_be_an_address(link: str):
    with pytest.raises(ValueError, match="address of the text"):
        on_the_hub("Our Terms", link)


def test_a_licence_with_a_link_is_other_by_its_name():
    recipe = {"name": "mine", "model": "resnet8_byol", "size": 32, "data": "images"}
    card = model_card(recipe, {}, {}, name="x", source="hf-hub:o/x", terms=Terms("Our Terms 1.0", LINK))
    told = {field: value for field, value in front_of(card).items() if field.startswith("license")}
    assert told == {"license": "other", "license_name": "our-terms-1.0", "license_link": LINK}
    assert f"Of the weights: [Our Terms 1.0]({LINK})." in card
    assert front_of(model_card(recipe, {}, {}, name="x", source="hf-hub:o/x", terms=Terms("mit")))["license"] == "mit"
