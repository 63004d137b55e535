"""Names: methods and their papers, published backbones and where they are; models made and described by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import timm
from huggingface_hub import errors as hub
from safetensors import SafetensorError
from torch import nn

from ssl_backbones.tags import TAGS as TAGS
from ssl_backbones.tags import Data as Data
from ssl_backbones.tags import Tag as Tag

MODULES = ("small_resnet", "ssl_resnet")
"""The modules, as timm knows them, whose models are ours."""


@dataclass(frozen=True)
class Paper:
    """A method, as its authors call it, and where they describe it; year and address only if they are known."""

    label: str
    title: str
    authors: str
    year: int | None = None
    url: str | None = None

    def __str__(self) -> str:
        authors = f"{self.authors}, {self.year}" if self.year else self.authors
        return ". ".join(part for part in (authors, self.title, self.url) if part)


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
    "supervised": Paper("supervised", *_RESNET),
    "flags": Paper("FLAGS", "FLAGS", "Authors not recorded"),
    "aligned": Paper("LEWEL's aligned branch", *_LEWEL),
    "simclr": Paper("SimCLR", *_SIMCLR),
    "simsiam": Paper("SimSiam", *_SIMSIAM),
    "barlow_twins": Paper("Barlow Twins", *_BARLOW_TWINS),
    "vicreg": Paper("VICReg", *_VICREG),
}
"""By the suffix of a model's name. A line here makes `backbone_suffix` known to timm for every backbone."""


class UnknownModelError(ValueError):
    """No model is called that; the message offers names that are near."""


class PretrainedWeightsError(RuntimeError):
    """The weights asked for could not be had; the message says why, and which other ways there are."""

    @classmethod
    def unpublished(cls, name: str) -> PretrainedWeightsError:
        recipe = name if any(tag.name == name for tag in TAGS) else "RECIPE"
        return cls(
            f"no weights are published for {name!r}: pretrain it (accelerate launch training/pretrain.py {recipe} "
            "--data FOLDER), name the folder that such a run wrote, pass pretrained_cfg_overlay=dict(file=PATH) for "
            "weights of your own, or take random ones with pretrained=False"
        )


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (hub.GatedRepoError, "the repository asks to accept its terms on its page, and to log in (`hf auth login`)"),
    (hub.RepositoryNotFoundError, "there is no such repository, or it is private (then log in with `hf auth login`)"),
    (hub.RevisionNotFoundError, "the repository has no such revision"),
    (hub.LocalEntryNotFoundError, "the Hub could not be reached and the file is not in the local cache"),
    (hub.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set and the file is not in the local cache"),
    (hub.EntryNotFoundError, "the repository does not hold the file"),
    (hub.HfHubHTTPError, "the Hub refused or failed"),
    (hub.HFValidationError, "that is not the name of a repository"),
    (URLError, "the address could not be reached"),
    (SafetensorError, "the file is damaged"),
)
"""What went wrong, in words; the first type that fits counts."""


@contextmanager
def explain_weights(name: str) -> Iterator[None]:
    """Turn what the Hub, the network or a damaged file raises into one PretrainedWeightsError with the ways out."""
    try:
        yield
    except tuple(kind for kind, _ in _REASONS) as error:
        reason = next(reason for kind, reason in _REASONS if isinstance(error, kind))
        status = getattr(getattr(error, "response", None), "status_code", None)
        mirror = "" if isinstance(error, SafetensorError) else "a mirror with HF_ENDPOINT set before Python starts, "
        raise PretrainedWeightsError(
            f"could not load the weights of {name!r}: {reason}{f' (HTTP {status})' if status else ''}; take {mirror}"
            "a local file with pretrained_cfg_overlay=dict(file=PATH), or random weights with pretrained=False"
        ) from error


