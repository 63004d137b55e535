"""The tables of benchmarks/README.md, against the files that they are from."""

from __future__ import annotations

import json
import re

from conftest import ROOT

PAGE = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_of_all_methods_is_that_of_its_file() -> None:
    rows = json.loads((RESULTS / "imagenette_table.json").read_bytes())["rows"]
    columns = ("k-NN", "linear", "two layers")
    wanted = {row["label"]: [f"{100 * row['cells'][name]['mean']:.1f}" for name in columns] for row in rows}
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    told = {row[0]: row[-3:] for row in cells if row[0] in wanted}
    assert told == wanted


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w*]+\.(?:json|png|py|toml))`", PAGE)
    assert named
    for name in named:
        assert [path for folder in ("benchmarks", "tests") for path in (ROOT / folder).rglob(name)], name


def test_no_result_says_where_it_was_measured() -> None:
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r'"(?:[^"]* )?/(?:home|root|tmp|work|Users)/', path.read_text(encoding="utf-8")), path.name
