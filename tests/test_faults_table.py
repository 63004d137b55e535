"""The table of faults names tests that there are, and leaves none of those about faults out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from conftest import ROOT, in_repository

TABLE = ROOT / "docs" / "reliability.md"
NAMED = re.findall(r"(\*(?:partly )?slow\* )?`(test_\w+\.py)::(test_\w+)`", TABLE.read_text(encoding="utf-8"))
SLOW = "pytest.mark.slow"


@cache
def written_in(path: Path) -> dict[str, str]:
    """The tests of a file, and the mark of each in the table: all of it slow, a part of its parameters, or nothing.

    The parameters of the file's own fixtures are those of the tests that take them.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    constants["STAND_INS"] = SLOW  # of small_methods.py
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = {}
    for name in (name for name in functions if name.startswith("test_")):
        fixtures = [functions[given.arg] for given in functions[name].args.args if given.arg in functions]
        marks = [mark for function in (functions[name], *fixtures) for mark in function.decorator_list]
        used = {part.id for mark in marks for part in ast.walk(mark) if isinstance(part, ast.Name)}
        own = [ast.unparse(mark) for mark in marks]
        whole = [*own, *(constants[name] for name in used if name in constants)]
        found[name] = "*slow* " if SLOW in own else "*partly slow* " if SLOW in " ".join(whole) else ""
    return found


def test_every_test_that_is_named_is_there() -> None:
    found = {file: written_in(ROOT / "tests" / file) for _, file, _ in NAMED}
    assert [name for _, file, name in NAMED if name not in found[file]] == []
    assert [name for slow, file, name in NAMED if found[file][name] != slow] == []


def test_every_row_has_a_test() -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    told = [row for row in rows if not row.startswith("| fault")]
    assert len(told) > 50
    assert [row for row in told if not re.search(r"`test_\w+\.py::test_\w+`", row.rsplit("|", 2)[1])] == []


def test_every_test_of_a_fault_is_in_the_table() -> None:
    aside = {
        "test_the_images_named_are_those_of_the_batch",
        "test_other_errors_of_torch_are_left_as_they_are",
        "test_a_hub_that_is_kind_gives_a_model",
    }
    named = {name for *_, name in NAMED}
    files = [path for path in (ROOT / "tests").glob("test_faults_*.py") if path != Path(__file__)]
    assert {name for path in files for name in written_in(path)} - named == aside


@in_repository
def test_what_wants_an_administrator_is_run_by_one() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_faults_[!t]*.py")}
    wanting = {name for name, text in files.items() if "geteuid() != 0" in text or "only an administrator" in text}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"test_\w+\.py", workflow.partition("sudo -E")[2].partition("\n\n")[0])) == wanting
