"""The table of pretrained backbones whose weights somebody has: their data, their source and their worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssl_backbones.registry.image_sets import CLOTHING, IMAGENETTE, IN1K
from ssl_backbones.registry.image_sets import Data as Data
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.zoo import ORIGINS
from ssl_backbones.registry.zoo import Origin as Origin

LICENCE = "apache-2.0"
"""The licence of the weights that this repository's recipes make."""
WEIGHTS = Path(__file__).parents[1] / "_weights"
"""The folder of the weights that ship: a safetensors file for each of some tags, by their names."""


@dataclass(frozen=True)
class Tag:
    """A pretrained backbone: what it was trained on, where its weights are, and what it is worth."""

    name: str
    """`backbone_method.tag`"""
    data: Data
    epochs: int
    our_number: float | None = None
    """Linear evaluation on `data`, top-1 in %, measured with this repository."""
    size: int | None = None
    """The side of the images it saw, where that is not the backbone's usual one."""
    licence: str = LICENCE
    """Of the weights: that of their origin where they have one."""
    hf_hub_id: str | None = None
    """`org/name@commit`"""
    origin: Origin | None = None
    """Of weights that others trained."""
    notes: str = ""

    @property
    def architecture(self) -> str:
        """`backbone_method`"""
        return Name.parse(self.name).model

    @property
    def backbone(self) -> str:
        return Name.parse(self.name).arch

    @property
    def method(self) -> str:
        """The method, as PAPERS knows it."""
        return Name.parse(self.name).method

    @property
    def url(self) -> str | None:
        """Of the publisher's own file."""
        return self.origin.url if self.origin else None

    @property
    def file(self) -> Path | None:
        """Of weights that ship with the package."""
        path = WEIGHTS / f"{self.name}.safetensors"
        return path if path.exists() else None

    @property
    def source(self) -> str | None:
        """The source of the weights, in words or as an address; None where nobody has any."""
        if self.file:
            return "ships with the package"
        return f"https://huggingface.co/{self.hf_hub_id.partition('@')[0]}" if self.hf_hub_id else self.url


_PAIRS = "Trained with labels: its pairs were mined inside the classes. Compare it with supervised training."
_SHIPPED: dict[str, tuple[float | None, str]] = {
    "moco_v2.imagenette32_60ep": (61.2, ""),
    "byol.imagenette32_60ep": (65.8, ""),
    "lewel_m.imagenette32_60ep": (62.4, ""),
    "lewel_b.imagenette32_60ep": (64.6, ""),
    "flags.imagenette32_60ep": (65.2, _PAIRS),
    "patch_rotnet.imagenette32_30ep": (44.4, ""),
    "patch_relnet.imagenette32_30ep": (49.0, ""),
    "moco_v2.clothing10_32_200ep": (65.4, ""),
}
"""ResNet-8 at 32 px, by method and tag: logistic regression on its features, top-1 in %, and what is to be said."""


def _epochs(name: str) -> int:
    """The epochs that a name ends with."""
    return int(name.rpartition("_")[2].removesuffix("ep"))


def _tags() -> Iterator[Tag]:
    """Weights that ship with the package, and weights that others publish."""
    for name, (number, notes) in _SHIPPED.items():
        data = CLOTHING if "clothing" in name else IMAGENETTE
        yield Tag(f"resnet8_{name}", data, _epochs(name), number, size=32, notes=notes)
    for name, origin in ORIGINS.items():
        yield Tag(name, IN1K, _epochs(name), licence=origin.licence, origin=origin)


TAGS = tuple(_tags())


def tags_of(architecture: str) -> tuple[Tag, ...]:
    """The tags of a `backbone_method`, that of the bare name first: weights that can be fetched before others."""
    tags = [tag for tag in TAGS if tag.architecture == architecture]
    return tuple(sorted(tags, key=lambda tag: tag.source is None))
