"""Odd words of a command line: of 5,000 letters, with zero bytes, huge numbers, other digits, paths that lead out."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_backbones import commands
from ssl_backbones.typed.words import CommandLineError, options, read
from ssl_backbones.visualizers.embedding import embed_2d

LONG = "x" * 5000
ODD = {
    "long": LONG,
    "long number": "9" * 5000,
    "beyond 64 bits": "9" * 25,
    "below 64 bits": "-" + "9" * 25,
    "zero byte": "a\0b",
    "half a letter": "\ud800",
    "other digits": "１２",
    "not a number": "nan",
    "infinity": "inf",
    "too large": "1e400",
    "leads out": "../../x",
    "long name": "/" + "y" * 300,
    "empty": "",
    "markup": "<b>|`",
}
FIRST: dict[str, tuple[str, ...]] = {
    "bundle": ("NOWHERE", "--out", "out"),
    "convert": ("NOWHERE", "--out", "out"),
    "describe": ("NOWHERE",),
    "embed": ("resnet8", "--random", "--data", "NOWHERE", "--out", "out.parquet"),
    "export": ("NOWHERE", "--format", "onnx", "--out", "out.onnx"),
    "import": ("NOWHERE", "NOWHERE"),
    "list": (),
    "mine-pairs": ("NOWHERE", "--data", "NOWHERE", "--out", "out.parquet"),
    "predict": ("NOWHERE", "--data", "NOWHERE", "--out", "out.parquet"),
    "publish": ("NOWHERE", "--repo", "a/b", "--dry_run"),
    "tables": (),
    "verify": ("NOWHERE",),
    "visualize": ("NOWHERE", "--data", "NOWHERE", "--out", "out"),
}
"""The words with which each command ends soon, as there is nothing where they say."""
ASIDE = {"compare", "correspond", "detect", "evaluate", "localise", "plan", "pretrain", "segment"}
"""The others, which take longer."""
QUICK = {"bundle", "describe", "list", "tables", "verify"}
COMMANDS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FIRST]
"""Those that are not quick have many options, each of which is tried."""


def test_every_command_is_asked_or_left_aside() -> None:
    assert sorted([*FIRST, *ASIDE]) == sorted(commands.modules())


def asked(command: str) -> list[str]:
    """The options of a command, by the names that its dataclass has for them."""
    module = import_module(f"ssl_backbones.commands.{commands.modules()[command]}")
    return [f"--{name}" for name, option in options(module.Options).items() if not option.positional]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_word_anywhere_ends_in_a_sentence(
    command: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = list(FIRST[command])
    lines = [[*words[:at], ODD[kind], *words[at + 1 :]] for at, word in enumerate(words) if word == "NOWHERE"]
    for line in [*lines, *([*words, option, ODD[kind]] for option in asked(command))]:
        code = commands.main([command, *line])
        said = capsys.readouterr().err
        assert code in (0, 1, 2)
        assert (code == 0) or (said.count("\n") == 1 and len(said) < 2500), (line, said[:300])
        assert "[Errno" not in said
        assert "Traceback" not in said
    assert not (tmp_path.parent / "x").exists()


NUMBERS = [
    (name, kind)
    for name in ("embed", "localise", "visualize", "mine_pairs")
    for kind in [import_module(f"ssl_backbones.commands.{name}").Options]
    if is_dataclass(kind) and any(field.name == "seed" for field in fields(kind))
]


@pytest.mark.parametrize(("name", "kind"), NUMBERS, ids=[name for name, _ in NUMBERS])
@pytest.mark.parametrize("word", ["-1", str(2**63), str(2**64), "１", "1.0", "nan"])
def test_a_seed_that_no_generator_takes_is_refused(name: str, kind: Any, word: str) -> None:
    places = {"embed": ["m", "--data", "d", "--out", "o.npy"], "visualize": ["m", "--data", "d", "--out", "o"]}
    line = places.get(name, ["m", "--data", "d", "--out", "o"])
    assert read(kind, [*line, "--seed", str(2**63 - 1)], name, "").seed == 2**63 - 1
    with pytest.raises(CommandLineError, match="seed"):
        read(kind, [*line, "--seed", word], name, "")


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_large_seeds_lay_features_out(method: Any) -> None:
    if method == "umap":
        pytest.importorskip("umap")
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    import torch

    found = {seed: embed_2d(torch.from_numpy(rows), method, seed=seed).places for seed in (3, 2**32 + 3, 2**63 - 1)}
    assert np.array_equal(found[3], found[2**32 + 3])
    assert all(np.isfinite(places).all() for places in found.values())


def test_long_words_are_cut_in_every_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([LONG]) == 2
    assert len(capsys.readouterr().err) < 1000
    assert commands.main(["describe", f"--{LONG}"]) == 2
    assert "... (5,0" in capsys.readouterr().err
