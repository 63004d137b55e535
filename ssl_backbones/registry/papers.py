"""Methods, as their authors call them, and where they describe them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """A method, as its authors call it, and where they describe it; year and address only if they are known."""

    label: str
    title: str
    authors: str | None = None
    year: int | None = None
    url: str | None = None
    labels: str | None = None
    """How it uses labels, after "pretrained"; None for a method that uses none."""
    labels_from: str | None = None
    """Its choice that names the file with what labels say; where a run leaves that empty, it uses none."""

    def __str__(self) -> str:
        if self.authors is None:
            return f"{self.title}, authors not recorded"
        authors = f"{self.authors}, {self.year}" if self.year else self.authors
        return ". ".join(part for part in (authors, self.title, self.url) if part)

    def labels_in(self, choices: Mapping[str, Any]) -> str | None:
        """How a run with these choices of the method used labels; None where it used none."""
        left_out = self.labels_from is not None and not choices.get(self.labels_from)
        return None if left_out else self.labels


_LEWEL = (
    "Learning Where to Learn in Cross-View Self-Supervised Learning",
    "Huang et al.",
    2022,
    "https://arxiv.org/abs/2203.14898",
)
_BYOL = (
    "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
    "Grill et al.",
    2020,
    "https://arxiv.org/abs/2006.07733",
)
_MOCO_V2 = (
    "Improved Baselines with Momentum Contrastive Learning",
    "Chen et al.",
    2020,
    "https://arxiv.org/abs/2003.04297",
)
_SIMCLR = (
    "A Simple Framework for Contrastive Learning of Visual Representations",
    "Chen et al.",
    2020,
    "https://arxiv.org/abs/2002.05709",
)
_SIMSIAM = (
    "Exploring Simple Siamese Representation Learning",
    "Chen and He",
    2021,
    "https://arxiv.org/abs/2011.10566",
)
_BARLOW_TWINS = (
    "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
    "Zbontar et al.",
    2021,
    "https://arxiv.org/abs/2103.03230",
)
_VICREG = (
    "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    "Bardes et al.",
    2022,
    "https://arxiv.org/abs/2105.04906",
)
_PATCH = (
    "Self-supervised Learning with Local Attention-Aware Feature",
    "Pham et al.",
    2021,
    "https://arxiv.org/abs/2108.00475",
)
_ROTNET = (
    "Unsupervised Representation Learning by Predicting Image Rotations",
    "Gidaris et al.",
    2018,
    "https://arxiv.org/abs/1803.07728",
)
_DEEP_INFOMAX = (
    "Learning Deep Representations by Mutual Information Estimation and Maximization",
    "Hjelm et al.",
    2019,
    "https://arxiv.org/abs/1808.06670",
)
_DEEPCLUSTER = (
    "Deep Clustering for Unsupervised Learning of Visual Features",
    "Caron et al.",
    2018,
    "https://arxiv.org/abs/1807.05520",
)
_RESNET = ("Deep Residual Learning for Image Recognition", "He et al.", 2016, "https://arxiv.org/abs/1512.03385")

METHODS = {
    "byol": Paper("BYOL", *_BYOL),
    "moco_v2": Paper("MoCo v2", *_MOCO_V2),
    "lewel_b": Paper("LEWEL_B", *_LEWEL),
    "lewel_m": Paper("LEWEL_M", *_LEWEL),
    "patch_rotnet": Paper("Patch RotNet", *_PATCH),
    "patch_relnet": Paper("Patch RelNet", *_PATCH),
    "rotnet": Paper("RotNet", *_ROTNET),
    "deep_infomax": Paper("Deep InfoMax", *_DEEP_INFOMAX),
    "deepcluster": Paper("DeepCluster", *_DEEPCLUSTER),
    "supervised": Paper("supervised", *_RESNET, labels="with labels"),
    "flags": Paper("FLAGS", "FLAGS", labels="with pairs that labels chose", labels_from="pairs"),
    "aligned": Paper("LEWEL's aligned branch", *_LEWEL),
    "simclr": Paper("SimCLR", *_SIMCLR),
    "simsiam": Paper("SimSiam", *_SIMSIAM),
    "barlow_twins": Paper("Barlow Twins", *_BARLOW_TWINS),
    "vicreg": Paper("VICReg", *_VICREG),
}
"""By the suffix of a model's name. A line here makes `backbone_suffix` known to timm for every backbone."""

_SWAV = (
    "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
    "Caron et al.",
    2020,
    "https://arxiv.org/abs/2006.09882",
)
_MOCO_V1 = (
    "Momentum Contrast for Unsupervised Visual Representation Learning",
    "He et al.",
    2019,
    "https://arxiv.org/abs/1911.05722",
)
_DINO = (
    "Emerging Properties in Self-Supervised Vision Transformers",
    "Caron et al.",
    2021,
    "https://arxiv.org/abs/2104.14294",
)

ELSEWHERE = {
    "moco_v1": Paper("MoCo v1", *_MOCO_V1),
    "swav": Paper("SwAV", *_SWAV),
    "deepcluster_v2": Paper("DeepCluster-v2", *_SWAV),
    "sela_v2": Paper("SeLa-v2", *_SWAV),
    "dino": Paper("DINO", *_DINO),
}
"""Methods whose weights others publish, and that nothing here trains; known to timm where there are such weights."""

PAPERS = ChainMap(METHODS, ELSEWHERE)
