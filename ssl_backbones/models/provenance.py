"""The provenance of a network that was given: whose its weights are, what they were trained on, what they bind to.

A run that starts from given weights, or learns from a given network, keeps this beside its recipe; its card tells it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import timm
from huggingface_hub.errors import EntryNotFoundError
from torch import nn

from ssl_backbones.fetch.from_hub import small_file
from ssl_backbones.files import read_object
from ssl_backbones.models.backbone import normalisation, weights_sha256
from ssl_backbones.models.records_behind import OWN_RUN, bound_by, in_order, is_own, is_path, shown, unlicensed
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.registry.image_sets import DATA, known_by
from ssl_backbones.registry.licences import is_non_commercial, marked, most_binding, recorded, slug
from ssl_backbones.registry.names import HUB, LEFT, Name
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.registry.tags import TAGS, Tag
from ssl_backbones.typed.records import ANEW, RESTORE, check_recipe, check_results
from ssl_backbones.views.center_crop import PREPARATION

Labels = Literal["none", "classes", "captions", "not recorded"]
"""The knowledge that training had beside the images themselves."""
LEARNT = {"none": "without labels", "classes": "with labels", "captions": "with captions"}
"""Words for it, where it is recorded."""
TIMMS = "timm/"
"""The owner of the Hub's repositories that are named as timm names its weights."""
IMAGES = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "ig1b": "a billion images of Instagram (not public)",
    "yfcc100m": "YFCC100M",
    "jft300m": "JFT-300M (not public)",
    "lvd142m": "LVD-142M (not public)",
    "lvd1689m": "LVD-1689M (not public)",
    "sat493m": "SAT-493M (not public)",
    "openai": "400 million images with captions, of OpenAI (not public)",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "webli": "WebLI (not public)",
    "cc12m": "CC12M",
    "inat21": "iNaturalist 2021",
}
"""The images that words of timm's tags stand for."""
CAPTIONED = {"openai", "laion400m", "laion2b", "webli", "cc12m", "datacompxl", "metaclip", "dfn2b", "dfn5b"}
"""Words of timm's tags for training with captions, beside clip in any word, and pe, Perception Encoder."""
ALONE = {"dino", "lvd142m", "lvd1689m", "sat493m", "mae", "fcmae", "ijepa"}
"""Words of timm's tags for training without labels, where no tuning follows."""


@dataclass(frozen=True)
class Provenance:
    """Licence, source and training images of a given network; None where one is not recorded."""

    name: str
    """As it was asked for."""
    architecture: str
    """timm's name of the network."""
    sha256: str
    """Digest of its weights, by name (`weights_sha256`)."""
    licence: str | None
    """Licence of its weights, as the Hub abbreviates it."""
    source: str | None
    """The address, repository or run that the weights are from."""
    images: str | None
    """The images that it was trained on."""
    images_terms: str | None
    """The terms of their owners."""
    labels: Labels
    """The knowledge that its training had beside the images."""
    mean: tuple[float, ...]
    """Mean of its images' channels, in [0, 1]."""
    std: tuple[float, ...]
    """Likewise."""
    interpolation: str
    """Interpolation of its images' resize."""
    crop_pct: float
    """The middle's share of the resized image's short side."""
    repository: str | None = None
    """The Hub's repository that holds its weights, ORG/NAME; None where they lie elsewhere, or in older records."""
    binding: tuple[str, ...] = ()
    """Licences of the networks behind it that bind what is made of it too, beside its own."""
    unknown: tuple[str, ...] = ()
    """The networks behind it whose licence is not known, by name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "licence", recorded(self.licence))

    @property
    def non_commercial(self) -> bool:
        """True if the licence forbids commercial use."""
        return is_non_commercial(self.licence)

    @property
    def is_own(self) -> bool:
        """True for a run of this package, whose maker chooses the licence where none binds."""
        return is_own(vars(self))

    @property
    def bound(self) -> list[str]:
        """All licences that bind what is made of it, its own first."""
        return bound_by(vars(self))

    @property
    def unlicensed(self) -> list[str]:
        """The networks, itself and those behind it, whose licence is not known, by name."""
        return unlicensed(vars(self))

    @property
    def preparation(self) -> dict[str, Any]:
        """The preparation of its images, but for their size, under timm's names."""
        return {name: getattr(self, name) for name in PREPARATION}

    @property
    def shown(self) -> str:
        """Its name without the folders that it lies in, which are a machine's own affair."""
        return shown(self.name)

    @property
    def terms(self) -> str:
        """The licence, marked where it forbids commercial use, and those behind it that bind or are not known."""
        behind = [*map(marked, self.binding), *(f"that of {name}, which is not known" for name in self.unknown)]
        return f"{marked(self.licence)} (and behind it {', '.join(behind)})" if behind else marked(self.licence)

    def __str__(self) -> str:
        terms = f" ({self.images_terms})" if self.images_terms else ""
        learnt = LEARNT.get(self.labels, "whether with labels is not recorded")
        return (
            f"{self.shown} ({self.architecture}), licence: {self.terms}; source: {self.source or 'not recorded'}; "
            f"trained on {self.images or 'images not recorded'}{terms}, {learnt}; sha256 of its weights {self.sha256}"
        )


