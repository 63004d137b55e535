"""The tables of benchmarks/README.md, against the files that they are from."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ssl_backbones import recipes

sys.path.append(str(ROOT / "benchmarks"))
import activation_memory
import all_methods
import equal_cost_table
import neighbours
import progressive
import scale_page

PAGE = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_of_all_methods_is_that_of_its_file() -> None:
    rows = json.loads((RESULTS / "imagenette_table.json").read_bytes())["rows"]
    columns = ("k-NN", "linear", "two layers")
    wanted = {row["label"]: [f"{100 * row['cells'][name]['mean']:.1f}" for name in columns] for row in rows}
    section = PAGE.partition("## Every method, epochs chosen by trial")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    told = {row[0]: row[-3:] for row in cells if row[0] in wanted}
    assert told == wanted


def test_the_memory_that_is_told_is_that_of_its_file() -> None:
    counted = {row["recipe"]: row for row in json.loads((RESULTS / "activation_memory.json").read_bytes())["counted"]}
    page = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(resnet50_\S+)` \| (.*) \|$", page, re.M)
    assert {name for name, _ in rows} == {name for name, row in counted.items() if row["size"] == 224}
    for name, cells in rows:
        kept, anew = counted[name]["kept"], counted[name]["anew"]
        at_once = [", ".join(map(str, way["images_at_once"].values())) for way in (kept, anew)]
        told = (kept["gb_per_256_images"], kept["gb_of_state"], at_once[0], anew["gb_per_256_images"], at_once[1])
        assert cells == " | ".join(map(str, told))


def test_the_table_of_nearest_neighbours_is_that_of_its_file() -> None:
    for row in json.loads((RESULTS / "neighbours.json").read_bytes())["measured"]:
        assert neighbours.table_line(row) in PAGE.splitlines()
        assert row["same_up_to_ties"]


def test_the_tables_on_a_hundred_million_images_are_those_of_their_files() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for name in scale_page.TABLES:
        table = page.partition(f"<!-- {name} -->\n")[2].partition("\n\n")[0]
        assert table.splitlines()[2:] == scale_page.lines_of(name)


@pytest.mark.slow
def test_the_memory_of_a_recipe_is_counted_as_its_file_says() -> None:
    counted = {row["recipe"]: row for row in json.loads((RESULTS / "activation_memory.json").read_bytes())["counted"]}
    name = "resnet50_lewel_b.in1k_400ep"
    assert activation_memory.row_of(name, {}, activation_memory.Noise(64, 16)) == counted[name]


def test_pages_tell_faiss_memory_and_byol_beside_moco_as_they_were_measured() -> None:
    measured = json.loads((RESULTS / "neighbours.json").read_bytes())["measured"]
    shares = [row["torch"]["mb"] / row["faiss"]["mb"] for row in measured]
    told = f"with {min(shares):.1f} to {max(shares):.0f} times its memory here"
    assert told in (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    rules = " ".join((ROOT / "docs" / "own_rules.md").read_text(encoding="utf-8").split())
    rows = json.loads((RESULTS / "all_methods.json").read_bytes())
    (pair,) = (
        each for each in rows["pairs"] if each["row"].startswith("byol.") and each["over"].startswith("moco_v2.")
    )
    below = {name: [-100 * pair[name][bound] for bound in ("value", "high", "low")] for name in ("knn", "linear")}
    least, most, worse = (below["knn"][at] for at in (1, 2, 0))
    assert f"MoCo v2 is {worse:.1f} points of k-NN above BYOL [{least:.1f}, {most:.1f}]" in rules
    assert "({:.1f} [{:.1f}, {:.1f}]; `all_methods.json`)".format(*below["linear"]) in rules
    best = {
        name: next(100 * row["knn"]["mean"] for row in rows["rows"] if row["row"].startswith(f"{name}."))
        for name in ("simclr", "moco_v2")
    }
    assert f"({best['simclr']:.1f} % of k-NN, MoCo v2 {best['moco_v2']:.1f})" in rules
    kept = [
        json.loads((RESULTS / f"resnet8_{name}.imagenette32_60ep" / "evaluations" / "knn.json").read_bytes())
        for name in ("byol", "moco_v2")
    ]
    byol, moco = (100 * one["numbers"]["k=20, T=0.07"]["value"] for one in kept)
    assert f"({byol:.1f} and {moco:.1f} %)" in rules


def test_targets_that_were_missed_are_told() -> None:
    """Each in a row that names its file, or in those without a file below it, in whole per cent or to a tenth."""
    told: dict[str, list[float]] = {}
    files: list[str] = []
    for line in PAGE.splitlines():
        files = re.findall(r"`(\w+\.json)`", line) or (files if line.startswith("|") else [])
        for name in files:
            told.setdefault(name, []).extend(map(float, re.findall(r"\*\*missed by ([\d.]+) %\*\*", line)))
    count = 0
    for path, found in of_costs().items():
        missed = [float(each["missed_by"].rstrip("%")) for each in found.get("verdicts", ()) if not each["met"]]
        count += len(missed)
        assert [each for each in missed if not {each, round(each)} & {*told.get(path.name, [])}] == [], path.name
    assert count > 10


def of_costs() -> dict[Path, dict[str, Any]]:
    """Costs that were measured, by their file."""
    found = {path: json.loads(path.read_bytes()) for path in sorted(RESULTS.glob("*.json"))}
    return {path: each for path, each in found.items() if "hardware" in each}


def test_the_page_says_which_costs_another_machine_has() -> None:
    section = PAGE.partition("\n## Cost\n")[2].partition("\n## ")[0]
    told = set(
        re.findall(r"`(\w+\.json)`", section.partition("made the rows of")[2].partition("that of `checkpoints")[0])
    )
    measured = {path.name: found for path, found in of_costs().items() if f"`{path.name}`" in section}
    assert told == {name for name, found in measured.items() if "Xeon" in found["hardware"]}
    loads = [found["load_before"][0] for found in of_costs().values() if "load_before" in found]
    assert f"(loads of {min(loads):.0f} to {max(loads):.0f} on two cores)" in section


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w*]+\.(?:json|png|py|toml))`", PAGE)
    assert named
    for name in named:
        assert [path for folder in ("benchmarks", "tests") for path in (ROOT / folder).rglob(name)], name


def test_no_result_says_where_it_was_measured() -> None:
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r'"(?:[^"]* )?/(?:home|root|tmp|work|Users)/', path.read_text(encoding="utf-8")), path.name


def test_the_cost_of_growing_views_is_that_of_its_file() -> None:
    found = json.loads((RESULTS / "progressive.json").read_bytes())["methods"]
    medians = {name: {side: step["median"] for side, step in one["steps"].items()} for name, one in found.items()}
    sentence = r"MoCo v2 takes (\S+) CPU seconds at 32 px and (\S+) at 16 px, one of BYOL (\S+) and ([\d.]+\d)"
    (told,) = re.findall(sentence, PAGE)
    assert list(told) == [f"{medians[name][side]:.3f}" for name in ("moco_v2", "byol") for side in ("32", "16")]
    shares = sorted(one["16"] / one["32"] for one in medians.values())
    saved = sorted(0.75 * (1 - share) for share in shares)
    for page in (PAGE, (ROOT / "docs" / "options.md").read_text(encoding="utf-8")):
        assert f"{100 * shares[0]:.0f} or {100 * shares[1]:.0f} %" in page
        assert f"save {100 * saved[0]:.0f} or {100 * saved[1]:.0f} %" in page


def test_the_accuracy_of_growing_views_is_that_of_its_records() -> None:
    """Made anew of them, by today's code."""
    for method, found in json.loads((RESULTS / "progressive.json").read_bytes())["methods"].items():
        records: dict[str, list[dict[str, Any]]] = {}
        for file in sorted((RESULTS / "progressive").glob(f"{method}.*.json")):
            record = json.loads(file.read_bytes())
            records.setdefault(record["row"], []).append(record)
        made = json.loads(json.dumps(progressive.table(records)))
        assert made == {name: found[name] for name in made}
        for gained in found["over_whole_views"].values():
            assert f"| {equal_cost_table.points(gained['knn'])} | {equal_cost_table.points(gained['linear'])} |" in PAGE


