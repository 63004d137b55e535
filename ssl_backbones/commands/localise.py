"""Measure where maps look: how they meet the objects that people marked in images.

Examples:
    ssl-backbones localise runs/mine resnet50_swav.in1k_800ep --data voc.parquet --out results/where --control

Grad-CAM, feature norm, principal component and, for a run's folder, alignment maps, beside a uniform map and one that
knows the centre alone. MODEL is a registered name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.evaluate.annotated import Annotated, open_annotated
from ssl_backbones.evaluate.localised import CENTRE, UNIFORM, Row, centre_of, table
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.files import write_file
from ssl_backbones.methods import method_from_run
from ssl_backbones.metrics import (
    centre_prior,
    deletion_auc,
    energy_inside,
    insertion_auc,
    pointing_game,
)
from ssl_backbones.runs.results import results_of, write_results
from ssl_backbones.typed.words import Positional
from ssl_backbones.views.normalise import normalise
from ssl_backbones.visualizers import alignment_maps, feature_norm, grad_cam, principal_component
from ssl_backbones.visualizers.alignment import HasAlignmentMaps
from ssl_backbones.visualizers.inspection import enlarged, find_layer, network_of

MAPS: dict[str, Callable[..., Tensor]] = {
    "grad_cam": grad_cam,
    "norm": feature_norm,
    "principal": principal_component,
}
"""Each from a network, images and a layer to (B, H, W)."""


@dataclass(frozen=True)
class Options:
    """The models, the images, and how their maps are measured."""

    models: Positional[tuple[str, ...]]
    """Registered names, hf-hub:org/name, or folders of runs."""
    data: str
    """Parquet files of images with a column of objects, and masks if there are any."""
    out: Path
    """The folder for table.md and results.json."""
    size: int = 224
    """Side of the square of an image that is seen, in pixels."""
    layer: str | None = None
    """A layer as timm names it, for the maps that are made of one; None for the last."""
    random: bool = False
    """Random weights instead of the models'."""
    control: bool = False
    """Beside the models, the first one's network with random weights."""
    tolerance: float = 0.03
    """Of the pointing game, as a share of the side."""
    curves: int = 48
    """Images for deletion and insertion; 0 for neither."""
    steps: int = 10
    """Of deletion and insertion."""
    batch_size: int = 16
    """Images at a time."""
    seed: int = 0
    """Of random weights, and of the order of equal pixels."""
    overwrite: bool = False
    """Replace results that are there."""

    def __post_init__(self) -> None:
        check(bool(self.models), "models", self.models, "at least one")
        check_at_least(self, size=8, curves=0, steps=1, batch_size=1, seed=0)
        check(0 <= self.tolerance <= 1, "tolerance", self.tolerance, "a share from 0 to 1")


def run(options: Options) -> None:
    """Print what every map is worth, in a table."""
    print(table(localise(options)))


def localise(options: Options) -> list[Row]:
    """Every map of every network measured, the baselines first; left in the folder as a table and as results.json."""
    if (options.out / "results.json").exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} holds results: name another folder with --out, or pass --overwrite")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subjects = [opened(model, options, device) for model in options.models]
    if options.control:
        subjects += [opened(model, replace(options, random=True), device) for model in options.models[:1]]
    photos = open_annotated(options.data, options.size)
    for subject in subjects:
        find_layer(network_of(subject.network), options.layer)  # refuses, before the work, one that is not there
    found: list[Row] = []
    for subject in subjects:
        for row in rows_of(subject, photos, options):
            print(f"measured on {len(photos.levels)} photos: {row.model}, {row.map}", file=sys.stderr, flush=True)
            found.append(row)
    write(found, subjects, photos, options, device)
    return found


def opened(model: str, options: Options, device: torch.device) -> EvaluatedModel:
    """The network of a name, called random where its weights are."""
    subject = open_model(model, device, size=options.size, random=options.random, seed=options.seed)
    return replace(subject, name=f"{model} (random weights)") if options.random else subject


def rows_of(subject: EvaluatedModel, photos: Annotated, options: Options) -> Iterator[Row]:
    """What the baselines and every map of a network are worth."""
    images = normalise(photos.levels, subject.crop.mean, subject.crop.std)
    count, side = len(images), options.size
    yield measured(subject, UNIFORM, torch.ones(count, side, side), images, photos, options)
    yield measured(subject, CENTRE, centre_prior(side, side).expand(count, -1, -1), images, photos, options)
    for name, make in MAPS.items():
        maps = batched(partial(make, subject.network, layer=options.layer), images, options)
        yield measured(subject, name, maps, images, photos, options)
    yield from alignment_rows(subject, images, photos, options)


