"""The table and the figure of the records that equal_cost.py leaves: python benchmarks/equal_cost_table.py RECORDS

Accuracies are means over the seeds. The gain of a row over another is taken image by image and seed by seed, on the
same held-out images; its 95 % interval is over the images, of the mean over seeds (for one seed, Agresti and Min's).
What other seeds would give is not in it, so the gains of each seed stand beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from equal_cost_rows import DEEP, LARGE, RANDOM, RANDOM_DEEP, RANDOM_LARGE, ROWS, THEMSELVES
from timing import write

from ssl_backbones.metrics import paired_difference, paired_gain, student_interval
from ssl_backbones.visualizers.figures import new_figure, save_figure

Record = dict[str, Any]
SETS = ("imagenette", "goods")
NUMBERS = ("knn", "linear")
LABELS = (
    *(RANDOM, *(row.label for row in ROWS), *THEMSELVES.values()),
    *(RANDOM_DEEP, *(row.label for row in DEEP), RANDOM_LARGE, *(row.label for row in LARGE)),
)
BYOL, LEWEL_B, MOCO_V2, LEWEL_M = (row.label for row in LARGE)
LITE0, DINOV2 = (row.label for row in ROWS if row.label.startswith("Distilled"))
BYOL18 = "BYOL, ResNet-18"
PAIRS = (
    *((label, "BYOL") for label in (row.label for row in ROWS) if label != "BYOL"),
    *((label, LITE0) for label in LABELS if label.startswith("RoB") and label.endswith("Lite0")),
    *((label, DINOV2) for label in LABELS if label.startswith("RoB") and label.endswith("DINOv2")),
    *((row.label, BYOL18) for row in DEEP if row.label != BYOL18),
    ("LEWEL_B, begun as distilled, ResNet-18", "Distilled, Lite0, ResNet-18"),
    *((row.label, RANDOM_DEEP) for row in DEEP),
    *((row.label, RANDOM_LARGE) for row in LARGE),
    (LEWEL_B, BYOL),
    (LEWEL_M, MOCO_V2),
)
"""Rows, and those that they are held against."""
DOT, LINE = "#1b6ca8", "#c8d3dc"


def read(folder: Path) -> dict[tuple[str, str], list[Record]]:
    """The records of a folder by row and set, seed by seed."""
    found: dict[tuple[str, str], list[Record]] = {}
    records = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    for record in sorted(records, key=lambda record: int(record["seed"])):
        found.setdefault((record["row"], record["data"]), []).append(record)
    return found


def right(record: Record, number: str) -> np.ndarray:
    """The images (M,) bool that were named rightly in a run."""
    digits = np.frombuffer(bytes.fromhex(record[number]["right"]), np.uint8)
    return np.unpackbits(digits)[: record["of"]].astype(bool)


def gain(after: list[Record], before: list[Record], number: str) -> Record | None:
    """The gain over another row on the seeds that both have, with its interval; None where they share no seed.

    Of several seeds the half-width is that over the images of their mean and Student's over the seeds, in squares.
    """
    theirs = {record["seed"]: right(record, number) for record in before}
    pairs = [(right(record, number), theirs[record["seed"]]) for record in after if record["seed"] in theirs]
    if not pairs:
        return None
    by_seed = [float(mine.mean() - other.mean()) for mine, other in pairs]
    after_right, before_right = (torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))
    if len(pairs) == 1:
        one = paired_gain(before_right[0], after_right[0])
        return {"value": one.value, "low": one.low, "high": one.high, "by_seed": by_seed}
    images = paired_difference(before_right.double().mean(0), after_right.double().mean(0))
    seeds = student_interval(by_seed)
    reach = math.hypot(images.high - images.value, seeds.high - seeds.value)
    return {"value": images.value, "low": images.value - reach, "high": images.value + reach, "by_seed": by_seed}


def table(found: dict[tuple[str, str], list[Record]]) -> Record:
    """Every row with its accuracies and cost, and every gain."""
    rows, gains = [], []
    for data in SETS:
        for label in LABELS:
            if records := found.get((label, data)):
                rows.append(
                    {"row": label, "data": data, "seeds": [record["seed"] for record in records]} | cells(records)
                )
        for label, against in PAIRS:
            mine, theirs = found.get((label, data), []), found.get((against, data), [])
            both = {number: gain(mine, theirs, number) for number in NUMBERS}
            if both["knn"] is not None:
                gains.append({"row": label, "over": against, "data": data} | both)
    return {"rows": rows, "gains": gains}


def cells(records: list[Record]) -> Record:
    """Accuracies of a row, over seeds and by seed, and what its runs took where they were trained."""
    found: Record = {}
    for number in NUMBERS:
        values = [record[number]["accuracy"] for record in records]
        found[number] = {"mean": fmean(values), "by_seed": values}
    if "cpu_seconds" in records[0]:
        found["cpu_seconds"] = [record["cpu_seconds"]["whole"] for record in records]
        found["epochs"] = records[0]["epochs"]
    return found


def markdown(made: Record) -> str:
    """The table and the gains as a reader sees them, in % and in points; CPU seconds are those of the first seed."""
    lines = []
    for data in SETS:
        rows = [row for row in made["rows"] if row["data"] == data]
        if rows:
            lines += [f"{data}", "", "| | epochs | CPU s | k-NN | linear |", "|---|--:|--:|--:|--:|"]
        for row in rows:
            cost = f"{row['cpu_seconds'][0]:.0f}" if "cpu_seconds" in row else ""
            told = " | ".join(f"{100 * row[number]['mean']:.1f}" for number in NUMBERS)
            lines.append(f"| {row['row']} | {row.get('epochs', '')} | {cost} | {told} |")
        lines += ["", "| gain in points | over | k-NN | linear |", "|---|---|--:|--:|"]
        for one in made["gains"]:
            if one["data"] == data:
                told = " | ".join(points(one[number]) for number in NUMBERS)
                lines.append(f"| {one['row']} | {one['over']} | {told} |")
        lines.append("")
    return "\n".join(lines)


def points(one: Record) -> str:
    """A gain with its interval, in points, and where there are several seeds those of each."""
    told = f"{100 * one['value']:+.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
    each = ", ".join(f"{100 * gained:+.1f}" for gained in one["by_seed"])
    return f"{told} ({each})" if len(one["by_seed"]) > 1 else told


def draw(made: Record, path: Path) -> None:
    """Draw every row's accuracies, a small dot for each seed and a large one for their mean, in panels."""
    labels = [label for label in LABELS if any(row["row"] == label for row in made["rows"])]
    figure = new_figure(width=11, height=1.2 + 0.3 * len(labels))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(SETS) * len(NUMBERS), sharey=True, squeeze=False)[0]
    places = [(data, number) for data in SETS for number in NUMBERS]
    for panel, (data, number) in zip(panels, places, strict=True):
        for height, label in enumerate(labels):
            panel.axhline(height, color=LINE, linewidth=0.6, zorder=0)
            for row in made["rows"]:
                if (row["row"], row["data"]) == (label, data):
                    values = [100 * value for value in row[number]["by_seed"]]
                    panel.plot(values, [height] * len(values), "o", color=DOT, markersize=3, alpha=0.5)
                    panel.plot(100 * row[number]["mean"], height, "o", color=DOT, markersize=6)
        panel.set_title(f"{data}, {'k-NN' if number == 'knn' else number}, %", fontsize=9)
        panel.set_yticks(range(len(labels)), labels)
        panel.tick_params(labelsize=8, length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)
    save_figure(figure, path, dpi=160)


def main() -> int:
    """Make the table, the figure and the words of all records that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, help="the folder of records")
    out = Path(__file__).parent / "results" / "equal_cost.json"
    parser.add_argument("--out", type=Path, default=out, help="the file to write; the figure lies beside it")
    options = parser.parse_args()
    found = read(options.records)
    if not found:
        print(f"{options.records} holds no record: run equal_cost.py first", file=sys.stderr)
        return 1
    first = next(iter(found.values()))[0]
    about = {name: first[name] for name in ("cores", "threads", "python", "versions")}
    about["hardware"] = " and ".join(sorted({record["hardware"] for records in found.values() for record in records}))
    about["precisions"] = sorted({record["precision"] for records in found.values() for record in records})
    about["budgets"] = sorted({record["budget"] for records in found.values() for record in records})
    about["dates"] = sorted({record["date"] for records in found.values() for record in records})
    made = about | table(found)
    write(made, options.out)
    draw(made, options.out.with_suffix(".png"))
    print(markdown(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
