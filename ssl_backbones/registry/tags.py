"""The table of pretrained backbones: what each was trained on, and what it is worth; `registry` answers from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ssl_backbones.registry.names import Name
from ssl_backbones.registry.photos import CLOTHING, IMAGENETTE, IN1K, IN100, STL10, STL10_LABELLED, TINY
from ssl_backbones.registry.photos import Data as Data
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
    paper_number: float | None = None
    """Linear evaluation on `data`, top-1 in %, as the paper gives it."""
    our_number: float | None = None
    """The same, measured with this repository."""
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
        """The suffix that the registry's METHODS knows."""
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


_BASELINE = "The figure is the baseline of the LEWEL paper."
_GROUPS = "The figure is that of 256 wide maps in 4 groups in the paper's Table 7."
_ABLATION = "The figure is that of the LEWEL paper's Table 5, taken to be MoCo-based."
_TEXT = "Settings of the paper's text; those of its code, which made the figure, go by the tag without _sgd."
_PAIRS = "Trained with labels: its pairs were mined inside the classes. Compare it with supervised training."
_PATCH_FIGURES: dict[str, dict[str, tuple[float, float, float]]] = {
    "rotnet": {"": (16.32, 60.48, 52.25)},
    "patch_relnet": {"_r30": (17.35, 59.09, 50.15), "_r40": (16.04, 60.28, 45.76), "_r50": (14.5, 59.54, 42.38)},
    "patch_rotnet": {"_r30": (13.15, 55.23, 48.75), "_r40": (11.7, 54.55, 52.63), "_r50": (12.45, 57.55, 50.05)},
    "deep_infomax": {"": (14.9, 41.64, 45.41)},
    "deepcluster": {"": (12.57, 41.7, 41.35)},
}
"""By method, and by its patches' share of the side: ResNet-8 on Tiny-ImageNet and on STL-10, ResNet-32 on STL-10."""
_JOINT_EMBEDDING_FIGURES: dict[str, dict[int, float | None]] = {
    "simclr": {1000: 69.3, 100: None},
    "simsiam": {800: 71.3, 400: 70.8, 200: 70.0, 100: 68.1},
    "barlow_twins": {1000: 73.2},
    "vicreg": {1000: 73.2, 100: None},
}
"""By method and epochs: ResNet-50 on ImageNet-1k."""
_LEWEL_FIGURES: dict[str, dict[str, dict[str, float | None]]] = {
    "Table 5, taken to be MoCo-based": {"lewel_m": {"aligned_only": 80.0, "uncoupled": 81.0}},
    "Table 6, taken to be MoCo-based": {
        "lewel_m": {"extra_head": 79.9, "random": 79.8, "shared_head": 81.8},
        "moco_v2": {"dim256": None, "dim512": None},
    },
    "Table 7": {
        "lewel_b": {
            "c256_h1": 81.0,
            "c256_h2": 82.6,
            "c256_h8": 83.1,
            "c256_h16": 82.9,
            "c512_h4": 84.6,
            "c128_h4": 83.8,
            "c64_h4": 84.8,
        }
    },
    "Fig. 3, taken to be MoCo-based": {
        "lewel_m": {"share0": None, "share25": None, "share75": None, "d64": None, "d256": None, "d512": None}
    },
}
"""Figures by place in the LEWEL paper, method and switch: ResNet-50 on ImageNet-100."""


_EQUAL_COST = {
    "rotnet": {"16ep": ""},
    "patch_rotnet": {"8ep_r30": "", "8ep_r40": "", "8ep_r50": ""},
    "patch_relnet": {"8ep_r30": "", "8ep_r40": "", "8ep_r50": ""},
    "deep_infomax": {"6ep": ""},
    "deepcluster": {"50ep": ""},
    "moco_v2": {"26ep": ""},
    "byol": {"22ep": ""},
    "lewel_m": {"20ep": ""},
    "lewel_b": {"15ep": ""},
    "flags": {"18ep_global": _PAIRS, "13ep_global_local": _PAIRS},
    "supervised": {"56ep": "Trained with labels."},
}
"""By method and by what its tag ends with, what is to be said of a ResNet-8 on Imagenette at 32 px."""


def _equal_cost_tags() -> Iterator[Tag]:
    """A row of the table of all methods at about equal cost each."""
    for method, ends in _EQUAL_COST.items():
        for end, notes in ends.items():
            epochs = int(end.partition("ep")[0])
            yield Tag(f"resnet8_{method}.imagenette32_{end}", IMAGENETTE, epochs, size=32, notes=notes)


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


def _shipped_tags() -> Iterator[Tag]:
    """The weights that are trained to ship with the package."""
    for name, (number, notes) in _SHIPPED.items():
        data = CLOTHING if "clothing" in name else IMAGENETTE
        epochs = int(name.rpartition("_")[2].removesuffix("ep"))
        yield Tag(f"resnet8_{name}", data, epochs, our_number=number, size=32, notes=notes)


def _joint_embedding_tags() -> Iterator[Tag]:
    """Methods without a target network, on ImageNet-1k and on Imagenette."""
    for method, figures in _JOINT_EMBEDDING_FIGURES.items():
        for epochs, figure in figures.items():
            yield Tag(f"resnet50_{method}.in1k_{epochs}ep", IN1K, epochs, figure)
    for backbone in ("resnet8", "resnet18"):
        for method in _JOINT_EMBEDDING_FIGURES:
            yield Tag(f"{backbone}_{method}.imagenette96_100ep", IMAGENETTE, 100, size=64)
        for objective in ("simclr", "simsiam"):
            yield Tag(f"{backbone}_aligned.imagenette96_100ep_{objective}", IMAGENETTE, 100, size=64)


