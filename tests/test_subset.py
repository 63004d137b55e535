"""A list of classes and a number of images held out divide any labelled source, the same in every run."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import runs
from evaluations import ASKED, QUICK, labelled_images
from image_sources import fill, raw, write
from runs import image_folder, outcome, run, tiny
from scripts import script

from ssl_backbones.commands import mine_pairs
from ssl_backbones.commands.compare import comparison_of, parse
from ssl_backbones.data import ImageSourceError, open_images
from ssl_backbones.data.subset import HOLD_OUT_SEED, drawn_by_class, hold_out, listed_classes, of_classes
from ssl_backbones.evaluate import protocols
from ssl_backbones.evaluate.comparison.jobs import jobs
from ssl_backbones.methods import BYOLConfig, FlagsConfig
from ssl_backbones.views import permutation

NAMES = ("ant", "bee", "cow")


def tree(path: Path) -> Path:
    return fill(path / "tree", *[f"{name}/{number}.jpg" for number in range(4) for name in NAMES])


def table(path: Path) -> Path:
    return write(path / "train.parquet", image=raw(12), label=[name for name in NAMES for _ in range(4)])


@pytest.mark.parametrize("source", [tree, table])
def test_a_list_of_classes_takes_a_subset(tmp_path: Path, source) -> None:
    images = open_images(source(tmp_path))
    (tmp_path / "list.txt").write_text("cow\n\n ant \n")
    some = of_classes(images, listed_classes(images, tmp_path / "list.txt"))
    assert list(some.classes) == ["ant", "cow"]
    assert len(some) == 8
    for row, key in enumerate(some.keys):
        assert some.classes[some.labels[row]] == images.classes[images.labels[list(images.keys).index(key)]]
    assert some.fingerprint != images.fingerprint
    for text, said in (("elk\ncow", r"'elk' and 0 more are no classes .* such as 'ant'"), (" ", "it names none")):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(ImageSourceError, match=said):
            listed_classes(images, tmp_path / "list.txt")
    with pytest.raises(ImageSourceError, match="cannot be read"):
        listed_classes(images, tmp_path / "missing.txt")


@pytest.mark.parametrize("source", [tree, table])
def test_images_are_held_out_of_every_class(tmp_path: Path, source) -> None:
    images = open_images(source(tmp_path))
    rest, held = hold_out(images, 3)
    assert np.bincount(held.labels).tolist() == [3, 3, 3]
    assert np.bincount(rest.labels).tolist() == [1, 1, 1]
    assert sorted([*rest.keys, *held.keys]) == sorted(images.keys)
    assert list(hold_out(images, 3)[1].keys) == list(held.keys)
    with pytest.raises(ImageSourceError, match="'ant' has 4 images, and --hold_out 4 would leave none"):
        hold_out(images, 4)


def test_a_run_on_some_classes_with_images_held_out(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", 36, ("bag", "hat", "shoe"))
    (tmp_path / "two.txt").write_text("bag\nshoe\n")
    recipe = tiny(BYOLConfig, data, tmp_path / "run", classes=str(tmp_path / "two.txt"), hold_out=2, max_steps=1)
    results = outcome(run(recipe).path)["results"]
    assert (results["data"]["images"], results["validation"]["images"]) == (20, 4)
    names = (tmp_path / "run" / "held_out.txt").read_text().split()
    assert sorted(name.partition("/")[0] for name in names) == ["bag", "bag", "shoe", "shoe"]
    assert results["selection"] == {
        "classes": ["bag", "shoe"],
        "held_out": 2,
        "seed": HOLD_OUT_SEED,
        "named_in": "held_out.txt",
        "sha256": hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest(),
    }


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...], dict[str, Any], str]:
    """The data, the words that take a part of them, and what pretrain left out with these."""
    path = tmp_path_factory.mktemp("pretrained")
    data = image_folder(path / "data", 45, ("bag", "hat", "shoe"))
    (path / "two.txt").write_text("bag\nshoe\n")
    recipe = tiny(BYOLConfig, data, path / "run", classes=str(path / "two.txt"), hold_out=3, max_steps=1)
    results = outcome(run(recipe).path)["results"]
    held = (path / "run" / "held_out.txt").read_text()
    return data, ("--classes", str(path / "two.txt"), "--hold_out", "3"), results, held


PROTOCOLS = [module.name for module in iter_modules(protocols.__path__)]
SHORT = ("--epochs", "1", "--batch_size", "8", "--checkpoints.every_minutes", "0")
WORDS = {
    **QUICK,
    "linear": SHORT,
    "finetune": SHORT,
    "semi": (*SHORT, "--share", "0.5"),
    "diagnose": ("--max_images", "20"),
}


def evaluate(protocol: str, data: Path, out: Path, *more: str) -> None:
    runs.forget()
    try:
        script("evaluate", [protocol, *ASKED, "--data", str(data), "--out", str(out), *WORDS[protocol], *more])
    finally:
        runs.forget()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_asks_about_what_pretrain_left_out(protocol: str, pretrained, tmp_path: Path) -> None:
    data, words, trained, held = pretrained
    evaluate(protocol, data, tmp_path / "out", *words)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (tmp_path / "out" / "held_out.txt").read_text() == held
    assert results["selection"] == trained["selection"]
    assert results["validation"]["fingerprint"] == trained["validation"]["fingerprint"]
    assert results["validation"]["images"] == 6
    if protocol != "semi":  # which learns from a share of them
        assert results["data"]["fingerprint"] == trained["data"]["fingerprint"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_selection_that_does_not_fit_is_refused(protocol: str, pretrained, tmp_path: Path, capsys) -> None:
    data = pretrained[0]
    (tmp_path / "list.txt").write_text("elk\n")
    for words, said in (
        (("--hold_out", "2", "--validation", str(data)), "hold_out is 2, but must be 0 where validation images are"),
        (("--hold_out", "-1"), "hold_out is -1, but must be at least 0"),
        (("--hold_out", "15"), "would leave none to train on"),
        (("--classes", str(tmp_path / "list.txt")), "'elk' and 0 more are no classes of the data"),
    ):
        with pytest.raises(SystemExit) as end:
            evaluate(protocol, data, tmp_path / "out", *words)
        assert end.value.code == 2
        assert said in capsys.readouterr().err


def test_a_finished_evaluation_of_other_classes_is_no_answer(pretrained, tmp_path: Path, capsys) -> None:
    data, words, _, _ = pretrained
    evaluate("knn", data, tmp_path / "out")
    assert not (tmp_path / "out" / "held_out.txt").exists()
    with pytest.raises(SystemExit):
        evaluate("knn", data, tmp_path / "out", *words)
    assert "images" in capsys.readouterr().err


def test_validation_images_of_classes_that_are_not_listed_are_not_asked_about(tmp_path: Path) -> None:
    data = labelled_images(tmp_path / "data")
    (tmp_path / "two.txt").write_text("shoe\nbag\n")
    evaluate("knn", data, tmp_path / "out", "--classes", str(tmp_path / "two.txt"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["per_class"]["classes"]) == ["bag", "shoe"]
    assert results["validation"]["images"] == 11 + 10
    assert results["selection"] == {"classes": ["bag", "shoe"]}


def test_a_comparison_mines_and_evaluates_on_what_its_runs_take() -> None:
    words = ["resnet8_moco_v2.imagenette96_100ep", "resnet8_flags.imagenette96_100ep_global", "--data", "d"]
    chosen = ("--hold_out", "5", "--classes", "list.txt")
    comparison, whole = (comparison_of(parse([*words, *more], "compare")) for more in (chosen, ()))
    made = [job for row in comparison.rows for job in jobs(comparison, row, 0)]
    assert sorted({job.words[0] for job in made}) == ["evaluate", "mine-pairs", "pretrain"]
    for job in made:
        assert [job.words[job.words.index(name) + 1] for name in chosen[::2]] == list(chosen[1::2])
        assert job.words.count("--hold_out") == 1
    assert not {job.done for job in made} & {job.done for row in whole.rows for job in jobs(whole, row, 0)}


def test_pairs_are_mined_of_what_a_run_on_them_takes(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", 36, ("bag", "hat", "shoe"))
    (tmp_path / "two.txt").write_text("bag\nshoe\n")
    some = {"classes": str(tmp_path / "two.txt"), "hold_out": 2}
    mined, _ = mine_pairs.mine_pairs(
        mine_pairs.Options(
            model="resnet8",
            data=str(data),
            out=tmp_path / "pairs.parquet",
            layer="layer2",
            size=16,
            random=True,
            workers=0,
            **some,
        )
    )
    assert len(mined.rows) == 20
    recipe = tiny(FlagsConfig, data, tmp_path / "run", max_steps=1, **some)
    recipe = replace(recipe, method=replace(recipe.method, pairs=str(tmp_path / "pairs.parquet")))
    assert outcome(run(recipe).path)["results"]["data"]["images"] == 20


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_a_draw_by_class_is_one_order_divided(classes: int) -> None:
    labels = np.random.default_rng(classes).integers(0, classes, 60) * 2 - 1
    order = permutation(5, 0, len(labels))
    found = drawn_by_class(labels, 5)
    assert list(found) == sorted(set(labels.tolist()))
    for label, rows in found.items():
        assert np.array_equal(rows, order[labels[order] == label])


def test_a_draw_costs_alike_for_few_classes_and_many() -> None:
    labels = np.arange(200_000) % 100_000
    began = time.perf_counter()
    assert len(drawn_by_class(labels, 0)) == 100_000
    assert time.perf_counter() - began < 10, "a look at all labels for each class would take minutes"
