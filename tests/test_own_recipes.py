"""Recipes for one's own images: the rules, the counts behind them, what a run keeps, and what papers' recipes say."""

from __future__ import annotations

import json
import operator
import re
from contextlib import suppress
from dataclasses import fields, replace
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from runs import image_folder, run, stop

from ssl_backbones import recipes
from ssl_backbones.data import require_batch
from ssl_backbones.models.queue import check_queue
from ssl_backbones.recipes import facts as counted
from ssl_backbones.recipes.channels import with_interpolation
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.facts import Facts
from ssl_backbones.recipes.own import ARCHS, FEWEST, MEASURED, put, settled
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.rules import RULES
from ssl_backbones.recipes.ways_out import ways_out
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.train import beginning as beginning_module
from ssl_backbones.train import settle as settle_module
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.train.results import altered
from ssl_backbones.views import Policy

OWN = [name for name in recipes.names() if name.endswith(".own")]
PAPERS = [name for name in recipes.names() if name.startswith("resnet50") and name not in OWN]
MACHINES = (
    Facts(0, 3000, 4e9),
    Facts(0, 128, 12e9, processes=2),
    Facts(0, 3000, 0.8 * 12e9, gpu=True),
    Facts(0, 3000, 0.8 * 80e9, gpu=True, processes=3),
)


ALL_COUNTS = [FEWEST, 33, 300, 2000, 9469, 50_000, 1_281_167]
"""Numbers of images."""


def test_the_recipes_that_are_promised() -> None:
    methods = ("byol", "lewel_b", "moco_v2", "lewel_m", "supcon", "nnclr", "densecl", "swav", "dino", "pixpro")
    methods += ("instdisc", "pcl", "resim")
    assert {f"{arch}_{method}.own" for arch in ARCHS for method in methods} <= set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_every_recipe_fits_its_images_and_its_machine(name: str) -> None:
    counts = [FEWEST, 2000, 1_281_167] if name.startswith(("resnet18_", "resnet34_")) else ALL_COUNTS
    for machine, images in product(MACHINES, counts):
        facts = replace(machine, images=images)
        made = settled(recipes.get(name), facts)
        at_once, left_over = divmod(made.batch_size, made.accumulation * facts.processes)
        assert left_over == 0
        assert at_once >= 2
        assert made.batch_size <= images
        assert counted.bytes_needed(made, facts, at_once, made.size) <= facts.memory
        assert 0 < made.schedule.warmup_epochs < made.epochs
        assert 100 <= made.epochs <= 800
        assert made.size <= max(64, facts.side)
        chosen: Any = made.method
        if counted.has(made.method, "queue_size"):
            check_queue(chosen.queue_size, images, made.batch_size)
        if counted.has(made.method, "key_bn"):
            assert made.batch_size // made.accumulation >= 2 * chosen.bn_splits or made.batch_size < 4


@pytest.mark.parametrize("name", OWN)
def test_every_field_with_a_rule_is_left_to_it(name: str) -> None:
    recipe = recipes.get(name)
    known = {field.name for field in fields(recipe.method)}
    slower = {"method.target_momentum"} if recipe.method.name in ("dino", "pixpro") else set()
    ruled = {rule for rule in RULES if rule.startswith("method.") and rule[7:] in known}
    assert ruled - set(recipe.derived) == slower
    assert set(RULES) - set(recipe.derived) <= {rule for rule in RULES if rule.startswith("method.")}


def test_a_queue_follows_the_prototypes_that_a_person_chose() -> None:
    facts = replace(MACHINES[0], images=9469)
    usual = recipes.get("resnet18_swav.own")
    named = replace(usual, method=replace(usual.method, prototypes=1000))  # type: ignore[call-arg]
    kept = replace(named, derived=tuple(name for name in named.derived if name != "method.prototypes"))
    method: Any = settled(kept, facts).method
    assert (method.prototypes, method.queue_size, method.queue_after) == (1000, 1920, 0.05)


def test_what_the_rules_give() -> None:
    """The rows of the table in docs/own_rules.md."""
    text = (Path(__file__).parents[1] / "docs" / "own_rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+\.own)` \| ([\d,]+) \| (CPU|GPU) of (\d+) GB \| (.*) \|$", text, re.M)
    assert len(rows) >= 8
    for name, images, kind, gigabytes, cells in rows:
        gpu = kind == "GPU"
        share = settle_module.OF_A_GPU if gpu else settle_module.OF_THE_HOST
        made = settled(recipes.get(name), Facts(int(images.replace(",", "")), 3000, share * int(gigabytes) * 1e9, gpu))
        chosen: Any = made.method
        momentum = getattr(chosen, "target_momentum", None) or chosen.momentum
        found = (
            made.size,
            made.batch_size,
            made.accumulation,
            getattr(chosen, "queue_size", "-"),
            made.epochs,
            made.schedule.warmup_epochs,
            f"{momentum:g}",
            f"{made.peak_lr:g}",
        )
        assert cells == " | ".join(map(str, found)), name


