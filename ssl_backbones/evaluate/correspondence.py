"""Alignments side by side: what DenseCL's correspondences, PixPro's and LEWEL's maps of one view find in another.

All are asked the same of the same pairs of views of images with masks: does what lies on an object in the first view
lead to the same object in the second, and how much more often than a choice at random? What a mask does not tell apart
is one object: of masks of classes, all there is of a class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.decode import DecodePolicy
from ssl_backbones.evaluate.alignments import Aligned, grid_of, mapped, matched, mixed, nearest
from ssl_backbones.evaluate.maps import MapOptions, method_of, opened_models, save
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.evaluate.scene_pairs import ScenePairs, pairs_of
from ssl_backbones.evaluate.segmentation.masks import open_scenes
from ssl_backbones.metrics import Interval, mean_interval, on_same_object, paired_difference
from ssl_backbones.models.backbone import feature_map
from ssl_backbones.outputs import check_results_folder
from ssl_backbones.runs.results import Number, spelled
from ssl_backbones.train.prepare import fitting
from ssl_backbones.visualizers.alignment import HasAlignmentMaps
from ssl_backbones.visualizers.correspondence import HasPixelEmbeddings, Shown, correspondence_figure
from ssl_backbones.visualizers.figures import save_image

PLACE = "nearest place (crops known)"


@dataclass(frozen=True)
class Options(MapOptions):
    """The models, the images with masks, and how pairs of views are drawn of them."""

    data: str
    """Images with masks: a folder in Pascal VOC's layout, or parquet files with a column of masks."""
    out: Path
    """The folder for table.md, results.json and pairs.png."""
    mask_column: str = "mask"
    """Column of parquet files that holds the masks."""
    lists: tuple[str, ...] = ("val",)
    """Lists in a VOC folder's ImageSets/Segmentation that name the images."""
    area: tuple[float, float] = (0.2, 1.0)
    """A view's share of the image, drawn uniformly."""
    shown: int = 4
    """Images in the figure, the first with an object in both views; 0 for no figure."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, shown=0)
        check(0 < self.area[0] <= self.area[1] <= 1, "area", self.area, "0 < smallest <= largest <= 1")


@dataclass(frozen=True)
class Row:
    """The measures of one kind of alignment by one network."""

    model: str
    kind: str
    found: Tensor
    """(N,) share on the same object, NaN for an image without an object in both views."""
    chance: Tensor
    """(N,) that share with positions of the second view chosen at random."""

    @property
    def name(self) -> str:
        """Network and kind, as results.json names them."""
        return f"{self.model}, {self.kind}"

    @property
    def gain(self) -> Interval:
        """The share above that of chance, image by image."""
        return paired_difference(self.chance, self.found)


def correspond(options: Options) -> list[Row]:
    """Measure every alignment of every network on the same pairs, and write table, numbers and figure; the rows.

    Raises OutputError where the folder holds results, ImageSourceError where fewer than two images show an object
    in both views, and whatever opening a model or the images raises.
    """
    check_results_folder(options.out, ("table.md", "pairs.png"), options.overwrite)
    models = opened_models(options)
    policy = DecodePolicy(options.max_pixels)
    scenes = open_scenes(options.data, options.mask_column, options.lists, policy, options.annotations_frame)
    pairs = pairs_of(scenes, options.size, options.area, options.seed)
    if (count := len(pairs.with_objects())) < 2:
        raise ImageSourceError(
            f"{count} of {len(scenes)} images in {options.data!r} show an object in both views, but it takes two: give "
            "more images, or larger crops with --area"
        )
    for model in models:
        with fitting():  # refuses, before the work, a network without feature maps
            feature_map(model.network, torch.zeros(1, 3, options.size, options.size, device=model.device))
    found: list[Row] = []
    shown: list[Shown] = []
    for model in models:
        examples = pairs.with_objects()[: options.shown]
        measurement = Measurement(model, pairs, options, examples, with_place=model is models[0])
        for kind in measurement.kinds():
            row, example = measurement.row(kind)
            print(f"measured on {len(scenes)} images: {row.name}", file=sys.stderr, flush=True)
            found.append(row)
            shown.append(example)
    if options.shown:
        draw(pairs, shown, options)
    more = {"images_with_an_object_in_both_views": count}
    save(options, models, scenes, table(found), protocol="correspondence", numbers=numbers_of(found), more=more)
    return found


def middle_of_largest(shares: Tensor) -> int:
    """The place of the largest of shares (N,); of several, the middle one."""
    largest = (shares == shares.max()).nonzero()[:, 0]
    return int(largest[len(largest) // 2])


@dataclass(frozen=True)
class Kind:
    """One way to align two views: what is made of each, and what is made of both."""

    name: str
    of_view: Callable[[Tensor], Tensor]
    """Maps (B, C, h, w) of normalised views (B, 3, S, S)."""
    align: Callable[[Tensor, Tensor, Tensor], Aligned]


@dataclass(frozen=True)
class Measurement:
    """A network, and the pairs of views that its alignments are measured on."""

    model: EvaluatedModel
    pairs: ScenePairs
    options: Options
    examples: Sequence[int]
    """Images for the figure."""
    with_place: bool
    """Measure the nearest place too, which is the same for all networks with maps of one size."""

    def kinds(self) -> Iterator[Kind]:
        """The ways of the backbone, and those of a run's method that has maps or embeddings of positions."""
        features = partial(feature_map, self.model.network)
        if self.with_place:
            yield Kind(PLACE, features, nearest)
        yield Kind("DenseCL's correspondence of features", features, matched)
        yield Kind("PixPro's map of features", features, mixed)
        method = method_of(self.model, self.options.seed)
        if isinstance(method, HasPixelEmbeddings):
            yield Kind("PixPro's map of its own embeddings", method.pixel_embeddings, mixed)
        if isinstance(method, HasAlignmentMaps):
            yield Kind("LEWEL's alignment maps", method.alignment_maps, mapped)

    @torch.no_grad()
    def row(self, kind: Kind) -> tuple[Row, Shown]:
        """The shares of all images, and the alignments of those in the figure."""
        found, chance = [], []
        shown: dict[int, tuple[Tensor, Tensor]] = {}
        for start in range(0, len(self.pairs), self.options.batch_size):
            rows = slice(start, start + self.options.batch_size)
            views = self.pairs.normalised(rows, self.model.crop.mean, self.model.crop.std)
            one, two = (kind.of_view(view.to(self.model.device)).float().cpu() for view in views)
            first, second = kind.align(one, two, self.pairs.corners[:, rows])
            objects, other = self.pairs.objects(rows, grid_of(one))
            found.append(on_same_object(first, second, objects, other))
            anywhere = torch.full((len(second), 1, second.shape[2]), 1 / second.shape[2])
            chance.append(on_same_object(first, anywhere, objects, other))
            for at in range(start, start + len(one)):
                if at in self.examples:
                    best = middle_of_largest((first[at - start] @ objects[at - start].mT).amax(1))
                    pair = (weights[at - start, best].view(grid_of(one)) for weights in (first, second))
                    shown[at] = next(pair), next(pair)
        row = Row(self.model.name, kind.name, torch.cat(found), torch.cat(chance))
        return row, Shown(row.name, shown)


