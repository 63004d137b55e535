"""Credentials in texts: access tokens, and what of an address opens it. Neither is told, recorded or sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{16,}")
"""Pattern of the Hub's access tokens."""
TOKENS = [re.compile(start + rb"[A-Za-z0-9]{16}") for start in (b"hf_", b"api_org_")]
"""The same in bytes, each with a beginning that many megabytes of weights are searched for at once."""
ESCAPED = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
"""An ASCII letter as JSON may write it."""
ADDRESS = re.compile(r"""(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]*://[^\s'"<>`]*[^\s'"<>`.,;:!)\]}]""")
SECRET = re.compile(
    r"(^|[-_.])(token|signature|sig|secret|password|passwd|pass|pwd|auth\w*|credentials?|jwt|session)($|[-_.])"
    r"|token|signature|password|secret|api.?key|access.?key|security|credential|policy",
    re.I,
)
"""Names in an address whose values open it."""
USER = re.compile(r"\A(?:[^/?#]*@|(?!\[)[^/?#@]*:(?!\d*([/?#]|$)).*@)")
"""User and password in front of a host; a password may hold what it should not."""
OPAQUE = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w+=%~-]{20,}|eyJ.*", re.A)
"""Values that may do so, whatever their name."""


def holds_token(content: bytes) -> bool:
    """True for content with what looks like somebody's access token, however its JSON is escaped."""
    plain = ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), content)
    found = ((form, at.start()) for form in (content, plain) for token in TOKENS for at in token.finditer(form))
    return any(not form[max(start - 1, 0) : start].isalnum() for form, start in found)


def without_credentials(text: str) -> str:
    """The text with every access token cut out, and every address without user, password, signature and tokens."""
    return TOKEN.sub("hf_...", ADDRESS.sub(lambda found: public(found[0]), text))


def change_texts(value: Any, change: Callable[[str], str] = without_credentials) -> Any:
    """A JSON value in which every text is changed; by default, without credentials."""
    if isinstance(value, dict):
        return {key: change_texts(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [change_texts(part, change) for part in value]
    return change(value) if isinstance(value, str) else value


def public(address: str) -> str:
    """An address as anybody may see it; two that lead to other files stay different.

    The values in its query that open it are left out, and those that may do so have a digest in their place.
    """
    scheme, _, rest = address.partition("://")
    place, mark, query = USER.sub("", rest).partition("#")[0].partition("?")
    return f"{scheme}://{place}{mark}{'&'.join(map(shown, query.split('&')))}"


def shown(pair: str) -> str:
    """A value of a query with its name, or what may be seen of it."""
    name, equals, value = pair.partition("=")
    if not equals:
        return opaque(pair)
    return f"{name}=..." if value and SECRET.search(name) else f"{name}={opaque(value)}"


def opaque(value: str) -> str:
    """The value, or a digest of one that could be a secret."""
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:8]}" if OPAQUE.fullmatch(value) else value
