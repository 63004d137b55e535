"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import in_repository
from house_rules import (
    QUOTED,
    RULES,
    handles_tensors,
    long_functions,
    questions,
    raised,
    sources,
    states_shape,
    text,
    tree,
)
from test_imports import WITH_EXTRA

import ssl_backbones

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("ssl_backbones", "training", "tests", "benchmarks", "model_cards", ".ci", ".github")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".json", ".cfg", ""}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
STANDARD = set(sys.stdlib_module_names)
WORKFLOWS = ROOT / ".github" / "workflows"


def files() -> list[Path]:
    """Every text file of the repository, less what tools leave behind."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return sorted(path for path in [*ROOT.iterdir(), *inside] if path.is_file() and path.suffix in TEXT and tidy(path))


def tidy(path: Path) -> bool:
    """True for a file that is neither in a cache nor a hidden one of some tool's at the top."""
    return "__pycache__" not in path.parts and path.name not in {".git", ".coverage"}


SOURCES = [path for path in files() if path.suffix == ".py"]
OURS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in {"ssl_backbones", "training"}]
LIBRARY = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "ssl_backbones"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unsafe(source: ast.AST) -> list[str]:
    """Each place in a source that could run code found in a file."""
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found += [f"line {node.lineno}: import {a.name}" for a in node.names if a.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            found.append(f"line {node.lineno}: from {node.module}")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(f"line {node.lineno}: torch.load without weights_only=True")
            if given.get("allow_pickle", "False") != "False":
                found.append(f"line {node.lineno}: {called} with allow_pickle")
    return found


def test_no_file_can_run_code_by_being_read() -> None:
    words = re.compile("|".join([*PICKLES, r"torch\.load", "allow_pickle"]))
    found = [path for path in OURS if words.search(text(path))]
    assert [f"{relative(path)}, {place}" for path in found for place in unsafe(tree(path))] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_what_could_run_code_is_seen(source: str) -> None:
    assert len(unsafe(ast.parse(source))) == 1


def test_no_path_of_a_machine_is_written_down() -> None:
    places = [str(ROOT.parent), str(Path.home())]
    here = "|".join(re.escape(place) + r"/\w" for place in places if place != "/")
    machine = re.compile(rf"(?<![\w.])(?:{here}|/(?:home|Users|root)/\w)")
    assert machine.search(f"see {ROOT}")
    found = [relative(path) for path in files() if machine.search(text(path))]
    assert found == []


def undocumented(tree: ast.Module) -> list[str]:
    """The module, its public classes and its public functions that have no docstring."""
    named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    silent = [node.name for node in named if not node.name.startswith("_") and not ast.get_docstring(node)]
    return silent if ast.get_docstring(tree) or not tree.body else ["the module", *silent]


def test_what_is_public_says_what_it_is() -> None:
    assert [f"{relative(path)}: {name}" for path in OURS for name in undocumented(tree(path))] == []


@pytest.mark.parametrize("rule", RULES)
def test_nothing_breaks_a_rule(rule: str) -> None:
    assert sorted(set(RULES[rule]())) == []


def test_each_error_and_warning_has_a_name_of_its_own() -> None:
    classes = (
        node for path in sources("ssl_backbones") for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)
    )
    names = Counter(node.name for node in classes if node.name.endswith(("Error", "Warning")))
    assert [name for name, count in names.items() if count > 1] == []


