"""Methods, as their authors call them, and where they describe them."""

from __future__ import annotations

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
    """Its use of labels, in words that follow "pretrained"; None for a method that uses none."""
    labels_from: str | None = None
    """Its choice that names the file with what labels say; where a run leaves that empty, it uses none."""

    def __str__(self) -> str:
        if self.authors is None:
            return f"{self.title}, authors not recorded"
        authors = f"{self.authors}, {self.year}" if self.year else self.authors
        return ". ".join(part for part in (authors, self.title, self.url) if part)

    def labels_in(self, choices: Mapping[str, Any]) -> str | None:
        """The use of labels in a run with these choices of the method; None where it used none."""
        left_out = self.labels_from is not None and not choices.get(self.labels_from)
        return None if left_out else self.labels


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

ELSEWHERE = {
    "moco_v1": Paper("MoCo v1", *_MOCO_V1),
    "deepcluster_v2": Paper("DeepCluster-v2", *_SWAV),
    "sela_v2": Paper("SeLa-v2", *_SWAV),
}
"""Methods whose weights others publish, and that nothing here trains."""

PAPERS = dict(ELSEWHERE)
"""Every method that is known, by its name in models' names; a method of this package enters itself (`MethodConfig`)."""


def learns_from_labels(method: str, choices: Mapping[str, Any]) -> bool:
    """True for a method, by its name, that with such choices learns from the labels of its images."""
    paper = PAPERS.get(method)
    return paper is not None and paper.labels_in(choices) is not None
