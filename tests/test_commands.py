"""Every command is found by being there, speaks one language, and is the same however it is started."""

from __future__ import annotations

import ast
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from runs import image_folder
from warm_processes import run_program, without

from ssl_backbones import commands, recipes
from ssl_backbones.commands.evaluate import PROTOCOLS
from ssl_backbones.invocation import repeatable
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.words import CommandLineError, as_words, options, spoken

COMMANDS = sorted(commands.modules())
SCRIPTS = sorted((ROOT / "training").glob("*.py"))
CORE = ("list", "describe", "import", "convert", "export", "bundle", "verify", "tables", "visualize", "publish")
"""Commands of an installation without extras."""
EXTRAS = ("accelerate", "datasets", "pyarrow", "matplotlib", "sklearn", "scipy", "torchmetrics")


def module_of(command: str) -> Any:
    return importlib.import_module(f"ssl_backbones.commands.{commands.modules()[command]}")


def examples(command: str) -> list[str]:
    """The lines of a command's help that show how it is used."""
    lines = (module_of(command).__doc__ or "").partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.startswith("    ssl-backbones ")]


def started(path: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit code of a script, or of a module of the package, that is run as a program in this process."""
    monkeypatch.setattr(sys, "argv", [path, *words])
    monkeypatch.delitem(sys.modules, "ssl_backbones.__main__", raising=False)
    start = runpy.run_path if path.endswith(".py") else runpy.run_module
    with pytest.raises(SystemExit) as end:
        start(path, run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_command_can_be_read(command: str) -> None:
    assert examples(command)
    for example in examples(command):
        _, name, *words = shlex.split(example)
        assert name == command
        assert words == ["--list"] or commands.options_of(module_of(command), words, command) is not None


def told(command: str) -> list[type[Any]]:
    """The dataclasses whose fields are the options of a command."""
    if command == "evaluate":
        protocols = [importlib.import_module(f"ssl_backbones.evaluate.protocols.{name}") for name in PROTOCOLS]
        return [protocol.Options for protocol in protocols]
    names = {"pretrain": "Recipe", "detect": "DetectRun", "segment": "SegmentRun"}
    return [getattr(module_of(command), names.get(command, "Options"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command: str) -> None:
    for kind in told(command):
        usual = recipes.get("sample") if kind is Recipe else None
        found = options(kind, usual)
        assert [name for name, option in found.items() if not option.about] == []
        assert command in ("describe", "verify") or len(found) > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_can_be_said_by_its_value(command: str) -> None:
    for kind in told(command):
        known = options(kind, recipes.get("sample") if kind is Recipe else None)
        named = {name: each for name, each in known.items() if not each.positional}
        values = {name: each.usual for name, each in named.items() if each.usual is not MISSING}
        switched = {name: not value for name, value in values.items() if isinstance(value, bool)}
        for said in (values, values | switched):
            assert spoken(named, as_words(said), command) == said


def test_a_command_is_called_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its words would start it, told in results by those words; it raises what they would print."""
    module, seen = module_of("pretrain"), []
    monkeypatch.setattr(module, "run", lambda asked: seen.append((asked, sys.argv)))
    before = sys.argv
    keywords: dict[str, Any] = {
        "data": "--my images",
        "compile": True,
        "workers": None,
        "trackers": ("wandb", "mlflow"),
    }
    dotted = {"optimizer.lr": 1e-3, "method.symmetric": False}
    assert commands.call("pretrain", "resnet8_moco_v2.own", options=dotted, **keywords) == 0
    words = ["--data=--my images", *shlex.split("--compile --workers None --trackers wandb mlflow --optimizer.lr 1e-3")]
    words = ["resnet8_moco_v2.own", *words, "--method.no_symmetric"]
    ((asked, argv),) = seen
    assert asked == commands.options_of(module, words, "ssl-backbones pretrain")
    assert commands.options_of(module, argv[2:], "") == asked
    assert (argv[:2], sys.argv) == (["ssl-backbones", "pretrain"], before)
    for wrong in (lambda: commands.call("pretrian"), lambda: commands.call("pretrain", epoch=3)):
        with pytest.raises(CommandLineError, match=r"the nearest: (pretrain|--epochs)"):
            wrong()
    assert sys.argv == before


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, *(list(PROTOCOLS)[:1] if command == "evaluate" else []), "--help"]
    with pytest.raises(SystemExit) as end:
        commands.main(words)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: ssl-backbones {command}")
    for name, option in options(told(command)[0], recipes.get("sample") if command == "pretrain" else None).items():
        assert (option.value if option.positional else f"--{name}") in shown


