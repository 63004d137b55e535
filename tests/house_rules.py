"""Rules of the house over sources: lengths, how docstrings begin, and whether they state shapes and errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssl_backbones.typed.docstrings import docstrings

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("ssl_backbones", "training", "benchmarks", ".ci")

MAX_FUNCTION = 40
MAX_FILE = 300

QUESTION = re.compile(
    r"(?:(?:as|at|by|for|from|in|into|of|on|to|under|until|with)\s+)?(?:how|what|when|where|whether|which|whom?|whose|why)\b"
    r"|of\b",
    re.IGNORECASE,
)
QUOTED = re.compile(rf"^[ \t]*[a-z]*[\"'][\"'\s\\]*(?:{QUESTION.pattern})", re.IGNORECASE | re.MULTILINE)
"""Found in every file that holds such a docstring, and in few others."""
DIMENSION = r"(?:\.\.\.|\d+|\d*\s?[A-Za-z]\w{0,2}'?(?:\s?[ *+/x-]\s?\d*[A-Za-z0-9]\w{0,2}'?)*)"
SHAPE = re.compile(rf"\(({DIMENSION}(?:, ?{DIMENSION})*,?)\)")


CLEAR = {"views"}
"""Fields whose name says all."""


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    """Every Python file in folders of the repository, sorted."""
    return tuple(sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")))


@cache
def text(path: Path) -> str:
    """The text of a file, read once."""
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once."""
    return ast.parse(text(path))


def long_functions(module: ast.AST, prefix: str = "") -> Iterator[str]:
    """Qualified names of the functions that are longer than a screen."""
    for node in ast.iter_child_nodes(module):
        name = f"{prefix}{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= MAX_FUNCTION:
            yield name
        yield from long_functions(node, f"{name}." if hasattr(node, "name") else prefix)


def questions(module: ast.AST) -> Iterator[str]:
    """First lines of docstrings that begin with a question word or with "of", so without their noun; of fields too."""
    for node in ast.walk(module):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first = node.value.value.strip().partition("\n")[0]
            if QUESTION.match(first):
                yield first


def exported() -> list[Any]:
    """Every class and function of ours that a room of the package lists in `__all__`, each once."""
    found = {}
    for path in sources("ssl_backbones"):
        if "__all__" in text(path):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            module = importlib.import_module(name)
            for offered in (getattr(module, name) for name in module.__all__):
                if inspect.isfunction(offered) or inspect.isclass(offered):
                    found[f"{offered.__module__}.{offered.__qualname__}"] = offered
    return [found[name] for name in sorted(found) if name.startswith("ssl_backbones")]


@cache
def documented() -> tuple[tuple[str, ast.FunctionDef, str], ...]:
    """Name, syntax tree and docstring of each exported function and each public method of an exported class.

    What makes or calls an object is documented by its class as well.
    """
    found = []
    for offered in exported():
        if inspect.isfunction(offered):
            found.append((offered.__qualname__, offered, inspect.getdoc(offered) or ""))
            continue
        for part, raw in vars(offered).items():
            function = getattr(getattr(raw, "__func__", raw), "fget", getattr(raw, "__func__", raw))
            own = {"__init__", "__post_init__", "__call__", "forward"}
            if getattr(function, "__module__", "") == "typing":
                continue  # typing gives every protocol an __init__ of its own
            if inspect.isfunction(function) and (part in own or not part.startswith("_")):
                said = inspect.getdoc(getattr(offered, part)) or ""
                about = f"{said}\n{offered.__doc__}" if part in own else said
                found.append((f"{offered.__qualname__}.{part}", function, about))
    parsed = ((name, function_tree(function), said) for name, function, said in found)
    return tuple((name, node, said) for name, node, said in parsed if node is not None)


@cache
def functions_by_line(path: Path) -> dict[int, ast.FunctionDef]:
    """The functions of a file by their first lines, decorators included."""
    nodes = (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))
    return {min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]): node for node in nodes}


def function_tree(function: Callable[..., Any]) -> ast.FunctionDef | None:
    """The syntax tree of a function; None for one that no file holds, as a dataclass's `__init__`."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    return functions_by_line(path).get(code.co_firstlineno) if path.is_file() else None


def handles_tensors(function: ast.FunctionDef) -> bool:
    """True if the signature of a function names a tensor."""
    given = ast.unparse(function.args)
    return (
        re.search(r"\bTensor\b", f"{given} -> {ast.unparse(function.returns) if function.returns else ''}") is not None
    )


def states_shape(said: str) -> bool:
    """True if a docstring holds a shape as letters, such as (B, D), or says that a tensor is a scalar."""
    shapes = (match[1] for match in SHAPE.finditer(said))
    return "scalar" in said or any(re.search(r"[A-Z]|\.\.\.", shape) for shape in shapes)


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of the exceptions that a function itself raises; an abstract method's NotImplementedError is none."""

    def own(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            yield child
            if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
                yield from own(child)

    thrown = [node.exc for node in own(function) if isinstance(node, ast.Raise) and node.exc is not None]
    names = {ast.unparse(error.func if isinstance(error, ast.Call) else error).split(".")[-1] for error in thrown}
    return {name for name in names if name[0].isupper()} - {"NotImplementedError"}


def no_shape() -> Iterator[str]:
    """Names of the exported functions that handle tensors and state no shape."""
    yield from (name for name, node, said in documented() if handles_tensors(node) and not states_shape(said))


def no_raises() -> Iterator[str]:
    """Names of the exported functions, each with an exception that it raises and its docstring does not name."""
    for name, node, said in documented():
        yield from (f"{name}: {error}" for error in sorted(raised(node)) if error not in said)


def silent() -> Iterator[str]:
    """Names of the methods and fields of exported classes that nothing is said about."""
    yield from (name for name, _, said in documented() if not said.strip())
    for kind in exported():
        if is_dataclass(kind):
            said = f"{docstrings(kind)} {kind.__doc__}"
            names = (field.name for field in fields(kind) if field.name not in CLEAR)
            yield from (f"{kind.__qualname__}.{name}" for name in names if not re.search(rf"\b{name}\b", said))


RULES: dict[str, Callable[[], Iterator[str]]] = {
    "long_functions": lambda: (name for path in sources(*PRODUCT) for name in long_functions(tree(path))),
    "long_files": lambda: (
        str(path.relative_to(ROOT)) for path in sources(*PRODUCT) if text(path).count("\n") > MAX_FILE
    ),
    "questions": lambda: (
        first for path in sources(*PRODUCT, "tests") if QUOTED.search(text(path)) for first in questions(tree(path))
    ),
    "no_shape": no_shape,
    "no_raises": no_raises,
    "silent": silent,
}
"""The violations of each rule, a line each."""
