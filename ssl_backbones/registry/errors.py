"""Errors of names that mean nothing, and of weights that cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError

from huggingface_hub import errors as hub
from safetensors import SafetensorError

from ssl_backbones.refusal import Refusal, reason


class UnknownModelError(Refusal, ValueError):
    """No model is called that; the message offers names that are near."""


class PretrainedWeightsError(Refusal, RuntimeError):
    """The weights asked for could not be had; the message says why, and which other ways there are."""

    fault: str = ""
    """The message without its ways out, where these are those of a call in Python."""

    @classmethod
    def unpublished(cls, name: str, training: str | None = None) -> PretrainedWeightsError:
        """The error of a model that nobody has weights of, with the command that trains it."""
        training = training or f"ssl-backbones pretrain RECIPE --model {name} --data FOLDER"
        return cls.in_python(
            f"no weights are published for {name!r}: ",
            f"pretrain it ({training}), name the folder that such a run wrote, pass "
            "pretrained_cfg_overlay=dict(file=PATH) for weights of your own, or take random ones with pretrained=False",
        )

    @classmethod
    def in_python(cls, fault: str, ways_out: str) -> PretrainedWeightsError:
        """The error of a fault, which ends in a mark, with the ways out for who calls a function."""
        error = cls(f"{fault}{ways_out}")
        error.fault = fault.rstrip(" ,:;")
        return error


_TRANSPORT: type[Exception] = next(
    kind for kind in reversed(hub.HfHubHTTPError.__mro__) if kind.__module__.startswith(("httpx", "requests"))
)
"""The base class of the HTTP library's errors, whichever one the Hub's client is built on."""
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (hub.GatedRepoError, "the repository asks to accept its terms on its page, and to log in (`hf auth login`)"),
    (hub.RepositoryNotFoundError, "there is no such repository, or it is private (then log in with `hf auth login`)"),
    (hub.RevisionNotFoundError, "the repository has no such revision"),
    (hub.LocalEntryNotFoundError, "the Hub could not be reached and the file is not in the local cache"),
    (hub.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set and the file is not in the local cache"),
    (hub.EntryNotFoundError, "the repository does not hold the file"),
    (hub.HfHubHTTPError, "the Hub refused or failed"),
    (_TRANSPORT, "the connection to the Hub broke or stalled"),
    (hub.HFValidationError, "that is not the name of a repository"),
    (URLError, "the address could not be reached"),
    (SafetensorError, "the file is damaged"),
)
"""Words for each type of error; the first type that fits counts."""
ON_THE_WAY = tuple(kind for kind, _ in _REASONS)
"""All that the Hub, the network or a damaged file may raise."""
_NOT_THE_WEIGHTS = ("Error(s) in loading state_dict", "No suitable checkpoints", "Pretrained ")
"""Beginnings of torch's and timm's messages where a folder or a repository lacks weights, or has others'."""
_NONE = "No pretrained weights exist"
"""The beginning of timm's message for a network that nobody has weights of."""


@contextmanager
def explain_weights(name: str) -> Iterator[None]:
    """Turn what the Hub, the network or a damaged file raises into one PretrainedWeightsError with the ways out."""
    try:
        yield
    except ON_THE_WAY as error:
        cause = next(cause for kind, cause in _REASONS if isinstance(error, kind))
        status = getattr(getattr(error, "response", None), "status_code", None)
        mirror = "" if isinstance(error, SafetensorError) else "a mirror with HF_ENDPOINT set before Python starts, "
        raise PretrainedWeightsError.in_python(
            f"could not load the weights of {name!r}: {cause}{f' (HTTP {status})' if status else ''}; ",
            f"take {mirror}a local file with pretrained_cfg_overlay=dict(file=PATH), or random weights with "
            "pretrained=False",
        ) from error
    except RuntimeError as error:
        if str(error).startswith(_NONE):
            raise PretrainedWeightsError.unpublished(name) from error
        if not str(error).startswith(_NOT_THE_WEIGHTS):
            raise
        raise PretrainedWeightsError(
            f"the weights of {name!r} are missing, or not those of the architecture it names "
            f"({reason(error)[:300]}): restore the file from where it came from, or "
            "write the folder anew with `ssl-backbones convert FILE --out DIR`"
        ) from error
