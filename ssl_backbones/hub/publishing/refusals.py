"""Sentences for publishing that failed: what failed, the reason, what state things are in, and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub import errors as hub

from ssl_backbones.refusal import Refusal, reason


class PublishError(Refusal, RuntimeError):
    """Something that was not published, or not verified; the message says what is to be done."""


STATUS = {
    400: "the Hub finds fault with what was sent; read what it says of it here, mend the card's fields, and try again",
    401: "the Hub does not know the access token; log in with `hf auth login`, or set HF_TOKEN to one that may write",
    402: "the Hub asks for a paid plan; publish under another name with --repo",
    403: "the access token may not do that; take one with the right to write there, or publish under another name with "
    "--repo",
    404: "there is no such place, or the token may not see it; check --repo and HF_ENDPOINT",
    409: "somebody else changed it meanwhile; look at its page, and run the same command again",
    412: "somebody else changed it meanwhile; look at its page, and run the same command again",
    413: "the files are too large for it; leave --with_state out",
    429: "the Hub was asked too often; wait some minutes and run the same command again",
}
GATED = "the repository is gated, and the token's owner has not accepted its terms; accept them on its page"
FAILED = "the Hub failed; run the same command again later, or name another with HF_ENDPOINT"
UNREACHABLE = (
    "the Hub could not be reached, or the connection was cut; check the network and HF_ENDPOINT, and run the same "
    "command again"
)
NAME = "that is no name of a repository; write it as --repo org/name, of letters, digits, - _ and ."
TAG = "that is no name of a tag; write it as --tag v1.0, of up to 100 letters, digits, - _ + and ."
STRANGE = "the answer was not that of a Hub; check HF_ENDPOINT, and run the same command again"


def is_tag(name: str) -> bool:
    """True for a name that git takes for a tag, and that leads to no other branch, commit or folder."""
    plain = re.fullmatch(r"\w[\w.+-]{0,99}", name, re.ASCII) is not None
    commit = re.fullmatch(r"[0-9a-f]{7,64}", name) is not None
    taken = name in ("main", "HEAD") or ".." in name or name.endswith((".", ".lock"))
    return plain and not commit and not taken


@contextmanager
def explaining(doing: str, left: str) -> Iterator[None]:
    """Turn what the Hub or the network raises into one PublishError; `left` is what state things are in then."""
    try:
        yield
    except PublishError:
        raise
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise PublishError(f"{doing} at {constants.ENDPOINT} failed, and {left}: {reason}") from error


def reason_of(error: BaseException | None) -> str | None:
    """The reason, from the first error of the chain that tells one; None where it is not the Hub's affair."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if (reason := reason_of_one(error)) is not None:
            return reason
        error = error.__cause__ or error.__context__
    return f"{STRANGE} ({detail(seen[0])})" if isinstance(seen[0], ValueError | KeyError | RuntimeError) else None


def reason_of_one(error: BaseException) -> str | None:
    """The reason that an error of the Hub's client tells."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.GatedRepoError):
        return f"{GATED} (HTTP {status})"
    if isinstance(error, hub.HfHubHTTPError) and status:
        said = f": {detail(error)}" if status == 400 else ""
        return f"{STATUS.get(status, FAILED)} (HTTP {status}{said})"
    if isinstance(error, hub.HFValidationError):
        return NAME
    if isinstance(error, hub.OfflineModeIsEnabled | ConnectionError | TimeoutError):
        return UNREACHABLE
    if type(error).__module__.startswith(("httpx", "httpcore", "requests")):
        return UNREACHABLE
    if type(error).__module__.startswith("hf_xet") or "xet" in str(error).lower():
        return f"{FAILED}, or set HF_HUB_DISABLE_XET=1 to send the files the older way ({detail(error)})"
    return None


def detail(error: BaseException) -> str:
    """The message of an error in one line, without the token."""
    text, token = reason(error), get_token()
    return (text.replace(token, "(the token)") if token else text)[:200]
