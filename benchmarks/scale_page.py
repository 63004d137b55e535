"""The tables of docs/scale.md, reckoned from results files: python benchmarks/scale_page.py

Every row says what it is from: measured or counted, and in which file, or reckoned, and from what.
"""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
IMAGES, GPUS, BATCH = 100_000_000, 64, 4096
"""Images of the run that is reckoned with, its processes, and its batch."""
SHARE = BATCH // GPUS
KILOBYTES = 110
"""Bytes of an image: ImageNet's 138 GB over its 1,281,167."""
RING = 2 * (GPUS - 1) / GPUS
"""Bytes that a process receives of an all-reduce in a ring, for each byte that it hands in."""
TESTED = 50_000
"""Queries and bank of the k-NN while training, at most."""
Row = tuple[str, ...]


def results(name: str) -> Any:
    """The content of a results file."""
    return json.loads((RESULTS / name).read_bytes())


def label(recipe: str) -> str:
    """A method as a table names it."""
    return f"`{recipe.partition('.')[0].removeprefix('resnet50_')}`"


def step_rows() -> list[Row]:
    """A step: what is read, decoded and sent, in all and for a GPU."""
    found = results("scale.json")
    decode, views = (found["image"][name]["median"] for name in ("decode_ms", "views_ms"))
    seconds, sent = (decode + views) / 1e3, 2 * 3 * 224**2 / 1e6
    made = (
        f"measured: {decode} + {views} ms on one thread for 500 x 375 px, {found['image']['kb']:.0f} kB (`scale.json`)"
    )
    rows: list[Row] = [
        ("images", f"{BATCH:,}", f"{SHARE}", "set"),
        (
            "bytes read, MB",
            f"{BATCH * KILOBYTES / 1e3:.0f}",
            f"{SHARE * KILOBYTES / 1e3:.1f}",
            "reckoned: 110 kB an image",
        ),
        ("decoding and two views, CPU s", f"{BATCH * seconds:.0f}", f"{SHARE * seconds:.2f}", made),
        ("views to the device, MB", f"{BATCH * sent:.0f}", f"{SHARE * sent:.0f}", "reckoned: uint8, 2 x 3 x 224 x 224"),
    ]
    for name, net in found["networks"].items():
        mb = net["gradients"] / 1e6
        origin = f"counted: {mb:.0f} MB in fp32 (`scale.json`), x {RING:.2f} in a ring"
        rows.append((f"gradients of {label(name)}, MB", f"{GPUS * RING * mb:,.0f}", f"{RING * mb:.0f}", origin))
    for method, what in (("moco_v2", "gathered keys, order"), ("simsiam", "synchronised BatchNorm")):
        measured = results("collectives.json")["measured"]
        calls = next(one for one in measured if one["method"] == method)["gpus"][str(GPUS)]
        origin = "counted: ResNet-18, 64 px, 16 images a process, for 64 processes (`collectives.json`)"
        told = f"{calls['megabytes']:.1f} in {calls['calls']} calls"
        rows.append((f"{what} of `{method}`, MB", f"{GPUS * calls['megabytes']:.0f}", told, origin))
    return rows


def kept_rows() -> list[Row]:
    """Memory that stays, of a process or a GPU."""
    found = results("scale.json")
    parts, order = found["index_bytes_per_image"], found["order"]["kept_bytes_per_image"]
    index, listed = sum(parts.values()), ", ".join(f"{name} {count:g}" for name, count in parts.items())
    rows: list[Row] = [
        ("index of tar shards", f"{index * IMAGES / 1e9:.1f} GB", f"counted: {index:.0f} B an image ({listed})"),
        ("order of an epoch", f"{order * IMAGES / 1e9:.1f} GB", f"counted: {order:.0f} B an image (`scale.json`)"),
    ]
    memory = {one["recipe"]: one["kept"] for one in results("activation_memory.json")["counted"]}
    for name in found["networks"]:
        activations, state = memory[name]["gb_per_256_images"] * SHARE / 256, memory[name]["gb_of_state"]
        what = f"on a GPU, {label(name)}, {SHARE} images at once"
        rows.append((what, f"{activations:.1f} + {state} GB", "counted: activations, state (`activation_memory.json`)"))
    return rows


def rare_rows() -> list[Row]:
    """Costs that come once an epoch, a measurement or a checkpoint."""
    found = results("scale.json")
    order, line = found["order"], found["log_line_bytes"]
    grown = IMAGES / order["images"] * log(IMAGES) / log(order["images"])
    steps, test = IMAGES // BATCH, 2 * TESTED**2 * 2048 / 1e12
    shards, folder = order["shards_cpu_s"], order["folder_cpu_s"]
    case = next(one for one in results("neighbours.json")["measured"] if one["case"] == "k-NN, 1M x 128")
    rate = 2 * case["features"] * case["others"] * case["width"] / case["torch"]["cpu_s"]["median"] / 1e9
    hours = 2 * TESTED * 1e6 * 2048 / 1e9 / rate / 3600
    grow = f"for {order['images']:,} (`scale.json`), grown as N log N"
    rows: list[Row] = [
        ("order of an epoch over shards", f"{shards * grown:.0f} CPU s", f"measured: {shards} CPU s {grow}"),
        ("the same over a folder", f"{folder * grown:.0f} CPU s", f"measured: {folder} CPU s {grow}"),
        ("steps of an epoch", f"{steps:,}", "reckoned"),
        ("log of an epoch", f"{steps / 10 * line / 1e6:.1f} MB", f"counted: {line} B a line, one in ten steps"),
        (
            "k-NN while training",
            f"{test / GPUS:.2f} TFLOP a GPU",
            f"reckoned: {test:.0f} in all, shared by the queries",
        ),
        (
            "k-NN of 50,000 in a million of 2,048",
            f"{hours:.1f} CPU hours",
            f"reckoned from {rate:.0f} GFLOP/s of a core, measured at a million of 128 (`neighbours.json`)",
        ),
    ]
    for name in ("resnet50_moco_v2.in1k_200ep", "resnet50_lewel_b.in1k_400ep"):
        size = f"{found['networks'][name]['checkpoint'] / 1e6:.0f} MB"
        rows.append((f"checkpoint of {label(name)}", size, "counted: weights, buffers, momentum (`scale.json`)"))
    return rows


TABLES = {"step": step_rows, "kept": kept_rows, "rare": rare_rows}
"""The tables of the page, by the mark above each."""


def lines_of(name: str) -> list[str]:
    """The lines of a table below its head."""
    return [f"| {' | '.join(row)} |" for row in TABLES[name]()]


def main() -> None:
    """Write the tables into the page, each below its mark and head."""
    text = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        table, _, after = rest.partition("\n\n")
        head = table.splitlines()[:2]
        text = before + mark + "\n".join([*head, *lines_of(name)]) + "\n\n" + after
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