def create_model(name: str | os.PathLike[str], pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The model of a registered name, `arch.tag`, `hf-hub:org/name`, or the folder that a run wrote.

    As in timm, weights are random without `pretrained`, and `kwargs` are those of `timm.create_model`.
    """
    source = _source(os.fspath(name))
    with explain_weights(source):
        if pretrained and kwargs and ":" in source:  # timm loads leniently where a head is added or taken off
            where = {key: kwargs[key] for key in ("cache_dir", "pretrained_cfg_overlay") if key in kwargs}
            timm.create_model(source, pretrained=True, **where)
        model: nn.Module = timm.create_model(source, pretrained=pretrained, **kwargs)
    return model


def list_models(
    filter: str | Iterable[str] = "", pretrained: bool = False, include_tags: bool | None = None
) -> list[str]:
    """The names of our models that match a wildcard, or any of several; with tags if these, or weights, are asked for.

    With `pretrained`, only those whose weights are published.
    """
    patterns = [filter or "*"] if isinstance(filter, str) else list(filter)
    if include_tags is None:
        include_tags = pretrained or any("." in pattern for pattern in patterns)
    return list(timm.list_models(patterns, module=MODULES, pretrained=pretrained, include_tags=include_tags))


def tags_of(architecture: str) -> tuple[Tag, ...]:
    """The tags of a `backbone_method`, that of the bare name first."""
    tags = [tag for tag in TAGS if tag.architecture == architecture]
    return tuple(sorted(tags, key=lambda tag: tag.source is None))


@dataclass(frozen=True)
class Description:
    """What is known of a model; None where it does not apply, or was not measured."""

    name: str
    backbone: str
    method: str | None = None
    paper: str | None = None
    data: str | None = None
    data_terms: str | None = None
    epochs: int | None = None
    licence: str | None = None
    source: str | None = None
    paper_number: float | None = None
    our_number: float | None = None
    notes: str = ""

    def __str__(self) -> str:
        measured = {"paper's top-1": self.paper_number, "our top-1": self.our_number}
        facts = {
            "backbone": self.backbone,
            "method": self.method or "none",
            "paper": self.paper or "none",
            "data": f"{self.data}, {self.epochs} epochs" if self.data else "not pretrained",
            "licence": f"{self.licence}; the images: {self.data_terms}" if self.licence else "none",
            "source": self.source or "no weights published",
            **{label: "not measured" if value is None else f"{value} %, linear" for label, value in measured.items()},
            **({"notes": self.notes} if self.notes else {}),
        }
        width = max(map(len, facts))
        return "\n".join([self.name, *(f"  {label:{width}}  {fact}" for label, fact in facts.items())])


def describe(name: str) -> Description:
    """What is known of one of our models; a name without a tag stands for its first tag, if there is one."""
    names = {*list_models(), *list_models(include_tags=True)}
    if name not in names:
        raise UnknownModelError(_unknown(name, sorted(names)))
    tag = next((tag for tag in TAGS if tag.name == name), next(iter(tags_of(name)), None))
    backbone, _, method = name.partition(".")[0].partition("_")
    paper = METHODS.get(method)
    label, reference = (paper.label, str(paper)) if paper else (None, None)
    if tag is None:
        return Description(name, backbone, label, reference)
    return Description(
        name=tag.name,
        backbone=backbone,
        method=label,
        paper=reference,
        data=tag.data.name,
        data_terms=tag.data.terms,
        epochs=tag.epochs,
        licence=tag.licence,
        source=tag.source,
        paper_number=tag.paper_number,
        our_number=tag.our_number,
        notes=tag.notes,
    )


def _source(name: str) -> str:
    """The name as timm takes it, or UnknownModelError."""
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return name
    if timm.is_model(name):
        architecture = name.partition(".")[0]
        known = timm.list_models(f"{architecture}.*", include_tags=True)
        if name == architecture or name in known:
            return name
        raise UnknownModelError(_unknown(name, known))
    for folder in (name, os.path.join(name, "backbone")) if name else ():
        if os.path.isfile(os.path.join(folder, "config.json")):
            return f"local-dir:{folder}"
    if os.path.isdir(name):
        raise UnknownModelError(f"the folder {name!r} holds no backbone, neither config.json nor backbone/config.json")
    raise UnknownModelError(_unknown(name, [*list_models(), *list_models(include_tags=True)]))


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3)
    offer = f"near it are {', '.join(near)}" if near else "`ssl-backbones list` shows the names"
    if "/" in name:
        offer += f", and a repository on the Hub is named 'hf-hub:{name}'"
    return f"no model, and no folder, is called {name!r}: {offer}"
