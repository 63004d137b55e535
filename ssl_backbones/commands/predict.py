"""Classify images: write the likeliest class of each image and its probability into one file.

Examples:
    ssl-backbones predict results/finetune/classifier --data images --out predictions.parquet
    ssl-backbones predict resnet18.a1_in1k --data images --out predictions.csv

The file has the columns key, class and probability. MODEL is the folder `classifier` that `evaluate finetune
--task.hidden 0` and `evaluate linear` leave, or any classifier of timm's; a class without a name is told by its number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ssl_backbones.checks import few
from ssl_backbones.data import open_images, opened_once
from ssl_backbones.distributed import first_decides, rank, say
from ssl_backbones.evaluate.classification.prediction import open_classifier
from ssl_backbones.evaluate.image_table import (
    TableOptions,
    keys_of,
    left_out,
    note_of,
    rows_of,
    write_csv,
    write_parquet,
)
from ssl_backbones.train.processes import meet
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True, kw_only=True)
class Options(TableOptions):
    """The classifier, the images, and the file for their classes."""

    model: Positional[str]
    """The folder `classifier` that a run left, or that run's own, a name of timm's, or hf-hub:org/name."""
    out: Path
    """The file to write, such as predictions.parquet or predictions.csv."""
    forms = (".parquet", ".csv")

    @property
    def files(self) -> list[Path]:
        """The file that is written."""
        return [self.out]


def run(options: Options) -> None:
    """Classify, and say where the classes are and how many images each has."""
    device = meet()
    first_decides(options.check_files)
    images = opened_once(lambda: open_images(options.data, options.decoding), options.verify)
    model, names = open_classifier(options.model, device, size=options.size or None, channels=options.decoding.seen)
    found = rows_of(model, images, options)
    if rank() == 0:
        keys, (numbers, probabilities) = keys_of(images, found), found.rows.T
        classes = [names.get(number, str(number)) for number in numbers.long().tolist()]
        if options.out.suffix == ".parquet":
            columns = {"key": pa.array(keys, pa.string()), "class": pa.array(classes, pa.string())}
            columns |= {"probability": pa.array(probabilities.numpy(), pa.float32())}
            write_parquet(options.out, columns, note_of(model, images, options))
        else:
            shares = [f"{probability:.6f}" for probability in probabilities.tolist()]
            write_csv(options.out, {"key": keys, "class": classes, "probability": shares})
        most = [f"{count} {name}" for name, count in Counter(classes).most_common()]
        say(
            f"{options.out} holds the class of each of {len(keys)} images ({few(most, 5)}){left_out(images, len(keys))}"
        )