def test_the_table_at_equal_cost_is_that_of_its_file_and_of_its_records() -> None:
    made = json.loads((RESULTS / "equal_cost.json").read_bytes())
    by_label: dict[str, dict[str, Any]] = {}
    for row in made["rows"]:
        by_label.setdefault(row["row"], {})[row["data"]] = row
        slug = re.sub(r"\W+", "_", row["row"].lower()).strip("_")
        files = [RESULTS / "equal_cost" / "records" / f"{slug}.{row['data']}.seed{seed}.json" for seed in row["seeds"]]
        for number in ("knn", "linear"):
            told = [json.loads(path.read_bytes())[number]["accuracy"] for path in files]
            assert told == row[number]["by_seed"]
    for label, of in by_label.items():
        cells = [label]
        for row in (of[data] for data in ("imagenette", "goods") if data in of):
            cost = f"{row['cpu_seconds'][0]:.0f}" if "cpu_seconds" in row else ""
            cells += [str(row.get("epochs", "")), cost, *(f"{100 * row[one]['mean']:.1f}" for one in ("knn", "linear"))]
        assert f"| {' | '.join(cells)} |" in PAGE


def test_the_gains_at_equal_cost_are_those_of_their_file() -> None:
    """Told in either direction."""
    text = PAGE.partition("## Starts from what is known")[2].partition("\n## ")[0]
    gains = json.loads((RESULTS / "equal_cost.json").read_bytes())["gains"]
    both = [one[number] for one in gains for number in ("knn", "linear")]
    known = {(round(100 * one["low"], 1), round(100 * one["high"], 1)) for one in both}
    known |= {(-high, -low) for low, high in known}
    told = {(float(low), float(high)) for low, high in re.findall(r"\[(-?[\d.]+), (-?[\d.]+)\]", text)}
    assert len(told) > 5
    assert told <= known


