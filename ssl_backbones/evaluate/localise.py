"""Localisation by maps: Grad-CAM, feature norm, principal component and alignment maps against annotated objects.

Beside them stand a uniform map and the centre prior, which know nothing of the image.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.evaluate.detection.open_annotated import open_annotated
from ssl_backbones.evaluate.detection.squares import Squares, squares_of
from ssl_backbones.evaluate.maps import MapOptions, method_of, opened_models, save
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.metrics import (
    Interval,
    centre_prior,
    deletion_auc,
    energy_inside,
    insertion_auc,
    mean_interval,
    paired_difference,
    pointing_game,
)
from ssl_backbones.outputs import check_results_folder
from ssl_backbones.runs.results import Number, spelled
from ssl_backbones.views.normalise import normalise
from ssl_backbones.visualizers import alignment_maps, feature_norm, grad_cam, principal_component
from ssl_backbones.visualizers.alignment import HasAlignmentMaps
from ssl_backbones.visualizers.inspection import enlarged, find_layer, network_of

MAPS: dict[str, Callable[..., Tensor]] = {
    "grad_cam": grad_cam,
    "norm": feature_norm,
    "principal": principal_component,
}
"""Each from a network, images (B, 3, S, S) and a layer to (B, S, S)."""
CENTRE, UNIFORM = "centre prior", "uniform"
"""The maps that know nothing of the image."""
COMPARED = ("pointing", "energy")
"""The measures by which a map is held against the centre prior."""


@dataclass(frozen=True)
class Options(MapOptions):
    """The models, the images, and how their maps are measured."""

    data: str
    """Annotated images: a VOC folder, a COCO folder, or parquet files with a column of objects."""
    layer: str | None = None
    """Layer that maps are made of, by timm's name. Default: the last."""
    tolerance: float = 0.03
    """Tolerance of the pointing game, as a share of the image's side."""
    curves: int = 48
    """Images for the deletion and insertion curves; 0 for none."""
    steps: int = 10
    """Steps of the deletion and insertion curves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, curves=0, steps=1)
        check(self.curves != 1, "curves", self.curves, "0, or 2 images at least")
        check(0 <= self.tolerance <= 1, "tolerance", self.tolerance, "a share from 0 to 1")


@dataclass(frozen=True)
class Row:
    """The measures of one map of one network."""

    model: str
    map: str
    values: dict[str, Tensor]
    """Name of a measure to its values (N,) for each image, NaN where it does not apply."""

    @property
    def name(self) -> str:
        """Network and map, as results.json names them."""
        return f"{self.model}, {self.map}"

    def interval(self, measure: str) -> Interval | None:
        """The mean over images with its interval; None where it was not measured."""
        return mean_interval(self.values[measure]) if measure in self.values else None

    def over(self, other: Row, measure: str) -> Interval:
        """The difference to another map's measure, image by image."""
        return paired_difference(other.values[measure], self.values[measure])


def localise(options: Options) -> list[Row]:
    """Measure every map of every network, the baselines first, and write table.md and results.json; the rows.

    Raises OutputError where the folder holds results, LayerError for a layer that is not there, and whatever
    opening a model or the images raises.
    """
    check_results_folder(options.out, ("table.md",), options.overwrite)
    models = opened_models(options)
    annotated = open_annotated(options.data, column="any", frame=options.annotations_frame)
    annotated.decode_by(DecodePolicy(options.max_pixels))
    squares = squares_of(annotated, options.size)
    if (count := int(squares.measurable.sum())) < 2:
        raise ImageSourceError(
            f"{count} of {len(annotated)} images in {options.data!r} can be measured on, but it takes two: give more "
            "with an object in the middle square"
        )
    for model in models:
        find_layer(network_of(model.network), options.layer)  # refuses, before the work, one that is not there
    found: list[Row] = []
    for model in models:
        for row in Measurement(model, squares, options).rows():
            print(f"measured on {count} images: {row.name}", file=sys.stderr, flush=True)
            found.append(row)
    area = squares.objects.double().mean().item()
    save(
        options,
        models,
        squares.images,
        table(found),
        protocol="localisation",
        numbers=numbers_of(found),
        more={"over_centre_prior": over_centre_prior(found), "objects_area": area},
    )
    return found


