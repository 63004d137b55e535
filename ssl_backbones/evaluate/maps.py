"""Networks whose maps are measured: what is asked of them, how they and their methods are opened, and what is saved."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssl_backbones.checks import check, check_at_least, check_seed
from ssl_backbones.data import Images
from ssl_backbones.data.decode import MAX_PIXELS
from ssl_backbones.evaluate.frames import AnnotationsFrame
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.files import write_file
from ssl_backbones.methods.from_run import method_with_heads
from ssl_backbones.methods.method import Method
from ssl_backbones.runs.results import Number, results_of, write_results
from ssl_backbones.typed.words import Positional
from ssl_backbones.visualizers.run_section import recorded_recipe

RANDOM = " (random weights)"
"""Ends the name of a network with such."""


@dataclass(frozen=True)
class MapOptions(ABC):
    """The models, the images, and how they are looked at."""

    models: Positional[tuple[str, ...]]
    """Registered names, hf-hub:org/name, or folders of runs, whose own maps are measured too."""
    data: str
    """Annotated images."""
    out: Path
    """The folder for table.md and results.json."""
    size: int = 224
    """Side of the square that a network is shown, in pixels."""
    random: bool = False
    """Use random weights instead of the models' own."""
    with_random: bool = False
    """Also evaluate the first model with random weights."""
    batch_size: int = 16
    """Images at a time."""
    seed: int = 0
    """Random seed for random weights and for all else that is drawn."""
    max_pixels: int = MAX_PIXELS
    """Largest image, in pixels; a larger one is refused."""
    annotations_frame: AnnotationsFrame = "auto"
    """Frame in which images with an EXIF rotation were annotated: as seen or as stored; auto goes by their sizes."""
    overwrite: bool = False
    """Replace results that are in the folder already."""

    def __post_init__(self) -> None:
        check(bool(self.models), "models", self.models, "at least one")
        check_at_least(self, size=8, batch_size=1, max_pixels=1)
        check_seed("seed", self.seed)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that results.json tells as such; the rest stands elsewhere in it."""
        told_elsewhere = {"models", "data", "out", "seed", "max_pixels", "overwrite"}
        return {name: value for name, value in asdict(self).items() if name not in told_elsewhere}


def opened_models(options: MapOptions) -> list[EvaluatedModel]:
    """Each network once, those of random weights called so."""
    asked = [(name, options.random) for name in options.models]
    asked += [(options.models[0], True)] if options.with_random else []
    return [opened(name, options, random) for name, random in dict.fromkeys(asked)]


def opened(name: str, options: MapOptions, random: bool) -> EvaluatedModel:
    """The network of a name."""
    model = open_model(name, size=options.size, random=random, seed=options.seed)
    return replace(model, name=f"{name}{RANDOM}") if random else model


def method_of(model: EvaluatedModel, seed: int) -> Method | None:
    """The method of a pretraining run's folder on the network's device, random where the network is; or None."""
    folder, trained = Path(model.name.removesuffix(RANDOM)), not model.name.endswith(RANDOM)
    if "method" not in recorded_recipe(folder):
        return None
    method = method_with_heads(folder, trained=trained, seed=seed)
    return None if method is None else method.to(model.device)


def save(
    options: MapOptions,
    models: Sequence[EvaluatedModel],
    images: Images,
    table: str,
    *,
    protocol: str,
    numbers: Mapping[str, Number],
    more: Mapping[str, Any],
) -> None:
    """Write the table and the numbers into the folder."""
    options.out.mkdir(parents=True, exist_ok=True)
    write_file(options.out / "table.md", table.encode())
    results = results_of(
        protocol=protocol,
        model=", ".join(model.name for model in models),
        weights_sha256=", ".join(model.weights_sha256 for model in models),
        data=images,
        sources=(options.data, ""),
        numbers=numbers,
        settings=options.settings,
        seed=options.seed,
        device=models[0].device,
        precision="fp32",
        more=more,
    )
    write_results(options.out, results)
