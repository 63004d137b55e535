"""Recipes that are too long to be run here, cut to their first steps on real images; a line of each run's folder.

    ssl-backbones pretrain resnet8_swav.goods128_100ep --data goods_128 --max_steps 20 --out runs/swav
    python benchmarks/first_steps.py runs/*

A run is cut by its own option, and all else is as the recipe says: views, heads, loss, schedule of the whole length,
measurements, checkpoints, and everything that is left at the end. That a recipe runs is all that this can show.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ssl_backbones.files import write_json

OUT = Path(__file__).parent / "results" / "first_steps.json"
LEFT = ("README.md", "backbone", "checkpoints", "gallery.html", "log.jsonl", "recipe.json", "results.json")


def lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def row(folder: Path) -> dict[str, Any]:
    """The row of a finished run, from its folder."""
    lacking = [name for name in LEFT if not (folder / name).exists()]
    if lacking:
        raise SystemExit(f"{folder} lacks {', '.join(lacking)}: is the run finished?")
    results = json.loads((folder / "results.json").read_text())
    steps = [line for line in lines(folder / "log.jsonl") if "loss" in line]
    return {
        "recipe": results["recipe"],
        "altered": {name: given for name, (_, given) in results["altered"].items() if name not in ("data", "out")},
        "images": results["data"]["images"],
        "fingerprint": results["data"]["fingerprint"],
        "steps": steps[-1]["step"],
        "seconds": round(lines(folder / "speed.jsonl")[-1]["seconds"], 1),
        "loss": [round(line["loss"], 3) for line in steps],
        "chance": round(steps[-1]["chance"], 3) if "chance" in steps[-1] else None,
        "compute": results["compute"],
        "versions": results["versions"],
        "date": results["date"],
    }


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of finished runs")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    options = parser.parse_args()
    write_json(options.out, {"runs": sorted(map(row, options.folders), key=lambda found: found["recipe"])})
    return 0


if __name__ == "__main__":
    sys.exit(main())