@dataclass(frozen=True)
class Measurement:
    """A network, and the images that its maps are measured on."""

    model: EvaluatedModel
    squares: Squares
    options: Options

    def rows(self) -> Iterator[Row]:
        """The measures of the baselines and of every map."""
        images = normalise(self.squares.levels, self.model.crop.mean, self.model.crop.std)
        side = self.options.size
        yield self.row(UNIFORM, torch.ones(len(images), side, side), images)
        yield self.row(CENTRE, centre_prior(side, side).expand(len(images), -1, -1), images)
        for name, make in MAPS.items():
            maps = self.batched(partial(make, self.model.network, layer=self.options.layer), images)
            yield self.row(name, maps, images)
        yield from self.alignment_rows(images)

    def alignment_rows(self, images: Tensor) -> Iterator[Row]:
        """The measures of a run's alignment maps, if it has any: the average over its maps, and a chosen one's."""
        method = method_of(self.model, self.options.seed)
        if not isinstance(method, HasAlignmentMaps):
            return
        coarse = self.batched(partial(alignment_maps, method), images)  # (N, n, h, w)
        several = [self.located(enlarged(maps, images.shape[-2:]), at) for at, maps in enumerate(coarse)]
        every = {measure: torch.stack([one[measure] for one in several]) for measure in several[0]}  # (N, n)
        yield Row(
            self.model.name, "alignment, average map", {measure: values.mean(1) for measure, values in every.items()}
        )
        chosen = chosen_on_the_others(every["energy"])
        maps = enlarged(coarse[torch.arange(len(coarse)), chosen], images.shape[-2:])
        yield self.row("alignment, chosen map", maps, images)

    def row(self, name: str, maps: Tensor, images: Tensor) -> Row:
        """All measures of maps (N, S, S) of images (N, 3, S, S)."""
        values = self.located(maps)
        if self.options.curves:
            images, maps = images[: self.options.curves], maps[: self.options.curves]
            how = {"steps": self.options.steps, "seed": self.options.seed}
            score = self.similarity_to(images)
            values["deletion"] = deletion_auc(score, images, maps, **how)
            values["insertion"] = insertion_auc(score, images, maps, **how)
        return Row(self.model.name, name, values)

    def located(self, maps: Tensor, at: int | None = None) -> dict[str, Tensor]:
        """Pointing game and energy (N,) of maps (N, S, S) of the images; with `at`, all of them are of that one.

        For the energy each map is drawn down to 0 at its lowest, as in an overlay; a constant one stays.
        """
        boxes, objects = (
            known if at is None else known[at].expand(len(maps), -1, -1)
            for known in (self.squares.boxes, self.squares.objects)
        )
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        drawn = torch.where(high > low, maps - low, maps)
        return {
            "pointing": pointing_game(maps, boxes, self.options.tolerance * self.options.size),
            "energy": energy_inside(drawn, objects),
        }

    def similarity_to(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The function from altered images (B, 3, S, S) to the cosine (B,) of their embeddings to the whole ones'."""
        network = self.model.network.eval()
        whole = self.batched(network, images)
        return lambda altered: torch.cosine_similarity(self.batched(network, altered), whole)

    @torch.no_grad()
    def batched(self, make: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The outcome for all images (N, 3, S, S), on the CPU, made for some at a time."""
        parts = torch.split(images, self.options.batch_size)
        return torch.cat([make(part.to(self.model.device)).float().cpu() for part in parts])


def chosen_on_the_others(energy: Tensor) -> Tensor:
    """The map (N,) to take for each image: the best (N, n) by energy on the other half, even rows against odd."""
    best = [energy[1 - parity :: 2].nanmean(0).argmax() for parity in (0, 1)]
    return torch.stack([best[row % 2] for row in range(len(energy))])


def numbers_of(found: Sequence[Row]) -> dict[str, Number]:
    """Every measure of every map that applies to some image, as results.json has them."""
    intervals = {f"{row.name}, {measure}": row.interval(measure) for row in found for measure in row.values}
    return {name: asdict(interval) for name, interval in intervals.items() if interval}


def over_centre_prior(found: Sequence[Row]) -> dict[str, Number]:
    """The difference of each other map to the centre prior of the same network, likewise."""
    return {
        f"{row.name}, {measure}": asdict(row.over(centre_of(found, row), measure))
        for row in found
        if row.map != CENTRE
        for measure in COMPARED
    }


def centre_of(found: Sequence[Row], row: Row) -> Row:
    """The centre prior's row of the same network."""
    return next(other for other in found if (other.model, other.map) == (row.model, CENTRE))


def table(found: Sequence[Row]) -> str:
    """The numbers in Markdown, and in words which maps are no better than the centre prior."""
    measures = [name for name in (*COMPARED, "deletion", "insertion") if name in found[0].values]
    lines = [
        "| network | map | " + " | ".join([*measures, *(f"{name} over centre" for name in COMPARED)]) + " |",
        "|---|---|" + "--:|" * (len(measures) + len(COMPARED)),
    ]
    for row in found:
        means = [row.interval(measure) for measure in measures]
        cells = ["-" if mean is None else spelled(asdict(mean), ".3f") for mean in means]
        gains = [row.over(centre_of(found, row), measure) for measure in COMPARED]
        cells += ["" if row.map == CENTRE else spelled(asdict(gain), "+.3f") for gain in gains]
        lines.append(f"| {row.model} | {row.map} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *verdicts(found)]) + "\n"


def verdicts(found: Sequence[Row]) -> Iterator[str]:
    """A sentence on each measure: the maps that do better than the centre prior beyond their intervals."""
    asked = [row for row in found if row.map not in (CENTRE, UNIFORM)]
    for measure in COMPARED:
        better = [row for row in asked if row.over(centre_of(found, row), measure).low > 0]
        named = "; ".join(f"{row.map} of {row.model}" for row in better)
        rest = len(asked) - len(better)
        yield (
            f"Better than the centre prior in {measure}: {named or 'none'}. The other {rest} of {len(asked)} are not "
            "shown to be. Each interval stands for itself: of forty maps that are no better, about one would be named."
        )
