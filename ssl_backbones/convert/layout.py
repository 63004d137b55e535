"""A layout of checkpoints: the names that it gives a backbone's tensors, and the heads that it has beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ssl_backbones.refusal import Refusal

RESNET = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
"""The beginnings of the keys of a headless ResNet."""


class ConversionError(Refusal, ValueError):
    """A checkpoint that cannot be converted; the message says what it lacks and what would work."""


@dataclass(frozen=True)
class Parts:
    """A checkpoint taken apart."""

    backbone: dict[str, Tensor]
    """Under timm's names."""
    heads: tuple[str, ...]
    """The keys left out because the layout knows them for something else than the backbone."""
    unknown: tuple[str, ...]
    """The keys that the layout does not know."""


class Layout(ABC):
    """A way to name the tensors of a checkpoint. Subclasses are final."""

    label: str
    """The projects whose layout it is, as messages name them."""
    notes: str
    """A sentence to say of every conversion; may be empty."""

    @abstractmethod
    def split(self, tensors: Mapping[str, Tensor]) -> Parts | None:
        """The parts of a checkpoint's tensors (...), or None if none is the backbone's in this layout."""


@dataclass(frozen=True)
class Prefixed(Layout):
    """The backbone under a prefix of its own, and heads under theirs. Prefixes end in a dot, or are a whole key."""

    label: str
    prefix: str
    """The backbone's; empty for one that lies bare."""
    heads: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    """Heads under the backbone's own prefix: a projector in the place of its classifier."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Parts of the backbone's keys, and what timm calls them."""
    notes: str = ""

    def __post_init__(self) -> None:
        if self.prefix and not self.prefix.endswith("."):
            raise ValueError(f"the prefix {self.prefix!r} of {self.label} must end in a dot, or it takes others' keys")

    def split(self, tensors: Mapping[str, Tensor]) -> Parts | None:
        """Take the prefix off; heads go first, for a bare backbone has every key."""
        heads = (*self.heads, *(self.prefix + head for head in self.within))
        under, ours = tuple(head for head in heads if head.endswith(".")), tuple(self.prefix + part for part in RESNET)
        backbone: dict[str, Tensor] = {}
        left_out: list[str] = []
        unknown: list[str] = []
        for key, value in tensors.items():
            if key in heads or key.startswith(under):
                left_out.append(key)
            elif key.startswith(ours):
                backbone[self.timm_name(key)] = value
            else:
                unknown.append(key)
        return Parts(backbone, tuple(left_out), tuple(unknown)) if backbone else None

    def timm_name(self, key: str) -> str:
        """The key of a backbone's tensor, as timm calls it."""
        key = key.removeprefix(self.prefix)
        for part, name in self.renamed.items():
            key = key.replace(part, name)
        return key
