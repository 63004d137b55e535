"""Every error of the package ends a command in one sentence, or says why it does not."""

from __future__ import annotations

import importlib
import inspect

import pytest
from test_imports import MODULES

from ssl_backbones.catalogue.trial import TooLargeError
from ssl_backbones.data.verifying import NotKeptError
from ssl_backbones.fetch.download import DownloadError
from ssl_backbones.locks import LockedError
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.train.processes import Stopped

WITHIN = {
    DownloadError: "a few words, which PretrainedWeightsError makes a sentence of",
    LockedError: "a process and its host, which those that take a lock make sentences of",
    NotKeptError: "nothing to verify, which `verified` goes on without",
    TooLargeError: "a size, which the check of a configuration makes a sentence of",
    Stopped: "an orderly end with an exit code of its own",
}
"""Exceptions that no command ends in, and why."""


def exceptions() -> list[type[BaseException]]:
    """Every exception class that a module of the package defines."""
    named = (vars(importlib.import_module(name)).values() for name in MODULES if not name.endswith("__main__"))
    return sorted(
        {
            value
            for values in named
            for value in values
            if inspect.isclass(value)
            and issubclass(value, BaseException)
            and not issubclass(value, Warning)
            and value.__module__.startswith("ssl_backbones")
        },
        key=lambda kind: kind.__qualname__,
    )


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__name__)
def test_an_error_ends_a_command_in_a_sentence(kind: type[BaseException]) -> None:
    assert issubclass(kind, Refusal) or kind in WITHIN
    if issubclass(kind, Refusal) and kind is not Refusal:
        assert issubclass(kind, ImportError | OSError | RuntimeError | ValueError), "its second base says what it is"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("it has two\n  lines."), "it has two lines"),
        (OSError(28, "No space left on device", "a.bin"), "No space left on device"),
        (OSError("this system has no locks"), "this system has no locks"),
        (OSError(), "OSError"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_a_reason_is_one_line_and_never_empty(error: Exception, said: str) -> None:
    assert reason(error) == said
