"""The account of photos that could not be read: a few are left out by name, too many stop the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ssl_backbones.refusal import Refusal

logger = logging.getLogger(__name__)


class TooManyUnreadableError(Refusal, RuntimeError):
    """More photos cannot be read than the run was told to bear; the message lists them."""


class Unreadable:
    """Distinct photos that could not be read so far, out of `total`, and whether that is still bearable.

    At least one photo may be unreadable however small the collection, unless the share is 0, which bears none.
    """

    def __init__(self, total: int, share: float = 0.01) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of photos that may be unreadable is {share}, and has to be from 0 to 1")
        self.total = total
        self.share = share
        self.allowed = max(1, int(share * total)) if share > 0 else 0
        self.photos: dict[str, str] = {}

    def add(self, unreadable: Mapping[str, str]) -> None:
        """Take in photos, key to reason; name the new ones in the log, and TooManyUnreadableError beyond the share."""
        for key, reason in unreadable.items():
            if key not in self.photos:
                self.photos[key] = reason
                logger.warning("photo left out, another takes its place: %s", reason)
        if len(self.photos) > self.allowed:
            raise TooManyUnreadableError(self.complaint())

    def complaint(self, most: int = 20) -> str:
        """The list of the photos, the first of them in full."""
        listed = [f"  {reason}" for _, reason in sorted(self.photos.items())[:most]]
        rest = len(self.photos) - len(listed)
        listed += [f"  and {rest} more"] if rest else []
        return "\n".join(
            [
                f"{len(self.photos)} of {self.total} photos cannot be read, and {self.allowed} may be "
                f"({self.share:.1%}): mend or remove them, or raise the share",
                *listed,
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, as JSON can hold it."""
        return {"photos": dict(self.photos)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.photos = dict(state["photos"])