def draw(pairs: ScenePairs, shown: Sequence[Shown], options: Options) -> None:
    """Save the figure of the first images with an object in both views."""
    pictures = {at: pairs.pictures(at) for at in pairs.with_objects()[: options.shown]}
    options.out.mkdir(parents=True, exist_ok=True)
    save_image(correspondence_figure(pictures, shown), options.out / "pairs.png")


def numbers_of(found: Sequence[Row]) -> dict[str, Number]:
    """The share of each alignment on the same object, and its gain over chance, as results.json has them."""
    chance = {f"{row.name}, above chance": row.gain for row in found}
    intervals = {row.name: mean_interval(row.found) for row in found} | chance
    return {name: asdict(interval) for name, interval in intervals.items()}


def table(found: Sequence[Row]) -> str:
    """The numbers in Markdown; the first column numbers the alignments as the figure does."""
    lines = ["| | network | alignment | on the same object | at random | above random |", "|--:|---|---|--:|--:|--:|"]
    for number, row in enumerate(found, 1):
        mean, chance = spelled(asdict(mean_interval(row.found)), ".3f"), mean_interval(row.chance).value
        gain = spelled(asdict(row.gain), "+.3f")
        lines.append(f"| {number} | {row.model} | {row.kind} | {mean} | {chance:.3f} | {gain} |")
    images = found[0].found
    told = f"Over {int((~images.isnan()).sum())} of {len(images)} images: those with an object in both views."
    return "\n".join([*lines, "", told]) + "\n"
