"""The account of images that could not be read: a few are left out by name, too many stop the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.distributed import gather_objects
from ssl_backbones.refusal import Refusal

logger = logging.getLogger(__name__)
LISTED = 20
"""Images that an error lists, at most."""


class TooManyUnreadableError(Refusal, RuntimeError):
    """More images cannot be read than the run was told to bear; the message lists them."""


class Unreadable:
    """Distinct images that could not be read so far, out of `total`, and whether that is still bearable.

    At least one image may be unreadable however small the collection, unless the share is 0, which bears none.
    """

    def __init__(self, total: int, share: float = 0.01) -> None:
        """Raise ValueError for a share outside [0, 1]."""
        if not 0 <= share <= 1:
            raise ValueError(f"the share of images that may be unreadable is {share}, and has to be from 0 to 1")
        self.total = total
        self.share = share
        self.allowed = max(1, int(share * total)) if share > 0 else 0
        self.reasons: dict[str, str] = {}

    def add(self, unreadable: Mapping[str, str]) -> None:
        """Take in images, key to reason; name the new ones in the log, and TooManyUnreadableError beyond the share."""
        for key, reason in unreadable.items():
            if key not in self.reasons:
                self.reasons[key] = reason
                logger.warning("image left out, another takes its place: %s", reason)
        if len(self.reasons) > self.allowed:
            raise TooManyUnreadableError(self.complaint())

    def complaint(self) -> str:
        """The list of the images, the first of them in full."""
        listed = [f"  {reason}" for _, reason in sorted(self.reasons.items())[:LISTED]]
        rest = len(self.reasons) - len(listed)
        listed += [f"  and {rest} more"] if rest else []
        return "\n".join(
            [
                f"{len(self.reasons)} of {self.total} images cannot be read, and {self.allowed} may be "
                f"({self.share:.1%}): mend or remove them, or raise the share",
                *listed,
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """The state of a resumed run, as JSON."""
        return {"photos": dict(self.reasons)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the reasons of the run before."""
        self.reasons = dict(state["photos"])


def is_readable(images: Images, row: int) -> bool:
    """True if an image can be read now, whatever was noted of it before."""
    try:
        images[row]
    except UnreadableImageError:
        return False
    return True


class Accounts:
    """The accounts of all sources that a run reads, one for each fingerprint."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.accounts: dict[str, Unreadable] = {}

    def of(self, images: Images) -> Unreadable:
        """The account of a source, opened at the first call."""
        if images.fingerprint not in self.accounts and images.fingerprint_by_sizes in self.accounts:
            self.accounts[images.fingerprint] = self.accounts.pop(images.fingerprint_by_sizes)  # of a run before 0.2
        return self.accounts.setdefault(images.fingerprint, Unreadable(len(images), self.share))

    def count(self, images: Images, left_out: Mapping[str, str]) -> Unreadable:
        """Add the images of a source (key to reason) that each process could not read, and return its account.

        All processes call it together; TooManyUnreadableError in all of them where there are too many.
        """
        account = self.of(images)
        for unreadable in gather_objects(dict(left_out)):
            account.add(unreadable)
        return account

    def elsewhere(self, images: Images) -> list[str]:
        """The sorted keys of the images of all other sources that could not be read."""
        own = self.of(images)
        return sorted(key for account in self.accounts.values() if account is not own for key in account.reasons)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as JSON."""
        return {source: {"total": each.total, **each.state_dict()} for source, each in self.accounts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the accounts of the run before."""
        for source, each in state.items():
            self.accounts.setdefault(source, Unreadable(each["total"], self.share)).load_state_dict(each)