def provenance_of(name: str | os.PathLike[str], model: nn.Module) -> Provenance:
    """The provenance of a model that was opened by a name of ours or of timm's, `hf-hub:org/name`, a folder or a file.

    `model` has its weights, and the description that timm gave it. PretrainedWeightsError for records beside it that
    cannot be read.
    """
    name = os.fspath(name)
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    architecture = Name.parse(str(cfg.get("architecture") or "")).arch
    known: dict[str, Any] = {"name": name, "architecture": architecture, "sha256": weights_sha256(model)}
    known |= {
        "interpolation": str(cfg.get("interpolation") or "bilinear"),
        "crop_pct": float(cfg.get("crop_pct") or 0.875),
    }
    known |= normalisation(model)
    if tag := _tag(name):
        return Provenance(**known, **_of_tag(tag))
    recipe, results = records(name)
    if "data" in results:
        return Provenance(**known, **_of_run(name, cfg, recipe, results))
    return Provenance(**known, **of_timms(name, cfg))


def records(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe.json and results.json of the run that left a folder or a repository; each empty where there is none.

    PretrainedWeightsError for one that cannot be read.
    """
    recipe, results = (run_file(name, file) for file in ("recipe.json", "results.json"))
    return _object(recipe, check_recipe) if recipe else {}, _object(results, check_results) if results else {}


def run_file(name: str, file: str) -> Path | None:
    """A file of the run that left a folder or a repository; None where there is none, or it cannot be asked for.

    It lies beside the weights, as it is published, or above a run's folder `backbone` or `classifier`.
    """
    if name.startswith(HUB):
        repository, _, revision = name.partition(":")[2].partition("@")
        if not repository.startswith(TIMMS):
            with suppress(EntryNotFoundError):
                return small_file(repository, file, revision or None)
        return None
    path = Path(os.path.abspath(name.removeprefix("local-dir:")))
    folder = path.parent if path.name == "model.safetensors" else path
    folders = (folder, folder.parent) if folder.name in LEFT else (folder,)
    return next((place / file for place in folders if (place / file).is_file()), None)


def _object(path: Path, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    return read_object(path, ANEW if check is check_results else RESTORE, PretrainedWeightsError, check=check)


def _tag(name: str) -> Tag | None:
    """The tag of a name in the table of pretrained backbones; the first of a bare name's."""
    return next((tag for tag in TAGS if name in (tag.name, tag.architecture)), None)


def _of_tag(tag: Tag) -> dict[str, Any]:
    sets = [tag.data, *([tag.taught_on] if tag.taught_on else [])]
    return {
        "licence": tag.licence,
        "source": tag.source or (tag.origin.page if tag.origin else None),
        "images": in_order(each.name for each in sets),
        "images_terms": in_order(each.terms for each in sets),
        "labels": "classes" if tag.taught_on or PAPERS[tag.method].labels else "none",
    }


def _of_run(name: str, cfg: Mapping[str, Any], recipe: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a run of this package: learnt with labels if its method uses them, or any network it was given did.

    What binds the networks that it was given, or is not known of them, is carried on, whatever licence is stated.
    """
    data = results["data"] if isinstance(results["data"], dict) else {}
    known = known_by(data.get("fingerprint"))
    count, where = data.get("images"), PurePath(str(data.get("source") or "")).name
    own = f"{count} images of {where}" if where else f"{count} images"
    given = [found for found in (results.get("start"), results.get("teacher")) if isinstance(found, dict)]
    paper = PAPERS.get(Name.parse(str(results.get("model") or "")).method)
    choices = recipe.get("method")
    alone = paper is not None and paper.labels_in(choices if isinstance(choices, dict) else {}) is None
    labels = {str(found.get("labels", "not recorded")) for found in given}
    if results.get("protocol", "pretraining") != "pretraining" or (paper is not None and not alone):
        labels.add("classes")
    elif paper is None:
        labels.add("not recorded")
    worst = next((kind for kind in ("classes", "captions", "not recorded") if kind in labels), "none")
    before = [str(found.get("images") or "images not recorded") for found in given]
    terms = [known.terms if known else None, *(found.get("images_terms") for found in given)]
    bound = dict.fromkeys(licence for found in given for licence in bound_by(found))
    licence = recorded(cfg.get("license")) or most_binding(bound)
    return {
        "licence": licence,
        "source": name if name.startswith(HUB) else f"{OWN_RUN}, {shown(name)}",
        "images": ", and before that ".join([known.name if known else own, *before]),
        "images_terms": in_order(terms) if any(terms) else None,
        "labels": worst,
        "binding": tuple(each for each in bound if slug(each) != slug(licence or "")),
        "unknown": tuple(dict.fromkeys(name for found in given for name in unlicensed(found))),
    }


def of_timms(name: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of weights of timm's, or of somebody's folder or repository, as far as their description goes."""
    place = name.partition(":")[2].partition("@")[0] if name.startswith(HUB) else name
    theirs = place.removeprefix(TIMMS)
    named = not is_path(theirs) and timm.is_model(theirs.partition(".")[0])
    words = set(str(cfg.get("tag") or theirs.partition(".")[2]).split("_")) if named else set()
    registered: Any = timm.get_pretrained_cfg(theirs, allow_unregistered=True) if named else None
    images = [IMAGES[word] for word in IMAGES if word in words]
    terms = next((data.terms for data in DATA if [data.name] == images), None)
    source = cfg.get("origin_url") or getattr(registered, "origin_url", None)
    repository = str(cfg.get("hf_hub_id") or (place if name.startswith(HUB) else "")).partition("@")[0] or None
    if not source and repository:
        source = f"https://huggingface.co/{repository}"
    return {
        "licence": recorded(cfg.get("license")) or recorded(getattr(registered, "license", None)),
        "source": str(source) if source else None,
        "images": " and ".join(images) or None,
        "images_terms": terms,
        "labels": "classes" if cfg.get("num_classes") and not named else _labels(words, cfg),
        "repository": repository,
    }


def _labels(words: set[str], cfg: Mapping[str, Any]) -> Labels:
    """The knowledge behind weights of timm's, as the words of their name and the size of their classifier tell it.

    The classifier of a network that learnt with captions is their embedding, and counts no classes.
    """
    told = words | set(str(cfg.get("architecture") or "").split("_"))
    captioned = words & CAPTIONED or "pe" in told or any("clip" in word for word in told)
    if captioned and "ft" not in words:
        return "captions"
    if cfg.get("num_classes"):
        return "classes"
    return "none" if words & ALONE and "ft" not in words else "not recorded"
