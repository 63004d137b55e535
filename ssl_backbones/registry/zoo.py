"""Backbones that others have pretrained and publish: where each file lies, whose it is, and what it is worth.

Nothing of theirs is kept here. Read from the publishers' own READMEs; the figures are linear evaluation on ImageNet-1k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Publishers of weights, their terms, and the way to get the files."""

    publisher: str
    licence: str
    number: float
    """Linear evaluation, top-1 in %, as the publisher gives it."""
    url: str | None = None
    """Address of the file, where it can be fetched without a browser."""
    page: str | None = None
    """To download it from by hand, where it cannot."""
    md5: str = ""
    """The first digits, where the publisher gives them."""
    size: int | None = None
    """Bytes of the file, where the publisher gives them; no more are fetched."""
    notes: str = ""


_FILES = "https://dl.fbaipublicfiles.com"
_NON_COMMERCIAL = "cc-by-nc-4.0"
_MOCO_TERMS = "Its README says CC-BY-NC 4.0, and its code is MIT since January 2023."
_BARLOW_TERMS = "Its README says CC-BY-NC 4.0, and its LICENSE file MIT."
_DINO_TERMS = "Confirm the licence in its LICENSE file."
_HAIKU = (
    "The file is a pickle that cannot be read safely: save its arrays as .npz on a machine that may run it. Its "
    "padding is TensorFlow's SAME, which timm's network has not, so features differ by shifts of a pixel."
)
_BARLOW_FILE = "epochs1000_bs2048_lr0.2_lambd0.0051_proj_8192_8192_8192_scale0.024/resnet50.pth"


def _moco() -> Iterator[tuple[str, Origin]]:
    for version, epochs, number, md5 in (
        (1, 200, 60.6, "b251726a"),
        (2, 800, 71.1, "a04e12f8"),
        (2, 200, 67.7, "59fd9945"),
    ):
        run = f"moco_v{version}_{epochs}ep"
        url = f"{_FILES}/moco/moco_checkpoints/{run}/{run}_pretrain.pth.tar"
        origin = Origin("facebookresearch/moco", _NON_COMMERCIAL, number, url, md5=md5, notes=_MOCO_TERMS)
        yield f"resnet50_moco_v{version}.in1k_{epochs}ep", origin


def _clustering() -> Iterator[tuple[str, Origin]]:
    """SwAV and the two methods that were trained again beside it."""
    for method, figures in {
        "swav": {800: 75.3, 400: 74.6, 200: 73.9, 100: 72.1},
        "deepcluster_v2": {800: 75.2, 400: 74.3},
        "sela_v2": {400: 71.8},
    }.items():
        for epochs, number in figures.items():
            url = f"{_FILES}/deepcluster/{method.replace('_', '')}_{epochs}ep_pretrain.pth.tar"
            yield f"resnet50_{method}.in1k_{epochs}ep", Origin("facebookresearch/swav", _NON_COMMERCIAL, number, url)


def _lewel() -> Iterator[tuple[str, Origin]]:
    for epochs, number, drive in (
        (400, 73.8, "13PVJexOZqy3XNEBbmeaVCXdrl9JhAiCN"),
        (200, 72.8, "1ofZjBOAS3IB82Hz-Rt8lW4lqd4nR60ZR"),
        (100, 71.9, "12_u_6mR7Fg6YU4lxovL2lBXxXwmQehuK"),
    ):
        page = f"https://drive.google.com/file/d/{drive}/view"
        yield f"resnet50_lewel_b.in1k_{epochs}ep", Origin("LayneH/LEWEL", _NON_COMMERCIAL, number, page=page)


def _single() -> Iterator[tuple[str, Origin]]:
    """Publishers of one file each."""
    simsiam = f"{_FILES}/simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar"
    yield "resnet50_simsiam.in1k_100ep", Origin("facebookresearch/simsiam", _NON_COMMERCIAL, 68.1, simsiam)
    barlow = f"{_FILES}/barlowtwins/{_BARLOW_FILE}"
    yield (
        "resnet50_barlow_twins.in1k_1000ep",
        Origin("facebookresearch/barlowtwins", _NON_COMMERCIAL, 73.3, barlow, notes=_BARLOW_TERMS),
    )
    vicreg = f"{_FILES}/vicreg/resnet50.pth"
    yield "resnet50_vicreg.in1k_1000ep", Origin("facebookresearch/vicreg", "mit", 73.2, vicreg)
    dino = f"{_FILES}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
    yield "resnet50_dino.in1k_800ep", Origin("facebookresearch/dino", "apache-2.0", 75.3, dino, notes=_DINO_TERMS)
    byol = "https://github.com/google-deepmind/deepmind-research/tree/master/byol"
    yield "resnet50_byol.in1k_1000ep", Origin("DeepMind", "apache-2.0", 74.3, page=byol, notes=_HAIKU)


ORIGINS: dict[str, Origin] = dict((*_moco(), *_clustering(), *_single(), *_lewel()))
"""By the name of the tag, `backbone_method.tag`; of one method, the best that can be fetched comes first."""
