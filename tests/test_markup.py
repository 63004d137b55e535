"""Names by others show as they are in a card and a table: they make no HTML, link, code or line of their own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_cards import CARDS, RESULTS

from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.markup import cell, in_code, plain_text, plain_texts

MARKUP = "<img src=x onerror=alert(1)> [here](javascript:x) ![x](http://y) `code`\n# head\n| a |\n```\n</pre>"


@pytest.mark.parametrize("text", [MARKUP, "<script>", "[a]: http://x", "a\u2028b", "\ud800", "\udce9t\udce9", "\0"])
def test_a_text_makes_nothing(text: str) -> None:
    plain = plain_text(text)
    assert not re.search(r"(?<!\\)[<\[]|`|[\n\r\u2028\x00-\x1f]", plain)
    plain.encode()
    assert not re.search(r"(?<!\\)\|", cell(plain_text(text)))


@pytest.mark.parametrize("mark", ["<img src=x>", "[here](http://x)", "|"])
def test_nothing_takes_the_meaning_of_what_takes_a_meaning(mark: str) -> None:
    """Before the mark stands an odd number of backslashes, whatever the text had."""
    for count in range(4):
        made = cell(plain_text("\\" * count + mark))
        before = re.match(r"\\*", made)
        assert before is not None
        assert len(before[0]) % 2 == 1


@given(st.text(st.characters(exclude_characters="<[`\\", exclude_categories=("C", "Z"))))
def test_other_texts_stay(text: str) -> None:
    assert plain_text(text) == text


def test_commands_end_no_block() -> None:
    found = plain_texts({"command": "a '<b>' `x`\n```\n", "<b>": ["[x]"]})
    assert found == {"command": "a '<b>' `x` ``` ", "\\<b>": ["\\[x]"]}
    assert "```" not in in_code("``````")


def marked(value: Any) -> Any:
    """A JSON value with markup in every text but that on labels, of which a card takes none that no run writes."""
    if isinstance(value, dict):
        return {name: part if name == "labels" else marked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [marked(part) for part in value]
    return value + MARKUP if isinstance(value, str) else value


def with_names(results: dict[str, Any]) -> dict[str, Any]:
    """Results whose numbers have markup in their names."""
    return results | {"numbers": {name + MARKUP: number for name, number in results["numbers"].items()}}


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_no_markup_in_any_record_makes_anything_of_a_card(card: Any) -> None:
    folder = RESULTS / card.stem
    recipe, results, config = (
        json.loads((folder / f"{what}.json").read_bytes()) for what in ("recipe", "results", "config")
    )
    found = [with_names(marked(json.loads(path.read_bytes()))) for path in (folder / "evaluations").glob("*.json")]
    assert found
    text = model_card(marked(recipe), marked(results), marked(config), source="org/name", evaluations=found)
    _, _, body = text.partition("\n---\n")
    assert body.count("```") % 2 == 0
    prose = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    assert "onerror" in prose
    assert not re.search(r"(?<!\\)<|(?<!\\)\[here|(?<!\\)\[x|^# head|^\| a \|", prose, re.MULTILINE)
