"""Measure maps by where the objects are: python training/localise.py MODEL ... --data photos.parquet --out FOLDER

Grad-CAM, feature norm, principal component and, for a run's folder, alignment maps, beside a uniform map and one that
knows the centre alone. MODEL is a registered name, hf-hub:org/name, or the folder of a run.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.results import results_of, write_results
from ssl_backbones.typed.arguments import Parser, at_least
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
    """What is asked for on the command line."""

    models: tuple[str, ...]
    data: str
    out: Path
    size: int
    layer: str | None
    random: bool
    control: bool
    tolerance: float
    curves: int
    steps: int
    batch_size: int
    seed: int
    overwrite: bool


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


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options of a command line. What cannot be read ends the process: one sentence, exit code 2."""
    parser = Parser("localise.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help="a registered name, hf-hub:org/name, or the folder of a run")
    add("--data", required=True, help="parquet files of photos with a column of objects, and masks if there are any")
    add("--out", required=True, type=Path, help="a folder for table.md and results.json")
    add("--size", type=at_least(8), default=224, help="side of the square that is looked at, in pixels (224)")
    add("--layer", help="a layer as timm names it, for the maps that are made of one (the last)")
    add("--random", action="store_true", help="random weights instead of the models'")
    add("--control", action="store_true", help="beside the models, the first one's network with random weights")
    add("--tolerance", type=share, default=0.03, help="of the pointing game, as a share of the side (0.03)")
    add("--curves", type=at_least(0), default=48, help="photos for deletion and insertion; 0 for neither (48)")
    add("--steps", type=at_least(1), default=10, help="of deletion and insertion (10)")
    add("--batch_size", type=at_least(1), default=16, help="photos looked at together (16)")
    add("--seed", type=at_least(0), default=0, help="of random weights, and of the order of equal pixels (0)")
    add("--overwrite", action="store_true", help="replace results that are there")
    chosen: dict[str, Any] = vars(parser.parse_args(argv))
    return Options(**chosen | {"models": tuple(chosen["models"])})


def share(word: str) -> float:
    """What reads a share in [0, 1]."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no share from 0 to 1")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; what is refused ends in one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = parse(argv)
    try:
        found = localise(options)
    except (Refusal, OSError) as error:
        print(f"localise.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(table(found))


if __name__ == "__main__":
    main()