def test_the_overview_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--help"]) == 0
    shown = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in shown] == COMMANDS
    assert all(line.endswith(".") and len(line) < 120 for line in shown)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the COMMAND is missing; it is one of bundle, "),
        (["pretrian"], "'pretrian' is no command; the nearest: pretrain; it is one of bundle, "),
        (["mine_pair"], "'mine_pair' is no command; the nearest: mine-pairs"),
    ],
)
def test_a_command_that_is_not_there(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ssl-backbones: {sentence}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_command_is_the_same_however_it_is_started(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = script.stem.replace("_", "-")
    first = {"evaluate": ["knn"], "compare": ["sample", "--data", "x"]}.get(command, [])
    refused = []
    for path, words in ((str(script), []), ("ssl_backbones", [command]), ("ssl_backbones", [script.stem])):
        assert started(path, *words, *first, "--no-such-option", "1", monkeypatch=monkeypatch) == 2
        refused.append(capsys.readouterr().err.replace(f"ssl-backbones {command}", script.name))
    assert len(set(refused)) == 1
    assert refused[0].startswith(f"{script.name}: --no_such_option is no option of {script.name}")
    assert refused[0].count("\n") == 1


BARE = f"""{without(*EXTRAS)}
from ssl_backbones.commands import main
for command in {CORE!r}:
    try: main([command, "--help"])
    except SystemExit as end: assert end.code == 0, command
assert main(["list", "resnet8_byol*"]) == 0
for command in ("pretrain", "segment", "detect", "mine-pairs"): assert main([command]) == 2
assert main(["evaluate", "knn"]) == 2
"""


def test_an_installation_without_extras_has_the_commands_of_the_core() -> None:
    done = run_program(BARE)
    assert done.returncode == 0, done.stderr
    assert "resnet8_byol.imagenette32_60ep" in done.stdout
    said = done.stderr.splitlines()
    assert len(said) == 5
    missing = re.compile(r"ssl-backbones [a-z-]+: \w+ is not installed: pip install 'ssl-backbones\[train\]'")
    assert [line for line in said if not missing.fullmatch(line)] == []


def test_the_extra_that_is_named_brings_what_is_missing() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    imported = {"opencv": "cv2"}
    named = {re.split(r"\W", line)[0] for line in extras["train"]}
    assert {imported.get(name, name) for name in named} == commands.IN_TRAIN
    assert "ssl-backbones[train,viz]" in extras["eval"]


def test_a_script_hides_no_installed_package(tmp_path: Path) -> None:
    """Hugging Face's evaluate, say, as the package imports it from the beginning."""
    (tmp_path / "ssl_backbones").mkdir()
    (tmp_path / "ssl_backbones" / "__init__.py").write_text("")
    (tmp_path / "ssl_backbones" / "commands.py").write_text("import evaluate\nrun = print\n")
    (tmp_path / "evaluate.py").write_text("print('the installed one')\n")
    words = [sys.executable, str(ROOT / "training" / "evaluate.py")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["the installed one", "evaluate"], done.stderr


def test_without_the_repository_the_sample_has_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.RECIPES, "sample", replace(recipes.get("sample"), data=""))
    for words in ([], ["sample"], ["--epochs", "3"]):
        with pytest.raises(CommandLineError, match=r"are part of the repository, and this is no copy of it: name"):
            read_recipe(words, "ssl-backbones pretrain", "")
    assert read_recipe(["--data", "mine"], "ssl-backbones pretrain", "").data == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ("training/mine_pairs.py", "runs/my moco", "--data", "photos"),
        ("/somewhere/bin/ssl-backbones", "mine-pairs", "runs/my moco", "--data", "photos"),
        ("/somewhere/ssl_backbones/__main__.py", "mine-pairs", "runs/my moco", "--data", "photos"),
    ],
)
def test_a_command_is_recorded_alike_however_it_is_started(words: tuple[str, ...]) -> None:
    assert repeatable(words) == "ssl-backbones mine-pairs 'runs/my moco' --data photos"


TELLING = sorted(path for path in (ROOT / "ssl_backbones").rglob("*.py") if "compar" not in str(path))
"""Sources whose messages are read by those who have the wheel alone; a grid's scripts are those of the repository."""


def test_no_message_names_a_script_that_an_installed_package_lacks() -> None:
    scripts = re.compile("|".join(rf"\b{script.stem}\.py\b" for script in SCRIPTS))
    for path in (path for path in TELLING if scripts.search(path.read_text())):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert [text for text in texts if isinstance(text, str) and scripts.search(text)] == [], path


UNPUBLISHED = "mnasnet_050"
"""A small network of timm's that nobody has weights of."""
INSTEAD = ("--model", f"{UNPUBLISHED}_byol", "--init", UNPUBLISHED)


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "knn", UNPUBLISHED),
        ("evaluate", "linear", UNPUBLISHED, "--batch_size", "4"),
        ("evaluate", "finetune", UNPUBLISHED, "--batch_size", "4"),
        ("evaluate", "finetune", *INSTEAD[1:], "--batch_size", "4"),
        ("pretrain", "resnet8_byol.imagenette32_60ep", *INSTEAD),
        ("localise", UNPUBLISHED),
        ("embed", UNPUBLISHED),
        ("mine-pairs", UNPUBLISHED),
        ("predict", UNPUBLISHED),
        ("visualize", UNPUBLISHED),
        ("export", UNPUBLISHED, "--format", "torchvision"),
        ("bundle", UNPUBLISHED),
    ],
    ids=" ".join,
)
def test_a_network_that_nobody_publishes_is_one_sentence(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_folder(tmp_path / "photos" / "train", 12, ("bag", "hat"))
    image_folder(tmp_path / "photos" / "val", 6, ("bag", "hat"))
    asked = () if words[0] in ("export", "bundle") else ("--data", str(data))
    out = ("--out", str(tmp_path / "out.parquet"))
    assert commands.run(words[0], [*words[1:], *asked, *out], "ssl-backbones") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search("no weights are published for 'mnasnet_050'|no model, and no folder, is called 'mnasnet", said), (
        said
    )