def test_what_was_measured_is_that_of_its_file() -> None:
    root = Path(__file__).parents[1]
    runs = json.loads((root / "benchmarks" / "results" / "own_300.json").read_text())["runs"]
    text = (root / "docs" / "own_rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| (.*) \|$", text, re.M)
    told = {f"{recipe} on {data}_300": cells for recipe, data, *cells in rows}
    assert told.keys() == runs.keys()
    assert {run.partition(".own")[0] for run in runs} == MEASURED
    for name in OWN:
        assert ("not measured" in recipes.get(name).promise.result) is (name.removesuffix(".own") not in MEASURED)
    for name, run_of in runs.items():
        before, after, gain = (run_of["numbers"][number] for number in ("knn before", "knn", "knn gain"))
        low, high = (f"{100 * gain[end]:.1f}" for end in ("low", "high"))
        found = [str(run_of["epochs"]), f"{100 * before['value']:.1f}", f"{100 * after['value']:.1f}"]
        assert told[name] == [*found, f"+{100 * gain['value']:.1f} [{low}, {high}]"]
        assert gain["low"] > 0


def test_what_whole_sets_gave_is_that_of_its_file() -> None:
    root = Path(__file__).parents[1]
    runs = json.loads((root / "benchmarks" / "results" / "own_whole.json").read_text())["runs"]
    text = (root / "docs" / "own_rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| ([\d,]+) of (\S+) \| (.*) \|$", text, re.M)
    told = {f"{recipe} on {data}": (images, cells) for recipe, images, data, cells in rows}
    assert told.keys() == runs.keys()
    for name, run_of in runs.items():
        before, after, gain = (run_of["numbers"][number] for number in ("knn before", "knn", "knn gain"))
        spans = [
            f"+{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
            for one in (gain, run_of["trend"]["change"])
        ]
        numbers = [run_of["epochs"], f"{100 * before['value']:.1f}", f"{100 * after['value']:.1f}", *spans]
        assert told[name] == (f"{run_of['data']['images']:,}", f"{' | '.join(map(str, numbers))}: it rose")
    minutes = round(runs["resnet8_moco_v2.own on imagenette_96"]["seconds"] / 60)
    assert f"The second took {minutes} minutes of one thread" in text


def test_a_view_is_no_larger_than_the_images_and_shrinks_where_memory_is_short() -> None:
    recipe = recipes.get("resnet50_byol.own")
    sizes = [settled(recipe, Facts(2000, side, 60e9, gpu=True)).size for side in (20, 100, 150, 4000)]
    assert sizes == [64, 96, 128, 224]
    small = [settled(recipe, Facts(2000, 4000, memory, gpu=True)).size for memory in (2e9, 4e9, 6e9)]
    assert sorted(small) == small
    assert small[0] < 224