def alignment_rows(subject: EvaluatedModel, images: Tensor, photos: Annotated, options: Options) -> Iterator[Row]:
    """The alignment maps of a run's method, if it has any: what one of them is worth on average, and a chosen one."""
    model = subject.name.removesuffix(" (random weights)")
    if not (Path(model) / "recipe.json").is_file():
        return
    torch.manual_seed(options.seed)
    method = method_from_run(model, trained=not options.random and model == subject.name)
    if not isinstance(method, HasAlignmentMaps):
        return
    coarse = batched(lambda part: alignment_maps(method, part), images, options)
    several = [where(enlarged(maps, images.shape[-2:]), photos, options, at) for at, maps in enumerate(coarse)]
    every = {name: torch.stack([one[name] for one in several]) for name in several[0]}  # (N, n)
    yield Row(subject.name, "alignment, average map", {name: values.mean(1) for name, values in every.items()})
    chosen = chosen_on_the_others(every["energy"])
    maps = enlarged(coarse[torch.arange(len(coarse)), chosen], images.shape[-2:])
    yield measured(subject, "alignment, chosen map", maps, images, photos, options)


def chosen_on_the_others(energy: Tensor) -> Tensor:
    """Which map (N,) to take for each photo: the best (N, n) by energy on the other half, even rows against odd."""
    best = [energy[1 - parity :: 2].nanmean(0).argmax() for parity in (0, 1)]
    return torch.stack([best[row % 2] for row in range(len(energy))])


def measured(
    subject: EvaluatedModel, name: str, maps: Tensor, images: Tensor, photos: Annotated, options: Options
) -> Row:
    """All measures of one map (N, S, S) for each photo."""
    values = where(maps, photos, options)
    if options.curves:
        some = slice(0, options.curves)
        settings = {"steps": options.steps, "seed": options.seed}
        score = kept(subject.network, images[some], options)
        values["deletion"] = deletion_auc(score, images[some], maps[some], **settings)
        values["insertion"] = insertion_auc(score, images[some], maps[some], **settings)
    return Row(subject.name, name, values)


def where(maps: Tensor, photos: Annotated, options: Options, at: int | None = None) -> dict[str, Tensor]:
    """How maps (N, S, S) meet the objects of the photos; with `at`, they are all of that one photo.

    For the energy each map is drawn down to 0 at its lowest, as in an overlay; a constant one stays.
    """
    boxes, objects = (
        known if at is None else known[at].expand(len(maps), -1, -1) for known in (photos.boxes, photos.objects)
    )
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    drawn = torch.where(high > low, maps - low, maps)
    return {
        "pointing": pointing_game(maps, boxes, options.tolerance * options.size),
        "energy": energy_inside(drawn, objects),
    }


def kept(network: nn.Module, images: Tensor, options: Options) -> Callable[[Tensor], Tensor]:
    """How much of the whole photos' embeddings altered ones keep: the cosine (B,) to them."""
    network.eval()
    whole = batched(network, images, options)
    return lambda altered: torch.cosine_similarity(batched(network, altered, options), whole)


@torch.no_grad()
def batched(ask: Callable[[Tensor], Tensor], images: Tensor, options: Options) -> Tensor:
    """The answer for all images on the CPU, asked for some at a time."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.cat([ask(part.to(device)).float().cpu() for part in images.split(options.batch_size)])


def write(
    found: Sequence[Row], subjects: Sequence[EvaluatedModel], photos: Annotated, options: Options, device: torch.device
) -> None:
    """Leave the table and the numbers in the folder."""
    options.out.mkdir(parents=True, exist_ok=True)
    write_file(options.out / "table.md", table(found).encode())
    settings = asdict(options)
    for name in ("models", "data", "out", "seed", "overwrite"):
        del settings[name]
    numbers = {
        f"{row.model}, {row.map}, {measure}": asdict(interval)
        for row in found
        for measure in row.values
        if (interval := row.interval(measure))
    }
    over = {
        f"{row.model}, {row.map}, {measure}": asdict(row.over(centre_of(found, row), measure))
        for row in found
        if row.map != CENTRE
        for measure in ("pointing", "energy")
    }
    write_results(
        options.out,
        results_of(
            protocol="localisation",
            model=", ".join(subject.name for subject in subjects),
            weights_sha256=", ".join(subject.weights_sha256 for subject in subjects),
            data=photos.images,
            sources=(options.data, ""),
            numbers=numbers,
            settings=settings,
            seed=options.seed,
            device=device,
            precision="fp32",
            more={"over_centre_prior": over, "objects_area": photos.objects.double().mean().item()},
        ),
    )
