"""What a layout of checkpoints is: which tensors are the backbone's, under what names, and which are known heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ssl_backbones.refusal import Refusal

RESNET = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
"""What the keys of a headless ResNet begin with."""


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
    """Whose layout it is, as messages have it."""
    notes: str
    """What is to be said of every conversion; may be empty."""

    @abstractmethod
    def split(self, tensors: Mapping[str, Tensor]) -> Parts | None:
        """The parts of a checkpoint, or None if it holds nothing that this layout calls the backbone."""


@dataclass(frozen=True)
class Prefixed(Layout):
    """The backbone under a prefix of its own, and heads under theirs. Prefixes end in a dot, or are a whole key."""

    label: str
    prefix: str
    """Of the backbone; empty where it lies bare."""
    heads: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    """Heads under the backbone's own prefix: a projector in the place of its classifier."""
    notes: str = ""

    def __post_init__(self) -> None:
        if self.prefix and not self.prefix.endswith("."):
            raise ValueError(f"the prefix {self.prefix!r} of {self.label} must end in a dot, or it takes others' keys")

    def split(self, tensors: Mapping[str, Tensor]) -> Parts | None:
        """Take the prefix off; heads go first, for a bare backbone has every key."""
        heads = (*self.heads, *(self.prefix + head for head in self.within))
        dropped = [key for key in tensors if any(starts(key, head) for head in heads)]
        rest = {key: value for key, value in tensors.items() if key not in dropped}
        kept = [key for key in rest if key.startswith(tuple(self.prefix + part for part in RESNET))]
        if not kept:
            return None
        backbone = {key.removeprefix(self.prefix): rest.pop(key) for key in kept}
        return Parts(backbone, tuple(dropped), tuple(rest))


def starts(key: str, prefix: str) -> bool:
    """Whether a key lies under a prefix with its dot, or is one that has none."""
    return key.startswith(prefix) if prefix.endswith(".") else key == prefix
