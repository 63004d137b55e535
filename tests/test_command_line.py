"""The command line: every field of a recipe, and a sentence for every mistake."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest

from ssl_backbones import commands, recipes
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.values import word_count
from ssl_backbones.typed.words import CommandLineError, options, read

LEWEL_B = "resnet50_lewel_b.in1k_400ep"


def parse(words: Sequence[str]) -> Recipe:
    """The recipe of a command line."""
    return read_recipe(words, "pretrain.py", "What it does, and --list.")


def refused(*words: str) -> str:
    """The sentence on words that are refused."""
    with pytest.raises(CommandLineError) as end:
        parse(words)
    assert "\n" not in str(end.value)
    return str(end.value)


def test_a_list_that_stands_twice_loses_nothing_unsaid():
    for command in commands.modules().values():
        if kind := getattr(import_module(f"ssl_backbones.commands.{command}"), "Options", None):
            lists = [each for each in options(kind).values() if word_count(each.declared) == sys.maxsize]
            for name in [each.name for each in lists if not each.positional]:
                with pytest.raises(CommandLineError, match=rf"^--{name} stands twice"):
                    read(kind, [f"--{name}", "1", f"--{name}", "2"], command, "", needed=())


def test_no_arguments_is_the_sample():
    assert parse([]) == recipes.get("sample")
    assert parse(["--epochs", "7"]).name == "sample"


def test_a_name_alone_is_that_recipe():
    for name in recipes.names()[::6]:
        assert parse([name]) == recipes.get(name)


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        ("--epochs 100", "epochs", 100),
        ("--epochs=100", "epochs", 100),
        ("--batch-size 512", "batch_size", 512),
        ("--batch_size 512", "batch_size", 512),
        ("--data /photos", "data", "/photos"),
        ("--compile", "compile", True),
        ("--workers 3", "workers", 3),
        ("--workers None", "workers", None),
        ("--trackers tensorboard wandb", "trackers", ("tensorboard", "wandb")),
        ("--precision bf16", "precision", "bf16"),
        ("--method.groups 8", "method.groups", 8),
        ("--method.no_coupled_head", "method.coupled_head", False),
        ("--method.aligned_weight 0", "method.aligned_weight", 0.0),
        ("--optimizer.lr 1e-3", "optimizer.lr", 1e-3),
        ("--schedule.warmup-epochs 5", "schedule.warmup_epochs", 5),
        ("--schedule.milestones 3 4", "schedule.milestones", (3, 4)),
        ("--checkpoints.every_steps 50", "checkpoints.every_steps", 50),
        ("--monitoring.k 5", "monitoring.k", 5),
    ],
)
def test_a_field_is_set_and_typed(words: str, path: str, value: Any):
    found: Any = parse([LEWEL_B, *words.split()])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_fields_of_the_views_and_values_with_spaces():
    recipe: Any = parse([LEWEL_B, "--method.views.1.blur_p", "0.25", "--optimizer.lr_rule", "absolute"])
    assert recipe.method.views[1].blur_p == 0.25
    assert recipe.method.views[0] == recipes.get(LEWEL_B).method.views[0]  # type: ignore[attr-defined]
    assert recipe.peak_lr == 0.45
    again = parse([LEWEL_B, "--optimizer.lr_rule", "per 256"])
    assert again.peak_lr == 7.2


@pytest.mark.parametrize("name", sorted(options(Recipe, recipes.get(LEWEL_B))))
def test_a_letter_left_out_of_any_field_is_noticed_and_the_field_offered(name: str):
    part, dot, last = name.rpartition(".")
    last = last[:1] + last[2:] if len(last) > 3 else last + last[-1]
    sentence = refused(LEWEL_B, f"--{part}{dot}{last}", "1")
    assert sentence.startswith(f"--{part}{dot}{last} is no option of pretrain.py {LEWEL_B}; the nearest: ")
    assert f"--{name}" in sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--epochs x", "--epochs is x, but must be a whole number."),
        ("--epochs", "--epochs is left empty, but must be a whole number."),
        ("--epochs 1.5", "--epochs is 1.5, but must be a whole number."),
        ("--optimizer.lr fast", "--optimizer.lr is fast, but must be a number."),
        ("--optimizer.kind srg", "--optimizer.kind is srg, but must be one of sgd, lars, adamw, adam."),
        ("--workers few", "--workers is few, but must be a whole number or None."),
        ("--method.views.0.jitter 1 2", "--method.views.0.jitter is 1 2, but must be 4 values, each a number."),
        ("--epochs 0", "epochs is 0, but must be at least 1."),
        ("--epochs -1", "epochs is -1, but must be at least 1."),
        ("--optimizer.lr nan", "--optimizer.lr is nan, but must be a number."),
        ("--method.coupled_head False", "--method.coupled_head takes no value: write --method.coupled_head, or"),
        ("extra", "'extra' belongs to no option"),
        ("--promise.paper mine", "--promise.paper is no option of pretrain.py"),
        ("--groups 8", f"--groups is no option of pretrain.py {LEWEL_B}; the nearest: --method.groups."),
        ("--zzzqq 8", f"--zzzqq is no option of pretrain.py {LEWEL_B}; --help lists them."),
    ],
)
def test_a_mistake_is_one_sentence(words: str, sentence: str):
    assert refused(LEWEL_B, *words.split()).startswith(sentence)


def test_a_methods_own_check_speaks():
    sentence = refused(LEWEL_B, "--method.groups", "5")
    assert "groups=5 must divide projection_dim=256" in sentence


def test_warmup_longer_than_the_run_says_what_to_lower():
    assert "--epochs" in refused(LEWEL_B, "--epochs", "5")


def test_an_unknown_recipe_offers_the_nearest():
    assert LEWEL_B in refused("resnet50_lewlb.in1k_400ep")


def test_a_name_after_the_options_is_told_so():
    told = f"{LEWEL_B!r} belongs to no option, as --epochs is a whole number: usage: pretrain.py sample [--OPTION"
    assert refused("--epochs", "5", LEWEL_B).startswith(told)


def test_list_shows_every_recipe_under_its_paper_once(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--list"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    papers = [line for line in lines if line and not line.startswith(" ")]
    assert sorted(named) == sorted(recipes.names())
    assert len(papers) == len(set(papers)) >= 4


def test_help_shows_the_recipes_values_and_not_its_promise(capsys):
    with pytest.raises(SystemExit) as end:
        parse([LEWEL_B, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for part in ("--method.groups", "--optimizer.lr", "--data", "0.45", "--list", LEWEL_B):
        assert part in shown
    assert "promise" not in shown


def test_help_shows_what_a_run_is_before_the_parts_of_its_settings(capsys):
    with pytest.raises(SystemExit):
        parse([LEWEL_B, "--help"])
    shown = capsys.readouterr().out
    names = re.findall(r"^  --([\w.]+)", shown, re.M)
    parts = [name.partition(".")[0] if "." in name else "" for name in names]
    assert names.index("data") < names.index("out") < names.index("epochs")
    assert [part for part, _ in itertools.groupby(parts)] == list(dict.fromkeys(parts))
    assert parts[0] == ""
    assert re.search(r"\n\n  --optimizer\.\w+", shown)