def _lewel_ablation_tags() -> Iterator[Tag]:
    """The rows of the LEWEL paper's ablations that are not among the tags below."""
    for place, methods in _LEWEL_FIGURES.items():
        for method, figures in methods.items():
            for switch, figure in figures.items():
                notes = f"An ablation of the LEWEL paper's {place}."
                yield Tag(f"resnet50_{method}.in100_240ep_{switch}", IN100, 240, figure, notes=notes)


def _patch_tags() -> Iterator[Tag]:
    """The rows of Tables 1 and 2 of the Patch paper (Pham et al., 2021) that were trained."""
    for method, figures in _PATCH_FIGURES.items():
        for end, (tiny, stl10, deep) in figures.items():
            yield Tag(f"resnet8_{method}.stl10_200ep{end}", STL10, 200, stl10, size=96)
            yield Tag(f"resnet8_{method}.tiny_200ep{end}", TINY, 200, tiny, size=64)
            yield Tag(f"resnet32_{method}.stl10_200ep{end}", STL10, 200, deep, size=96)
    for name, data, size, figure in (
        ("resnet8_supervised.stl10_200ep", STL10_LABELLED, 96, 73.8),
        ("resnet8_supervised.tiny_200ep", TINY, 64, 40.45),
        ("resnet32_supervised.stl10_200ep", STL10_LABELLED, 96, 74.54),
    ):
        yield Tag(name, data, 200, size=size, notes=f"The paper's own classifier, trained with it, reaches {figure} %.")


_TRAINED_HERE = (
    Tag("resnet50_byol.in1k_1000ep", IN1K, 1000, 74.3),
    Tag("resnet50_byol.in1k_300ep", IN1K, 300),
    Tag("resnet50_byol.in1k_100ep_deepmind", IN1K, 100),
    Tag("resnet50_byol.in1k_40ep", IN1K, 40),
    Tag("resnet50_byol.in1k_200ep", IN1K, 200, 71.9, notes=_BASELINE),
    Tag("resnet50_byol.in1k_100ep", IN1K, 100, 70.6, notes=_BASELINE),
    Tag("resnet50_byol.in100_240ep", IN100, 240),
    Tag("resnet50_moco_v2.in1k_800ep", IN1K, 800, 71.1),
    Tag("resnet50_moco_v2.in1k_200ep", IN1K, 200, 67.5),
    Tag("resnet50_moco_v2.in1k_100ep", IN1K, 100, 64.5, notes=_BASELINE),
    Tag("resnet50_moco_v2.in100_240ep", IN100, 240, 79.5, notes=_ABLATION),
    Tag("resnet50_lewel_b.in1k_400ep", IN1K, 400, 73.8),
    Tag("resnet50_lewel_b.in1k_200ep", IN1K, 200, 72.8),
    Tag("resnet50_lewel_b.in1k_100ep", IN1K, 100, 71.9),
    Tag("resnet50_lewel_b.in1k_400ep_sgd", IN1K, 400, 73.8, notes=_TEXT),
    Tag("resnet50_lewel_b.in1k_200ep_sgd", IN1K, 200, 72.8, notes=_TEXT),
    Tag("resnet50_lewel_b.in1k_100ep_sgd", IN1K, 100, 71.9, notes=_TEXT),
    Tag("resnet50_lewel_b.in100_240ep", IN100, 240, 83.3, notes=_GROUPS),
    Tag("resnet50_lewel_m.in1k_200ep", IN1K, 200, 68.4),
    Tag("resnet50_lewel_m.in1k_100ep", IN1K, 100, 66.1),
    Tag("resnet50_lewel_m.in100_240ep", IN100, 240, 82.1, notes=_ABLATION),
    Tag("resnet50_flags.in1k_200ep_global", IN1K, 200, 78.45, notes=_PAIRS),
    Tag("resnet50_flags.in1k_200ep_global_local", IN1K, 200, 77.75, notes=_PAIRS),
    Tag("resnet50_flags.in1k_200ep_moco", IN1K, 200, 67.16, notes="MoCo, by the FLAGS paper and with its loss."),
    Tag("resnet8_flags.imagenette96_100ep_global", IMAGENETTE, 100, size=64, notes=_PAIRS),
    Tag("resnet8_flags.imagenette96_100ep_global_local", IMAGENETTE, 100, size=64, notes=_PAIRS),
    *(
        Tag(f"{backbone}_{method}.imagenette96_100ep", IMAGENETTE, 100, size=64)
        for backbone in ("resnet8", "resnet18")
        for method in ("byol", "moco_v2", "lewel_b", "lewel_m")
    ),
    *_joint_embedding_tags(),
    *_lewel_ablation_tags(),
    *_shipped_tags(),
    *_equal_cost_tags(),
    *_patch_tags(),
)
"""One for each recipe."""


def _with_origins() -> Iterator[Tag]:
    """Every recipe's tag, with the weights that others trained by its settings; then what only others trained."""
    recipes = {tag.name for tag in _TRAINED_HERE}
    for tag in _TRAINED_HERE:
        origin = ORIGINS.get(tag.name)
        yield replace(tag, origin=origin, licence=origin.licence) if origin and not tag.hf_hub_id else tag
    for name, origin in ORIGINS.items():
        if name not in recipes:
            epochs = int(name.rpartition("_")[2].removesuffix("ep"))
            yield Tag(name, IN1K, epochs, licence=origin.licence, origin=origin)


TAGS = tuple(_with_origins())
"""The first tag of an architecture that has weights is the one that the bare name stands for; else the first."""
