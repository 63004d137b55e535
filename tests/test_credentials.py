"""Access tokens and what opens an address are cut out of every text, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.credentials import TOKEN, holds_token, without_credentials
from ssl_backbones.files import UnreadableError
from ssl_backbones.refusal import Refusal

TOKENS = ("hf_ThisIsNoTokenThatAnybodyHas0000", "api_org_ThisIsNoTokenThatAnybodyHas0000")

CUT = {
    "https://me:secret@here:8/a/b.pth": "https://here:8/a/b.pth",
    "https://secret@here/a#secret": "https://here/a",
    "s3://key:secret@bucket/a": "s3://bucket/a",
    "http://me:sec/ret@here/a": "http://here/a",
    "http://me:sec?ret@here/a": "http://here/a",
    "http://me:sec#ret@here/a": "http://here/a",
    "http://me:sec@ret@here/a": "http://here/a",
    "https://here/a?X-Amz-Expires=9&X-Amz-Signature=secret": "https://here/a?X-Amz-Expires=9&X-Amz-Signature=...",
    "https://here/a?Policy=secret&Signature=secret&Key-Pair-Id=K": "https://here/a?Policy=...&Signature=...&Key-Pair-Id=K",
    "https://here/a?sv=2&sig=secret": "https://here/a?sv=2&sig=...",
    "https://here/a?access_token=secret&apikey=secret&password=secret": (
        "https://here/a?access_token=...&apikey=...&password=..."
    ),
}
KEPT = (
    "https://here:8/a@b/c.pth?id=3&export=download&revision=main",
    "http://[::1]:8/a@b:c",
    "https://arxiv.org/abs/2003.04297",
    "hf-hub:org/name",
    "resnet50_swav.in1k_800ep of C:\\photos, a@b.c, http:// and half_ThisIsNoTokenThatAnybody",
    "",
)


@pytest.mark.parametrize("address", CUT)
@pytest.mark.parametrize("around", ["{}", "could not fetch {}: the server answered 404", "('{}', \"{}\") <{}>, {}."])
def test_what_opens_an_address_is_cut_out_of_any_text(address: str, around: str) -> None:
    said = around.replace("{}", address)
    assert without_credentials(said) == around.replace("{}", CUT[address])
    assert without_credentials(without_credentials(said)) == without_credentials(said)


@pytest.mark.parametrize("text", KEPT)
def test_what_opens_nothing_stays(text: str) -> None:
    assert without_credentials(text) == text


def test_values_that_may_be_secrets_are_told_apart_and_not_told() -> None:
    one, other = (without_credentials(f"https://here/a?id={letter}0bCdEfGhIjKlMnOpQrStUvWxYz") for letter in "ab")
    assert one != other
    assert "bCdEf" not in one


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    assert without_credentials(without_credentials(text)) == without_credentials(text)


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_found_and_cut_out(token: str) -> None:
    for content in (token, json.dumps({"a": [token]}), token.replace("h", "\\u0068").replace("a", "\\u0061")):
        assert holds_token(content.encode())
        assert holds_token(b"\x00\xff=" + content.encode() + b"\xff")
    assert token not in without_credentials(f"HF_TOKEN={token}")
    assert not holds_token(b"half_ThisIsNoTokenThatAnybodyHas0000 hf_short shf_ThisIsNoTokenThatAnybodyHas0000")


@given(st.lists(st.sampled_from(["hf", "api_org", "_", "a", "0" * 15, "b" * 16, " ", "\xe9", "\0"]), max_size=9))
def test_bytes_hold_a_token_where_a_text_does(parts: list[str]) -> None:
    text = "".join(parts)
    assert holds_token(text.encode("latin-1")) == bool(TOKEN.search(text))


def test_no_refusal_tells_any() -> None:
    for kind in (UnreadableError, Refusal):
        assert str(kind(f"{TOKENS[0]} at https://me:secret@here/a: no")) == "hf_... at https://here/a: no"
