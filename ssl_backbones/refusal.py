"""The one base class of errors that end a command in a sentence instead of a traceback."""

import re

from ssl_backbones.credentials import without_credentials

IN_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n.*\n[\w.]+: (.*)", re.DOTALL)
"""The form in which torch hands on an error of a process that reads images: its traceback, and then its message."""


def reason(error: BaseException) -> str:
    """The message of an error in one line without a full stop, or the system's reason; its kind where it has none."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


class Refusal(Exception):
    """An error whose message is all that a person needs: the value, what was expected, and the way out.

    A concrete one has the kind of builtin error that it is as a second base: `class LayerError(Refusal, ValueError)`.
    """

    def __str__(self) -> str:
        said = super().__str__()
        in_a_worker = IN_A_WORKER.fullmatch(said)
        return without_credentials(in_a_worker[1].rstrip() if in_a_worker else said)
