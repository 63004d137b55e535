"""Names of models: `<arch>_<method>.<tag>`, for recipes, weights, cards and repositories alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm

from ssl_backbones.registry.papers import PAPERS

HUB = ("hf-hub:", "hf_hub:")
"""Beginnings of the names of models that lie on the Hub."""
LEFT = ("backbone", "classifier")
"""Folders of the networks that a run leaves in its own."""


@dataclass(frozen=True)
class Name:
    """The parts of a name; a part that it lacks is empty."""

    arch: str
    """The network, as timm calls it."""
    method: str = ""
    tag: str = ""
    """The data, the epochs, and what else tells one run from another."""

    @classmethod
    def parse(cls, text: str) -> Name:
        """The parts of a name, taken apart from the right by the methods that are known, the longest first.

        So `wide_resnet50_2_byol` is BYOL on wide_resnet50_2. Where no known method ends it, all that follows the
        longest name of a network of timm's is the method; where it begins with none, there is no method.
        """
        model, _, tag = text.partition(".")
        methods = sorted((method for method in PAPERS if model.endswith(f"_{method}")), key=len)
        if methods:
            return cls(model.removesuffix(f"_{methods[-1]}"), methods[-1], tag)
        arch = model
        while arch and not timm.is_model(arch):
            arch = arch.rpartition("_")[0]
        return cls(arch, model[len(arch) + 1 :], tag) if arch else cls(model, "", tag)

    @property
    def model(self) -> str:
        """`<arch>_<method>`"""
        return f"{self.arch}_{self.method}" if self.method else self.arch

    def __str__(self) -> str:
        return f"{self.model}.{self.tag}" if self.tag else self.model


def without_place(model: str) -> str:
    """The name of a model; of a folder no more than the last part."""
    if model.startswith(HUB):
        return model
    path = Path(model)
    path = path.resolve() if path.name in ("", "..", *LEFT) else path
    return path.parent.name if path.name in LEFT else path.name