def function(source: str) -> ast.FunctionDef:
    """The first function of a source."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def test_a_long_function_is_seen() -> None:
    lines = "\n        pass"
    assert list(long_functions(ast.parse(f"class A:\n    def f(self):{lines * 39}"))) == []
    assert list(long_functions(ast.parse(f"class A:\n    def f(self):{lines * 40}"))) == ["A.f"]


@pytest.mark.parametrize("docstring", ["What it is.", "By how much.", "\n    Whether\n    it is.", "Of SGD."])
def test_a_question_is_seen(docstring: str) -> None:
    source = f'def f():\n    """{docstring}"""'
    assert len(list(questions(ast.parse(source)))) == 1
    assert QUOTED.search(source)


@pytest.mark.parametrize(
    "docstring", ["Whatever is left.", "Show what it is.", "Howard's equation.", "Offsets.", "A list of rows."]
)
def test_a_statement_is_no_question(docstring: str) -> None:
    source = f'def f():\n    """{docstring}"""'
    assert list(questions(ast.parse(source))) == []
    assert not QUOTED.search(source)


@pytest.mark.parametrize(
    ("signature", "said", "well"),
    [
        ("def f(x: Tensor): ...", "Features (B, D).", True),
        ("def f(x: int) -> dict[str, torch.Tensor]: ...", "Maps (B, H * W) of images (B, 3, H, W).", True),
        ("def f(*x: Tensor): ...", "The loss, a scalar.", True),
        ("def f(x: Tensor): ...", "Features (..., 2).", True),
        ("def f(x: Tensor): ...", "Features (a paper's own).", False),
        ("def f(x: Tensor): ...", "Features (see Eq. 4).", False),
        ("def f(x: Tensor): ...", "Features, for short.", False),
        ("def f(x: int): ...", "A count.", True),
    ],
)
def test_a_missing_shape_is_seen(signature: str, said: str, well: bool) -> None:
    assert (not handles_tensors(function(signature)) or states_shape(said)) == well


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f():\n    raise ValueError('no')", {"ValueError"}),
        ("def f():\n    if a:\n        raise errors.FetchError from error", {"FetchError"}),
        ("def f():\n    def g():\n        raise ValueError\n    return g", set()),
        ("def f():\n    raise", set()),
        ("def f():\n    raise NotImplementedError", set()),
    ],
)
def test_what_is_raised_is_seen(source: str, names: set[str]) -> None:
    assert raised(function(source)) == names


def test_the_licence_is_apache_2_word_for_word() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirement(line: str) -> str:
    """The name of the distribution that a requirement asks for."""
    return re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower().replace("_", "-")


def test_the_core_installs_little(project: dict[str, Any]) -> None:
    core = {requirement(line) for line in project["project"]["dependencies"]}
    assert core == {"torch", "timm", "huggingface-hub", "safetensors", "numpy", "pillow", "jinja2"}


def test_what_the_library_imports_at_once_is_required(project: dict[str, Any]) -> None:
    core = {requirement(line).replace("-", "_") for line in project["project"]["dependencies"]} | {
        "PIL",
        "ssl_backbones",
    }
    optional = {"pyarrow", "datasets"}  # of files that are imported only when such data are asked for
    for path in LIBRARY:
        if relative(path).split("/")[1] in WITH_EXTRA:
            continue
        for node in tree(path).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names} - core - optional
            assert roots <= STANDARD, f"{relative(path)} imports {sorted(roots - STANDARD)}"


def test_extras_name_what_exists(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    assert {"train", "viz", "test", "dev"} <= set(extras)
    for line in (line for lines in extras.values() for line in lines if requirement(line) == "ssl-backbones"):
        named = re.search(r"\[(.*)\]", line)
        assert named
        assert set(named[1].split(",")) <= set(extras)


PACKAGES = {
    "cv2": "opencv-python-headless",
    "nbformat": "nbclient",  # which brings it
    "pytorch_grad_cam": "grad-cam",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
}
"""The distributions of modules that are called otherwise."""


@in_repository
def test_a_job_installs_whatever_a_test_is_skipped_without(project: dict[str, Any]) -> None:
    tests = "".join(text(path) for path in (ROOT / "tests").glob("test_*.py"))
    wanted = set(re.findall(r"(?:importorskip|quiet_import)\(\"(\w+)", tests)) - {"ssl_backbones"}
    extras = project["project"]["optional-dependencies"].values()
    weekly = text(WORKFLOWS / "slow.yml").split()
    installed = {requirement(line) for lines in extras for line in lines} | set(weekly)
    assert {PACKAGES.get(name, name) for name in wanted} - installed == set()


def test_the_distributions_hold_what_they_should(project: dict[str, Any]) -> None:
    build = project["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["packages"] == ["ssl_backbones"]
    assert {"/ssl_backbones", "/training", "/tests", "/LICENSE", "/README.md", "/CHANGELOG.md"} <= set(
        build["sdist"]["include"]
    )
    assert project["project"]["license"] == "Apache-2.0"
    assert project["project"]["license-files"] == ["LICENSE"]
    assert project["project"]["scripts"] == {"ssl-backbones": "ssl_backbones.__main__:main"}
    assert (ROOT / "ssl_backbones" / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", ssl_backbones.__version__)
    # hatchling leaves out of the wheel what git ignores, weights included.
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert not {"*.safetensors", "*.parquet", "*.json", "*.png"} & set(ignored)


@in_repository
@pytest.mark.parametrize("name", sorted(path.name for path in WORKFLOWS.glob("*.yml")) or ["ci.yml"])
def test_a_workflow_names_the_version_of_every_action(name: str) -> None:
    """GitHub refuses a whole workflow for one that has none."""
    jobs = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job.get("steps", ())]
    assert steps
    assert [
        step["uses"] for step in steps if "uses" in step and not re.fullmatch(r"[\w./-]+@[\w./-]+", step["uses"])
    ] == []
    assert all(("uses" in step) != ("run" in step) for step in steps)


@in_repository
def test_nothing_is_released_that_the_tests_did_not_pass() -> None:
    jobs = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["tests"] == {"uses": "./.github/workflows/ci.yml"}
    assert "tests" in jobs["pypi"]["needs"]
    assert re.search(r"^  workflow_call:$", (WORKFLOWS / "ci.yml").read_text(encoding="utf-8"), re.MULTILINE)


@in_repository
def test_every_slow_test_has_its_job_each_week() -> None:
    weekly = (WORKFLOWS / "slow.yml").read_text(encoding="utf-8")
    places = yaml.safe_load(weekly)["jobs"]["slow"]["strategy"]["matrix"]["files"]
    run = [path for files in places for path in (ROOT / "tests").glob(f"test_{files}.py")]
    assert sorted(run) == sorted((ROOT / "tests").glob("test_*.py"))
    assert "cron: " in weekly
    assert "-m slow tests/test_${{ matrix.files }}.py" in weekly


def test_the_readme_says_how_to_test() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- test-command -->(.*?)<!-- /test-command -->", readme, re.DOTALL)
    assert len(found) == 1, "README.md holds the test command once, between the marks that .ci/run looks for"
    assert "pytest" in found[0]


def test_the_changelog_is_kept() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "keepachangelog.com" in changelog
    assert re.search(r"^## \[Unreleased\]", changelog, re.MULTILINE)
    version = ssl_backbones.__version__
    dated = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert dated or ".dev" in version, (
        "a version without .dev has a section with its date, as the release workflow asks"
    )
    if dated:
        cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        assert (cited["version"], str(cited["date-released"])) == (version, dated[1])
        assert f"\n[{version}]: " in changelog
