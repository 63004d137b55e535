"""The one base class of errors that end a command in a sentence instead of a traceback."""

from ssl_backbones.credentials import without_credentials


class Refusal(Exception):
    """An error whose message is all that a person needs: the value, what was expected, and the way out.

    A concrete one has the kind of builtin error that it is as a second base: `class LayerError(Refusal, ValueError)`.
    """

    def __str__(self) -> str:
        return without_credentials(super().__str__())
