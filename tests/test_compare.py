"""Recipes and models become a table; a script of a few lines stands in for the commands that train and evaluate."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from image_sources import fill
from runs import image_folder

from ssl_backbones import commands, recipes
from ssl_backbones.commands import compare
from ssl_backbones.evaluate.comparison.comparison import Comparison, ComparisonError, Row
from ssl_backbones.evaluate.comparison.jobs import Job, carried_out
from ssl_backbones.evaluate.comparison.table import markdown

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

BYOL, MOCO = "resnet8_byol.imagenette96_100ep", "resnet8_moco_v2.imagenette96_100ep"
FLAGS = "resnet8_flags.imagenette32_18ep_global"
SMALLER = "resnet8_byol.imagenette32_60ep"


class Stand:
    """The command, whose runs and evaluations are made up."""

    def __init__(self, folder: Path) -> None:
        self.out, self.broken = folder / "out", "nothing"
        self.calls: list[str] = []

    def compare(self, *words: str) -> int:
        """The exit code of a comparison."""
        usual = ["--data", "photos", "--out", str(self.out)]
        usual += [] if "--protocols" in words else ["--protocols", "knn"]
        return commands.run("compare", [*words, *usual], "compare.py")

    def start(self, words: Sequence[str], log: BinaryIO) -> int:
        """A process that does nothing but leave a number, by its seed; its exit code."""
        assert list(words[:3]) == [sys.executable, "-m", "ssl_backbones"]
        words = words[3:]
        self.calls.append(" ".join(words))
        if self.broken in self.calls[-1]:
            log.write(b"this went wrong")
            return 3
        out = Path(words[words.index("--out") + 1])
        if words[0] == "mine-pairs":
            out.write_text(words[1])
            return 0
        out.mkdir(parents=True)
        value = 0.1 * int(words[words.index("--seed") + 1]) + (
            0.5 if words[0] == "pretrain" or "seed" in words[2] else 0.2
        )
        found = {"value": value, "low": value - 0.02, "high": value + 0.02}
        (out / "results.json").write_text(json.dumps({"numbers": {"top-1": found, "k=20, T=0.07": found}}))
        return 0

    @property
    def table(self) -> str:
        return (self.out / "table.md").read_text()


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand(tmp_path)
    image_folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssl_backbones.evaluate.comparison.jobs.run_to_end", made.start)
    return made


def of(*words: str) -> Comparison:
    """The comparison that words name."""
    return compare.comparison_of(compare.parse([*words, "--data", "photos"], "compare"))


def test_nothing_is_written_through_a_link_of_a_name_of_a_log(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.broken = "evaluate"
    assert stand.compare(BYOL) == 1
    somebodys = stand.out.parent / "somebodys"
    somebodys.write_bytes(b"before")
    for log in [path for path in stand.out.rglob("*.log") if b"wrong" in path.read_bytes()]:
        log.unlink()
        log.symlink_to(somebodys)
    stand.broken = "nothing"
    capsys.readouterr()
    assert stand.compare(BYOL) == 2
    assert "nothing is written through links" in capsys.readouterr().err
    assert somebodys.read_bytes() == b"before"


def test_recipes_become_a_table_and_nothing_is_done_twice(stand: Stand) -> None:
    words = (BYOL, MOCO, "--seeds", "0", "1", "--with_random", "--epochs", "9")
    assert stand.compare(*words) == 0
    assert (
        "| resnet8, random weights | 25.0 ± 63.5 |" in stand.table
    )  # Student's t of one degree of freedom: 12.7 x .05
    assert f"| {BYOL} | **55.0 ± 63.5** |" in stand.table
    assert "k-NN: 20 neighbours, temperature 0.07." in stand.table
    assert "mean over seeds 0, 1" in stand.table
    assert (stand.out / "table.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((stand.out / "table.json").read_bytes())
    cells = {row["label"]: row["cells"]["k-NN"] for row in told["rows"]}
    assert cells[MOCO] == pytest.approx(cells[BYOL])
    assert [(row["recipe"], row["model"]) for row in told["rows"][:2]] == [(None, "resnet8_byol"), (BYOL, None)]
    calls = stand.calls
    assert len(calls) == 2 * (1 + 2 * 2)
    for seed in (0, 1):
        (run,) = {
            call.split(" --out ")[1].split()[0] for call in calls if f"{BYOL} --data photos --seed {seed}" in call
        }
        assert f"pretrain {BYOL} --data photos --seed {seed} --out {run} --epochs 9" in calls
        assert any(call.startswith(f"evaluate knn {run} --data photos --seed {seed}") for call in calls)
        random = f"evaluate knn resnet8_byol --random --data photos --seed {seed}"
        assert any(call.startswith(random) and call.endswith("--size 64") for call in calls)
    assert stand.compare(*words) == 0
    assert stand.calls == calls


@pytest.mark.parametrize("part", ["data", "validation"])
def test_other_images_of_the_same_name_are_refused(
    part: str, stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path / "held")
    words = (BYOL, "--validation", "held")
    assert stand.compare(*words) == 0
    assert stand.compare(BYOL) == 0  # without the validation images it is another comparison
    named = {"data": "photos", "validation": "held"}[part]
    fill(tmp_path / named, "bag/00.jpg")
    done = len(stand.calls)
    capsys.readouterr()
    assert stand.compare(*words, "--seeds", "0", "1") == 2
    said = capsys.readouterr().err
    assert f"the images of {named} are not those that the comparison in" in said
    assert f"give it the same {part}, or name another folder" in said
    assert said.count("\n") == 1
    assert len(stand.calls) == done


def test_processes_are_started_by_what_is_told(tmp_path: Path) -> None:
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text(' '.join(sys.argv[1:])); print('made')"
    )
    words = ("pretrain", "sample", str(tmp_path / "done"))
    job = Job(words, tmp_path / "done", tmp_path / "logs" / "log")
    assert carried_out(job, (sys.executable, str(script))) == ""
    assert (tmp_path / "done").read_text() == f"-m ssl_backbones {' '.join(words)}"
    assert (tmp_path / "logs" / "log").read_text() == "made\n"
    assert carried_out(replace(job, done=tmp_path / "other"), (sys.executable, str(script))) == "0"


def test_models_stand_as_they_are(stand: Stand) -> None:
    assert stand.compare("--models", "resnet8_byol.imagenette32_60ep", str(stand.out / "mine")) == 0
    assert stand.table.count("20.0 ± 2.0") == 2
    assert [call.split()[:2] for call in stand.calls] == [["evaluate", "knn"]] * 2
    assert not any("--random" in call for call in stand.calls)


@pytest.mark.parametrize("inside", ["", "backbone"])
def test_other_weights_in_a_folder_are_evaluated_anew(inside: str, stand: Stand, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / inside
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    counts = []
    for content in (b"first", b"first", b"other"):
        (folder / "model.safetensors").write_bytes(content)
        stand.calls.clear()
        assert stand.compare("--models", str(tmp_path / "mine")) == 0
        counts.append(len(stand.calls))
    assert counts == [1, 0, 1]


def test_pairs_are_mined_first_and_once(stand: Stand) -> None:
    other = "resnet8_flags.imagenette32_13ep_global_local"
    assert stand.compare(MOCO, FLAGS, other, "--seeds", "0", "1") == 0
    comparison = replace(of(MOCO, FLAGS, other), out=stand.out)
    mined = [call for call in stand.calls if call.startswith("mine-pairs")]
    assert len(mined) == 2
    for seed in (0, 1):
        run, pairs = comparison.run_folder(comparison.rows[0], seed), comparison.pairs_file(comparison.rows[1], seed)
        assert mined[seed] == f"mine-pairs {run} --data photos --out {pairs}"
        assert sum(f"--method.pairs {pairs}" in call for call in stand.calls) == 2
    assert of(MOCO, FLAGS, "--pairs_from", "resnet8_byol.x").pairs_model(Row("f", FLAGS), 0) == "resnet8_byol.x"
    named = of(BYOL, MOCO, FLAGS, "--pairs_from", MOCO)
    assert named.pairs_model(named.rows[2], 0) == str(named.run_folder(named.rows[1], 0))
    with pytest.raises(ComparisonError, match="is trained on pairs: name the model to mine them by with --pairs_from"):
        of(FLAGS)
    own = replace(named, rows=(Row("own", FLAGS, words=("--method.pairs", "mine.parquet")),))
    assert own.pairs_file(own.rows[0], 0) is None


def test_pairs_of_another_model_of_the_same_last_name_are_others(tmp_path: Path) -> None:
    def places(model: str) -> tuple[Path, Path | None]:
        named = replace(of(FLAGS, "--pairs_from", model), out=Path("."))
        return named.run_folder(named.rows[0], 0), named.pairs_file(named.rows[0], 0)

    assert len({places(model) for model in ("hf-hub:alice/moco", "hf-hub:bob/moco", "a/moco", "b/moco")}) == 4
    folder = tmp_path / "moco"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    found = []
    for content in (b"first", b"first", b"other"):
        (folder / "model.safetensors").write_bytes(content)
        found.append(places(str(folder)))
    assert found[0] == found[1]
    assert all(before != after for before, after in zip(found[1], found[2], strict=True))


def test_options_of_reading_images_reach_every_command(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    reading = ("--max_pixels", "400000000", "--in_chans", "4", "--workers", "3")
    Path("photos").rename("rgb")
    for place in ("photos", "photos/train/a", "photos/train/b", "photos/val/a", "photos/val/b"):
        Path(place).mkdir(parents=True, exist_ok=True)
    for folder in Path("photos").glob("*/*"):
        np.save(folder / "0.npy", np.zeros((8, 8, 4), np.uint8))
    assert stand.compare(MOCO, FLAGS, *reading, "--protocols", "knn", "finetune") == 2
    assert "finetune takes RGB alone: leave it out of --protocols" in capsys.readouterr().err
    assert stand.compare(MOCO, FLAGS, *reading, "--views", "channels") == 0
    assert {call.split()[0] for call in stand.calls} == {"pretrain", "mine-pairs", "evaluate"}
    for call in stand.calls:
        for name, value in zip(reading[::2], reading[1::2], strict=True):
            assert f"{name} {value}" in call


@pytest.mark.parametrize("order", list(permutations([FLAGS, MOCO, BYOL])))
def test_a_row_that_pairs_are_mined_by_is_trained_before(order: tuple[str, ...], stand: Stand) -> None:
    assert stand.compare(*order, "--pairs_from", MOCO) == 0
    at = {word: next(n for n, call in enumerate(stand.calls) if call.startswith(f"pretrain {word}")) for word in order}
    assert at[MOCO] < at[FLAGS]
    rows = [line.split(" | ")[0].strip("| ") for line in stand.table.splitlines() if line.startswith("| resnet8")]
    assert rows == list(order)


@pytest.mark.parametrize("name", ["seed", "out", "data", "validation"])
def test_what_each_run_is_given_is_no_option_of_all(name: str, stand: Stand) -> None:
    with pytest.raises(ComparisonError, match=rf"^--{name} would be alike in all runs"):
        replace(of(BYOL), words=(f"--{name}", "5"))


def test_seed_for_seeds_is_refused(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert stand.compare(BYOL, "--seed", "1") == 2
    assert "name seeds with --seeds" in capsys.readouterr().err
    assert not stand.calls


def test_random_weights_at_two_sizes_are_two_rows() -> None:
    sizes = {recipes.get(name).size for name in (BYOL, SMALLER)}
    labels = [row.label for row in of(BYOL, SMALLER, "--with_random").rows if row.random]
    assert labels == [f"resnet8 at {size} px, random weights" for size in sorted(sizes)]
    assert [row.label for row in of(BYOL, MOCO, "--with_random").rows if row.random] == ["resnet8, random weights"]


def test_no_table_tells_what_opens_an_address(stand: Stand, tmp_path: Path) -> None:
    hidden = replace(of(BYOL), data="https://user:SECRET@host/x.parquet", out=tmp_path / "out")
    assert "SECRET" not in markdown(hidden, {})
    made = compare.comparison_of(compare.parse([BYOL, "--data", "https://user:SECRET@host/x.parquet"], "compare"))
    assert "SECRET" not in made.title
    markdown(replace(hidden, data="caf\udce9"), {}).encode()


def test_what_failed_is_said_and_tried_again(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.broken = "evaluate"
    assert stand.compare(BYOL) == 1
    said = capsys.readouterr()
    assert "ended with 3; see " in said.out
    assert f"| {BYOL} | not measured |" in said.out
    assert "1 failed" in said.err
    stand.broken = "nothing"
    assert stand.compare(BYOL) == 0
    table = capsys.readouterr().out
    assert f"| {BYOL} | 50.0 ± 2.0 |" in table
    assert "one seed" in table
    assert "mean over seeds" not in table


def test_a_column_that_fails_leaves_the_others(stand: Stand) -> None:
    stand.broken = "evaluate knn"
    assert stand.compare(BYOL, "--protocols", "knn", "logistic") == 1
    assert f"| {BYOL} | not measured | 50.0 ± 2.0 |" in stand.table


@pytest.mark.parametrize("broken", ["mine-pairs", f"pretrain {FLAGS}"])
def test_without_its_backbone_a_row_ends(broken: str, stand: Stand) -> None:
    stand.broken = broken
    assert stand.compare(BYOL, FLAGS) == 1
    assert f"| {FLAGS} | not measured |" in stand.table
    assert sum(call.startswith("evaluate") for call in stand.calls) == 1


def test_other_words_lie_elsewhere() -> None:
    usual = of(BYOL, MOCO, FLAGS)
    byol, _, flags = usual.rows
    (column,) = {column for column in usual.columns if column.protocol == "knn"}
    alike = [
        usual,
        of(BYOL, MOCO, FLAGS, "--epochs=100", "--log_every", "3"),  # what it is already, and what makes it no other run
        of(BYOL, MOCO, FLAGS, "--workers", "3"),  # and so with what decides no number
        replace(usual, out=Path("moved")),
    ]
    assert len({each.run_folder(byol, 0).name for each in alike}) == 1
    assert len({each.results(byol, column, 0).parent.name for each in alike}) == 1
    assert len({each.pairs_file(flags, 0).name for each in alike}) == 1  # type: ignore[union-attr]
    others = [
        usual,
        of(BYOL, MOCO, FLAGS, "--epochs", "9"),
        replace(usual, data="others"),
        replace(usual, validation="others"),
        replace(usual, rows=(replace(byol, words=("--optimizer.lr", "9")), *usual.rows[1:])),
    ]
    for row in range(3):
        places = {each.run_folder(each.rows[row], seed) for each in others for seed in (0, 1)}
        assert len(places) == (10 if row != 1 else 8)  # BYOL's own words are none of MoCo's, but pairs are by BYOL
        assert len({each.results(each.rows[row], column, 0) for each in others}) == len(places) // 2
    assert len({each.pairs_file(each.rows[2], seed) for each in others for seed in (0, 1)}) == 10
    asked = [column, replace(column, words=("--size", "64"))]
    assert len({usual.results(byol, each, 0) for each in asked}) == 2
    run = usual.run_folder(byol, 0).name
    assert re.fullmatch(r"seed0\.\w{8}", run)
    assert re.fullmatch(rf"{run}\.knn\.\w{{8}}", usual.results(byol, column, 0).parent.name)
    random = Row("r", model="resnet8", random=True)
    assert usual.results(random, column, 0).parent.parent.name == "resnet8.random"
    assert usual.results(random, column, 0) != usual.results(replace(random, size=32), column, 0)
    assert flags.recipe == FLAGS


def test_what_the_table_needs_is_asked_for_before_any_work(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert stand.compare(BYOL) == 2
    assert capsys.readouterr().err == "compare.py: matplotlib is not installed: pip install 'ssl-backbones[viz]'\n"
    assert not stand.out.exists()


def test_what_the_table_needs_is_in_the_extra_that_is_named() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert "matplotlib" in {re.split(r"\W", line)[0] for line in project["optional-dependencies"]["viz"]}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "there are no rows to compare: give at least one"),
        (("resnet8_boyl.x",), "'resnet8_boyl.x' is not a recipe"),
        ((BYOL, BYOL), f"the row '{BYOL}' stands twice"),
        ((BYOL, "--seeds", "1", "1"), "a seed stands twice"),
        ((BYOL, "--protocols", "knm"), "protocols is 'knm', but must be one of knn, logistic"),
        ((BYOL, MOCO, "--method.queue_size", "9"), "--method.queue_size is no option of"),
        ((BYOL, "--epochs", "many"), "--epochs is many, but must be a whole number"),
        ((BYOL, "--epochs", "0"), "epochs is 0, but must be at least 1"),
        ((BYOL, "--epoch", "9"), "the nearest: --epochs"),
    ],
)
def test_what_does_not_hang_together(
    words: Sequence[str], expected: str, stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stand.compare(*words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("compare.py: ")
    assert expected in said
    assert len(said.splitlines()) == 1
    assert not stand.calls


def test_rows_that_cannot_be() -> None:
    with pytest.raises(ComparisonError, match="either a recipe or a model"):
        Row("A")
    with pytest.raises(ComparisonError, match="either a recipe or a model"):
        Row("A", BYOL, "resnet8")
    with pytest.raises(ComparisonError, match="random weights, which a recipe has not"):
        Row("A", BYOL, random=True)
