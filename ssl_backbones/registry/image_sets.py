"""The images that recipes are written for: what their owners allow, and the copies of them that are known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Data:
    """Images to pretrain on, and what their owners allow."""

    name: str
    terms: str
    origin: str = ""
    """Origin of the copies with these fingerprints, and what was done to them."""
    fingerprints: tuple[str, ...] = ()
    """Fingerprints of copies known to be these images, the last as 0.1.0.dev0 computed it; copies in other files have
    others."""


_GARMENTS = "github.com/alexeygrigorev/clothing-dataset-small, scaled to a short side of"

IN1K = Data("ImageNet-1k", "non-commercial research")
IN100 = Data("ImageNet-100", "non-commercial research")
IMAGENETTE = Data(
    "Imagenette",
    "non-commercial research",
    "Imagenette by fast.ai, out of github.com/thunderInfy/imagenette, scaled to 96 x 96 px",
    (
        "c66772de59e2cab6de3fe8541ca9508c8c1d83d7937927c7f8099ffdc595f9c2",
        "dc594615aca686fe0d04d542a620f14eb5b36d9952caecc66c265950962fd84d",
    ),
)
STL10 = Data("STL-10, unlabelled", "non-commercial research")
STL10_LABELLED = Data("STL-10, labelled", "non-commercial research")
TINY = Data("Tiny-ImageNet", "non-commercial research")
CLOTHING = Data(
    "Clothing dataset (small), training photos",
    "CC0",
    f"{_GARMENTS} 160 px",
    (
        "0d75af71d195065d4d41d20d47655546734d335a89213c9196757e95dd5d1c53",
        "9d6ff9d2ffbd8d84dbb23b84a1a370ab5510d521712865cd66679b6f462405d3",
    ),
)
SAMPLE = Data(
    "photos of garments, CC0, in training/sample_photos",
    "CC0",
    f"{_GARMENTS} 72 px",
    (
        "4c00af846c1ccb9f3944d0920de5670ab7bc1ea2c5063fdec9352b8fb29332da",
        "d4edb017ab284e13b034b8dfcb9cc5e766c63bd6ad021238d104f5e22c3db43b",
    ),
)
GOODS = Data(
    "goods_128",
    "MIT (groceries, (c) 2019 Marcus Klasson) and CC0 (garments)",
    "github.com/marcusklasson/GroceryStoreDataset and github.com/alexeygrigorev/clothing-dataset, scaled to a short "
    "side of 128 px",
    ("f28445d9c0a1583fabff348bc9e614278b60bb986a08a98c10df261df3dc7321",),
)

DATA = (IN1K, IN100, IMAGENETTE, STL10, STL10_LABELLED, TINY, CLOTHING, SAMPLE, GOODS)


def known_by(fingerprint: str | None) -> Data | None:
    """The images of which a copy with that fingerprint is known."""
    return next((data for data in DATA if fingerprint in data.fingerprints), None)


def are_those(name: str, fingerprint: str | None) -> bool | None:
    """True if images are known, by their fingerprint, to be those of a name; None where none of theirs is recorded."""
    recorded = next((data.fingerprints for data in DATA if data.name == name), ())
    return fingerprint in recorded if recorded else None