def test_a_batch_that_does_not_fit_is_cut_in_parts_or_lowered_where_images_are_compared() -> None:
    machine = Facts(100_000, 4000, 0.8 * 12e9, gpu=True)
    predicted = settled(recipes.get("resnet50_byol.own"), machine)
    compared = settled(recipes.get("resnet50_lewel_m.own"), machine)
    assert (predicted.batch_size, predicted.accumulation > 1) == (256, True)
    assert (compared.batch_size < 256, compared.accumulation) == (True, 1)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (Facts(10, 3000, 12e9), r"^10 images are too few to learn from: resnet50_byol.own wants 32 at least"),
        (Facts(2000, 3000, 1e9, gpu=True), r"^2 images of 64 px at a time take about .* GB .*lower --size"),
    ],
)
def test_what_cannot_be_settled_is_refused_in_a_sentence(facts: Facts, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        settled(recipes.get("resnet50_byol.own"), facts)


FEW, MANY = Facts(1000, 96, 60e9), Facts(60_000, 96, 60e9)
ASKED = {
    "progressive.start": (128, Facts(1000, 4000, 60e9, gpu=True), FEW, "128, but must be below the size .* 96"),
    "schedule.warmup_epochs": (300, FEW, MANY, "300, but must be below the 100 epochs"),
    "accumulation": (128, MANY, FEW, "128, but must be a divisor of the batch size, "),
}
"""Fields, each with a value, images that allow it and others that do not, and what is said of those."""


@pytest.mark.parametrize("field", ASKED)
@pytest.mark.parametrize("name", ["resnet18_byol.own", "resnet18_densecl.own"])
def test_what_a_person_sets_is_held_to_what_the_rules_chose_and_to_nothing_before(field: str, name: str) -> None:
    value, allowed, others, refusal = ASKED[field]
    recipe = read_recipe([name, f"--{field}", str(value)], "pretrain", None)
    assert operator.attrgetter(field)(settled(recipe, allowed)) == value
    with pytest.raises(ValueError, match=f"^{re.escape(field)} is {refusal}"):
        settled(recipe, others)


def test_what_a_command_line_says_is_not_left_to_the_rules() -> None:
    words = ["resnet8_moco_v2.own", "--epochs", "200", "--batch-size=16", "--method.views.0.blur_p", "0.3"]
    recipe = read_recipe(words, "pretrain", None)
    made = settled(recipe, Facts(300, 128, 12e9))
    assert (made.epochs, made.batch_size, made.method.views[0].blur_p) == (200, 16, 0.3)  # type: ignore[attr-defined]
    assert (made.schedule.warmup_epochs, made.method.queue_size) == (10, 256)  # type: ignore[attr-defined]


@pytest.mark.parametrize("side", [96, 224])
@pytest.mark.parametrize(
    ("words", "areas"),
    [
        ("resnet18_distilled.own", [0.5]),
        ("resnet18_distilled.own --method.kept= --method.dense_weight 1", [0.14]),
        ("resnet18_rob.own", [0.5, 0.5]),
        ("resnet18_rob.own --method.kept= --method.loss lewel_b", [0.2, 0.2]),
        ("resnet18_rob.own --method.kept= --method.views.0.area 0.3 1", [0.3, 0.5]),
    ],
)
def test_a_teacher_of_every_view_has_views_of_its_own(words: str, areas: list[float], side: int) -> None:
    """Mild crops go with kept features; a start's interpolation and what a person sets stay."""
    recipe = read_recipe([*words.split(), "--size", str(side)], "pretrain", None)
    recipe = replace(recipe, method=with_interpolation(recipe.method, "bilinear"))
    views = settled(recipe, Facts(3000, 512, 80e9, gpu=True)).method.policies
    assert [view.area[0] for view in views] == areas
    assert {view.interpolation for view in views} == {"bilinear"}
    usual = recipe.method.usual_views
    blurred = [view.blur_p for view in usual] if side > 96 else [0.0] * len(areas)
    assert [view.blur_p for view in views] == blurred or "views.0" in words


@pytest.mark.parametrize(("loss", "batch"), [("byol", 64), ("moco_v2", 128)])
def test_rob_has_the_batch_of_its_loss(loss: str, batch: int) -> None:
    recipe = read_recipe(["resnet18_rob.own", "--method.loss", loss], "pretrain", None)
    assert settled(recipe, Facts(5000, 512, 80e9, gpu=True)).batch_size == batch


def test_a_method_of_one_view_needs_the_memory_of_one() -> None:
    one, two = (recipes.get(f"resnet18_{method}.own") for method in ("distilled", "rob"))
    facts = Facts(5000, 512, 80e9)
    of_images = [
        counted.bytes_needed(each, facts, 9, 96) - counted.bytes_needed(each, facts, 1, 96) for each in (one, two)
    ]
    assert of_images[1] == pytest.approx(2 * of_images[0])


def others(value: Any) -> tuple[Any, ...]:
    """Values beside one, of which a recipe takes some."""
    if isinstance(value, Policy):
        return (replace(value, blur_p=0.25),)
    if isinstance(value, tuple):
        return value[:1], value[::-1], (*value, *value)
    return (value / 2, value + 0.1) if isinstance(value, float) else (2 * value, value + 1, value + 2, value // 2, 4)


@pytest.mark.parametrize("name", [name for name in OWN if name.startswith("resnet18_")])
def test_a_field_that_a_person_sets_is_altered(name: str) -> None:
    recipe = recipes.get(name)
    for field in recipe.derived:
        left = replace(recipe, derived=tuple(other for other in recipe.derived if other != field))
        told = False
        for value in others(attrgetter(field)(recipe)):
            with suppress(ValueError):
                names = altered(put(left, field, value))
                told = told or any(f"{name}.".startswith(f"{field}.") for name in names)
        assert told or field.startswith("monitoring."), field


@pytest.mark.parametrize("name", OWN)
def test_every_derived_value_is_told(name: str) -> None:
    recipe = settled(recipes.get(name), Facts(3000, 512, 80e9, gpu=True))
    said = settle_module.told(recipe, recipe.derived, 3000, "by the rules")
    for field in recipe.derived:
        value = attrgetter(field)(recipe)
        words = "with blur |without blur" if field in ("method.views", "method.crop") else re.escape(str(value))
        assert re.search(f"[:,] {re.escape(field)} ({words})", said), field


def command(data: Path, out: Path, *words: str) -> Recipe:
    """A short run of a recipe for one's own images."""
    usual = ["--data", str(data), "--out", str(out), "--max_steps", "4", "--workers", "0", "--precision", "fp32"]
    return read_recipe(["resnet8_moco_v2.own", *usual, *words], "pretrain", None)


def test_a_run_keeps_what_was_derived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = command(image_folder(tmp_path / "photos", 40), tmp_path / "run")
    stop(recipe, 2)
    assert (
        "For 40 images, by the rules of docs/own_rules.md: size 32, method.views without blur, batch_size 16"
        in capsys.readouterr().out
    )
    monkeypatch.setattr(settle_module, "facts_of", lambda *_: pytest.fail("the rules were asked again"))
    folder = run(recipe)
    said = capsys.readouterr().out
    assert "kept from the run's recipe.json: size 32, method.views without blur, batch_size 16" in said
    assert "Going on after step 2 of 4" in said
    written = Recipe.from_dict(json.loads(folder.recipe.read_text()))
    assert written.engine in ("opencv", "pillow")  # what is installed
    assert written == replace(settled(recipe, Facts(40, 24, 12e9)), out=recipe.out, engine=written.engine)
    assert (written.epochs, written.method.queue_size) == (800, 16)  # type: ignore[attr-defined]
    results = json.loads(folder.results.read_text())
    assert results["altered"] == {"max_steps": [0, 4], "precision": ["auto", "fp32"]}
    run(command(tmp_path / "photos", tmp_path / "run", "--epochs", "800"))  # said now, and the same
    assert "holds the finished run" in capsys.readouterr().out


def test_other_words_in_the_folder_of_a_run_are_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value that the run there derived, as four parts or 40 epochs of warm-up, is held against what is said here."""
    monkeypatch.setitem(RULES, "accumulation", lambda recipe, facts: 4 if recipe.batch_size % 4 == 0 else 1)
    stop(command(image_folder(tmp_path / "photos", 40), tmp_path / "run"), 1)
    for name, value in {"batch_size": 18, "epochs": 20, "size": 24}.items():
        with pytest.raises(RunFolderError, match=rf"another recipe \(.*\b{name} is \d+ there and {value} here"):
            run(command(tmp_path / "photos", tmp_path / "run", f"--{name}", str(value)))


def test_a_run_from_given_weights_keeps_what_was_derived_and_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = command(
        image_folder(tmp_path / "photos", 40), tmp_path / "run", "--init", "resnet8_byol.imagenette32_60ep"
    )
    stop(recipe, 2)
    assert "Starts from" in capsys.readouterr().out
    monkeypatch.setattr(settle_module, "facts_of", lambda *_: pytest.fail("the rules were asked again"))
    monkeypatch.setattr(beginning_module, "opened", lambda recipe: pytest.fail("the start was opened again"))
    stop(recipe, 3)
    said = capsys.readouterr().out
    assert "Going on after step 2 of 4" in said
    assert "kept from the run's recipe.json: size 32, method.views without blur, batch_size 16" in said


def test_ten_images_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match=r"^10 images are too few to learn from"):
        run(command(image_folder(tmp_path / "photos", 10), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_recipe_can_be_made_to_fit_as_it_says(name: str) -> None:
    for images in (FEWEST, 302, 2000):
        said = ways_out(recipes.get(name), images)
        assert re.match(r"^take (\S+), whose", said)[1] in OWN  # type: ignore[index]
        words = said.partition("make this one fit: ")[2].partition(" (")[0].split()
        fitted: Any = read_recipe([name, *words], "pretrain", None)
        require_batch(range(images), fitted.batch_size)  # type: ignore[arg-type]
        if counted.has(fitted.method, "queue_size"):
            check_queue(fitted.method.queue_size, images, fitted.batch_size)


def test_a_batch_larger_than_the_data_names_the_recipe_of_one_s_own(tmp_path: Path) -> None:
    recipe = read_recipe(
        ["resnet50_byol.in1k_200ep", "--data", str(image_folder(tmp_path / "p", 40)), "--out", str(tmp_path / "r")],
        "pretrain",
        None,
    )
    expected = (
        "^40 images are fewer than the batch of 512: take resnet50_byol.own, whose settings follow from the images and "
        r"the machine, or make this one fit: --batch_size 16 \(the learning rate goes along\)$"
    )
    with pytest.raises(ValueError, match=expected):
        run(recipe)


@pytest.mark.parametrize("name", [name for name in OWN if name.startswith("resnet18_")])
def test_help_tells_what_the_rules_set_and_no_value_of_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipes.get(name)
    with pytest.raises(SystemExit):
        read_recipe([name, "--help"], "pretrain", "")
    told = dict(re.findall(r"^  --(\S+), .* \((.*)\)$", capsys.readouterr().out, re.MULTILINE))
    whole = {name for name in recipe.derived if name in told}
    assert {name for name, value in told.items() if value == "by the rules"} == whole
    assert {"size", "batch_size", "epochs"} <= whole