def test_the_search_is_told_as_it_went() -> None:
    names = {"simclr": "SimCLR", "simsiam": "SimSiam", "barlow_twins": "Barlow Twins", "vicreg": "VICReg"}
    for method, found in json.loads((RESULTS / "tuning.json").read_text()).items():
        rounds = found["rounds"]
        (usual,) = (one["score"] for one in rounds[0] if one["candidate"] == 0)
        scores = [usual, *(max(one["score"] for one in each) for each in rounds)]
        assert f"| {names[method]} | {' | '.join(f'{100 * score:.1f}' for score in scores)} | " in PAGE
        records = [json.loads(path.read_text()) for path in (RESULTS / "tuning").glob(f"{method}.*.json")]
        assert len(records) == sum(map(len, rounds)) == 13
        assert {(one["round"], one["candidate"], one["score"]) for one in records} == {
            (turn, one["candidate"], one["score"]) for turn, each in enumerate(rounds) for one in each
        }


def test_the_table_of_all_methods_at_equal_cost_is_that_of_its_records() -> None:
    """Made anew of them, by today's code."""
    folder = RESULTS / "all_methods"
    found, records = all_methods.rows(teacher=True), all_methods.read(folder / "records")
    made = json.loads((RESULTS / "all_methods.json").read_bytes())
    told = all_methods.table(records, found)
    assert json.loads(json.dumps(told)) == {name: made[name] for name in told}
    for line in all_methods.markdown(made).splitlines():
        assert line in PAGE.splitlines()
    assert {row["row"] for row in made["rows"]} <= {all_methods.RANDOM, *(row.label for row in found)}
    rows = {row["row"]: 100 * row["knn"]["mean"] for row in made["rows"]}
    of = {
        name: next(value for row, value in rows.items() if row.startswith(f"{name}."))
        for name in ("simclr", "distilled")
    }
    trained = {row: value for row, value in rows.items() if not row.startswith(("distilled", "rob", "sup"))}
    assert max(trained, key=lambda row: trained[row]).startswith("simclr")
    lost = {pair["row"].partition(".")[0]: pair["knn"] for pair in made["pairs"] if pair["knn"]["high"] < 0}
    for name in ("lewel_b", "byol", "vicreg", "supcon", "flags"):
        below, least, most = (-100 * lost[name][bound] for bound in ("value", "high", "low"))
        assert f"{below:.1f} points of k-NN below it [{least:.1f}, {most:.1f}]" in " ".join(PAGE.split()), name
    assert f"Distilled {of['distilled']:.1f}, RoB by BYOL or MoCo v2" in PAGE


def test_the_recipes_that_were_cut_are_all_of_goods_that_were_not_run_whole() -> None:
    runs = json.loads((RESULTS / "first_steps.json").read_bytes())["runs"]
    papers = {"byol", "moco_v2", "lewel_b", "lewel_m", "flags", "distilled", "rob"}
    wanted = {name for name in recipes.names() if name.endswith(".goods128_100ep") and name.startswith("resnet8_")}
    assert {run["recipe"] for run in runs} == {n for n in wanted if recipes.get(n).method.name not in papers}
    assert {(run["steps"], run["altered"]["max_steps"], run["images"]) for run in runs} == {(20, 20, 7768)}
    seconds = sorted(run["seconds"] for run in runs)
    assert f"All twelve ended well, after {seconds[0]:.0f} to {seconds[-1]:.0f} s" in " ".join(PAGE.split())
    assert len(runs) == 12


def test_what_the_guide_tells_of_training_at_all_is_that_of_the_files() -> None:
    guide = " ".join((ROOT / "docs" / "own_images.md").read_text(encoding="utf-8").split())
    made = json.loads((RESULTS / "equal_cost.json").read_bytes())
    knn = {row["row"]: 100 * row["knn"]["mean"] for row in made["rows"] if row["data"] == "goods"}
    teacher, student = (knn[name] for name in ("DINOv2 itself", "Distilled, DINOv2"))
    assert f"DINOv2 at 112 px {teacher:.1f} %, the ResNet-8 that it taught {student:.1f} %" in guide
    begun = {gain["data"]: gain for gain in made["gains"] if gain["row"].startswith("BYOL, begun as")}
    assert all(
        gain[number]["low"] < 0 < gain[number]["high"] for gain in begun.values() for number in ("knn", "linear")
    )
    here, there = (equal_cost_table.points(begun[data]["knn"]).partition(" (")[0] for data in ("imagenette", "goods"))
    assert f"(k-NN {here.replace(' [', ' points [')} on one set, {there} on the other)" in guide
    large = json.loads((RESULTS / "large_images.json").read_bytes())["measured"]
    times = next(row["ms_per_image"] for row in large if (row["kind"], row["size"]) == ("sharp", 96))
    decoded, kept = times["opencv"]["median"], times["kept"]["median"]
    assert f"at 96 px took {decoded} ms each with OpenCV and {kept} ms from such a cache" in guide
    assert round(600_000 * (decoded - kept) / 3_600_000) == 6
