"""The table of pretrained backbones whose weights somebody has: their data, their source and their worth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_backbones.registry.image_sets import CLOTHING, GOODS, IMAGENETTE, IN1K
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
    """Licence of the weights: that of their origin where they have one."""
    hf_hub_id: str | None = None
    """`org/name@commit`"""
    origin: Origin | None = None
    """Origin of weights that others trained."""
    notes: str = ""
    taught_on: Data | None = None
    """The images, with labels, of the network that taught it; None where none did."""

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
        """Address of the publisher's own file."""
        return self.origin.url if self.origin else None

    @property
    def file(self) -> Path | None:
        """File of weights that ship with the package."""
        path = WEIGHTS / f"{self.name}.safetensors"
        return path if path.exists() else None

    @property
    def source(self) -> str | None:
        """The source of the weights, in words or as an address; None where nobody has any."""
        if self.file:
            return "ships with the package"
        return f"https://huggingface.co/{self.hf_hub_id.partition('@')[0]}" if self.hf_hub_id else self.url


_PAIRS = {"notes": "Trained with labels: its pairs were mined inside the classes. Compare it with supervised training."}
_TAUGHT = {
    "notes": "Taught by a network that learnt with the labels of ImageNet. Compare it with that network.",
    "taught_on": IN1K,
}
_SHIPPED: dict[str, dict[str, Any]] = {
    "resnet8_moco_v2.imagenette32_60ep": {"our_number": 61.2},
    "resnet8_byol.imagenette32_60ep": {"our_number": 65.8},
    "resnet8_lewel_m.imagenette32_60ep": {"our_number": 62.4},
    "resnet8_lewel_b.imagenette32_60ep": {"our_number": 64.6},
    "resnet8_flags.imagenette32_60ep": {"our_number": 65.2, **_PAIRS},
    "resnet8_patch_rotnet.imagenette32_30ep": {"our_number": 44.4},
    "resnet8_patch_relnet.imagenette32_30ep": {"our_number": 49.0},
    "resnet8_moco_v2.clothing10_32_200ep": {"our_number": 65.4},
    "resnet20_distilled.imagenette64_20ep_lite0": {"our_number": 79.7, **_TAUGHT},
    "resnet20_distilled.goods64_20ep_lite0": {"our_number": 38.0, **_TAUGHT},
}
"""By name, what its tag does not say: logistic regression on its features, top-1 in %, and how labels had a part."""
_IMAGES = {"imagenette": IMAGENETTE, "clothing10_": CLOTHING, "goods": GOODS, "in1k": IN1K}
_TAG = re.compile(rf"(?P<images>{'|'.join(_IMAGES)})(?P<size>\d*)_(?P<epochs>\d+)ep")
"""Matches the images, the side in pixels and the epochs in a tag."""


def _tag(name: str, **about: Any) -> Tag:
    """A row of the table, with what its name says."""
    said = _TAG.match(Name.parse(name).tag)
    assert said
    size = int(said["size"]) if said["size"] else None
    return Tag(name, _IMAGES[said["images"]], int(said["epochs"]), size=size, **about)


def _tags() -> Iterator[Tag]:
    """Weights that ship with the package, and weights that others publish."""
    for name, about in _SHIPPED.items():
        yield _tag(name, **about)
    for name, origin in ORIGINS.items():
        yield _tag(name, licence=origin.licence, origin=origin)


TAGS = tuple(_tags())


def tags_of(architecture: str) -> tuple[Tag, ...]:
    """The tags of a `backbone_method`, that of the bare name first: weights that can be fetched before others."""
    tags = [tag for tag in TAGS if tag.architecture == architecture]
    return tuple(sorted(tags, key=lambda tag: tag.source is None))
