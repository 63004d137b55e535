"""Write the pages of the site that follow from the code: commands, methods, recipes, weights and the reference.

Sphinx runs it before it builds (conf.py). What is public and has no docstring ends the build with its name.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from ssl_backbones import commands
from ssl_backbones.catalogue import describe, list_models
from ssl_backbones.data import open_images
from ssl_backbones.methods import METHODS
from ssl_backbones.recipes import RECIPES, Recipe
from ssl_backbones.registry.tags import TAGS
from ssl_backbones.typed.docstrings import docstrings
from ssl_backbones.views import IMAGENET_MEAN, IMAGENET_STD
from ssl_backbones.visualizers import grid

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ROOT / "docs" / "generated"
SOURCE = "https://github.com/ssl-backbones/ssl-backbones/blob/main"
PUBLIC = (
    "ssl_backbones",
    "ssl_backbones.methods",
    "ssl_backbones.losses",
    "ssl_backbones.views",
    "ssl_backbones.data",
    "ssl_backbones.metrics",
    "ssl_backbones.mining",
    "ssl_backbones.models",
    "ssl_backbones.hub",
    "ssl_backbones.visualizers",
    "ssl_backbones.optimizers",
    "ssl_backbones.convert",
    "ssl_backbones.fetch",
    "ssl_backbones.commands",
)
"""Packages whose `__all__` is public."""
COUNTED = json.loads((ROOT / "benchmarks" / "results" / "activation_memory.json").read_bytes())["counted"]
MEMORY = {(row["model"], row["size"]): row["kept"]["gb_per_256_images"] for row in COUNTED}
"""GB kept for 256 images, by a network with its method and a size."""
PAPER = re.compile(r"^([^(]+) \(.*(https?://[^)]+)\)$")
"""A paper's name, its authors and year, and its address."""
IMAGE, SIDE = 5, 96
"""The sample image whose views are shown, and the side of a view."""


class UndocumentedError(Exception):
    """A public name, field or option that nothing is said about."""


class BrokenLinkError(Exception):
    """A link to a file that the repository has not."""


def write(path: str, *lines: str) -> None:
    """Write a page of the site."""
    place = GENERATED / path
    place.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        place.write_text(text, encoding="utf-8")


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """A table of Markdown."""
    cells = [head, ("---",) * len(head), *rows]
    return ["", *("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells), ""]


def command_pages() -> None:
    """A page for each command with its own help, and one that lists them."""
    rows = []
    for command, module in commands.modules().items():
        loaded = import_module(f"ssl_backbones.commands.{module}")
        about = inspect.getdoc(loaded) or ""
        rows.append((f"[`{command}`]({command}.md)", about.partition("\n")[0]))
        usage = [helps(command), *(helps(command, protocol) for protocol in getattr(loaded, "PROTOCOLS", ()))]
        write(f"commands/{command}.md", f"# {command}", "", *(f"```text\n{one}\n```\n" for one in usage))
    about = "`ssl-backbones COMMAND`, or `accelerate launch -m ssl_backbones COMMAND` on several devices."
    index("commands", "Commands", about, table(("command", "what it does"), rows), list(commands.modules()))


def helps(command: str, protocol: str = "") -> str:
    """The help of a command, as it prints it; UndocumentedError names an option that has no text."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        commands.main([command, *([protocol] if protocol else []), "--help"])
    for bare in re.finditer(r"^  (-.+)\n(?!      )", said.getvalue(), re.MULTILINE):
        raise UndocumentedError(f"{bare[1]} of ssl-backbones {command} {protocol} has no text below its field.")
    return said.getvalue().rstrip()


def method_pages() -> None:
    """A page for each method: its paper, views, fields and recipes; and one that lists them."""
    rows = []
    for name, kind in sorted(METHODS.items()):
        paper = kind.paper
        module = import_module(kind.__module__)
        rows.append((f"[{paper.label}]({name}.md)", f"`{kind.__name__}`", str(paper), paper.labels or "none"))
        recipes = [recipe for recipe in RECIPES.values() if recipe.method.name == name]
        place = f"{SOURCE}/{Path(module.__file__ or '').relative_to(ROOT)}"
        write(
            f"methods/{name}.md",
            f"# {paper.label}",
            "",
            f"{inspect.getdoc(module)}",
            "",
            f"[Its file]({place}). Models: `resnet50_{name}`, or any other network of timm's with feature maps. "
            f"Pretrained {paper.labels or 'without labels'}.",
            "",
            *views_of(name, kind),
            "## Fields",
            *table(("field", "default", "what it is"), list(fields_of(kind))),
            "## Recipes",
            *(recipe_rows(recipes) if recipes else ["", "None yet.", ""]),
            "## Reference\n\n[ssl_backbones.methods](../reference/ssl_backbones.methods.md).",
        )
    index("methods", "Methods", "Each is one file that reads like its paper, and one final class.",
          table(("method", "class", "paper", "labels"), rows), sorted(METHODS))  # fmt: skip


def index(folder: str, title: str, about: str, lines: list[str], pages: list[str]) -> None:
    """A page that lists others, which stand below it in the contents."""
    toctree = ["```{toctree}", ":hidden:", *pages, "```"]
    write(f"{folder}/index.md", f"# {title}", "", about, *lines, *toctree)


def directive(name: str, module: str, kind: str) -> list[str]:
    """Sphinx's own reference of a class, a function or a value."""
    members = ["   :members:", "   :show-inheritance:"] if kind == "class" else []
    return ["", "```{eval-rst}", f".. auto{kind}:: {module}.{name}", *members, "```", ""]


def fields_of(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Every field of a dataclass with its default and its text; UndocumentedError names one without."""
    texts = docstrings(kind)
    for field in fields(kind):
        default = field.default if field.default is not MISSING else field.default_factory
        shown = f"`{default.__name__}()`" if callable(default) else short(default)
        if field.name not in texts and not is_dataclass(default) and not views(field.name):
            raise UndocumentedError(f"{kind.__name__}.{field.name} has no text below it.")
        yield f"`{field.name}`", shown, texts.get(field.name, "The augmentations of each view.")


def views(name: str) -> bool:
    """True for a field whose name says all."""
    return name in ("views", "view")


def short(value: Any) -> str:
    """A default as a cell shows it."""
    shown = repr(value)
    return f"`{shown}`" if len(shown) < 40 else "as the paper"


def views_of(name: str, kind: type[Any]) -> list[str]:
    """A picture of what the method is shown of one image, in Markdown."""
    images = open_images(str(ROOT / "training" / "sample_photos" / "train.parquet"))
    torch.manual_seed(0)
    method = kind().build(timm.create_model("resnet8", num_classes=0))
    transform = method.transform(SIDE)
    indices = np.asarray([IMAGE])
    content = transform.on_device(transform.on_host([images[IMAGE]], transform.draw(0, 0, indices)))
    shown = [as_image(view) for view in each_view(content)]
    place = GENERATED / "methods" / f"{name}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    grid([shown]).save(place)
    return [f"![What {kind.paper.label} is shown of one image: {len(shown)} views]({name}.png)", ""]


def each_view(content: Any) -> Iterator[torch.Tensor]:
    """Every view (3, h, w) in what a transform gives."""
    if isinstance(content, torch.Tensor):
        if content.ndim == 4 and content.shape[1] == 3:
            yield from content
    elif isinstance(content, list | tuple):
        for part in content:
            yield from each_view(part)


def as_image(view: torch.Tensor) -> Image.Image:
    """A normalised view (3, h, w) as an image."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    levels = ((view * std + mean).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def recipe_rows(recipes: list[Recipe]) -> list[str]:
    """A table of recipes with what is promised of them."""
    rows = []
    for one in recipes:
        paper = PAPER.sub(r"[\1](\2)", one.promise.paper).removesuffix(" (no paper)")
        source = f"{paper}, {one.promise.table}"
        memory = MEMORY.get((one.model, one.size), "")
        hours = f"{one.promise.hours:g} h on {one.promise.hardware}" if one.promise.hours else ""
        rows.append((f"`{one.name}`", one.promise.result, one.size, one.epochs, one.batch_size, memory, hours, source))
    return table(
        ("recipe", "result", "size", "epochs", "batch", "GB per 256 images", "time by its authors", "source"), rows
    )


def recipe_page() -> None:
    """All recipes, by method."""
    lines = [
        "# Recipes",
        "",
        "A recipe is everything about a run as one typed value. `ssl-backbones pretrain NAME --help` shows every field",
        "and what it holds there; each can be set on the command line. GB per 256 images are those kept for the",
        "gradients in bf16, as `benchmarks/activation_memory.py` counts them for a network, a method and a size.",
    ]
    for name in dict.fromkeys(recipe.method.name for recipe in RECIPES.values()):
        own = [recipe for recipe in RECIPES.values() if recipe.method.name == name]
        lines += ["", f"## {METHODS[name].paper.label}", *recipe_rows(own)]
    write("recipes.md", *lines)


def weights_page() -> None:
    """Every weight that can be had, with its terms."""
    rows = []
    by_hand = [tag.name for tag in TAGS if tag.origin and tag.origin.page]
    for name in dict.fromkeys((*list_models(pretrained=True, include_tags=True), *by_hand)):
        model = describe(name)
        theirs = model.origin.number if model.origin else None
        known = (model.method, model.data, model.epochs, model.paper_number, theirs, model.our_number)
        terms = (model.terms if model.licence else "not stated", model.data_terms or "")
        rows.append((f"`{name}`", *("" if cell is None else cell for cell in known), *terms))
    about = (
        "All weights that `pretrained=True` gives, which ship or are fetched from their publisher, and those that are "
        "downloaded by hand. Linear accuracy in %, in the paper, by whoever published the weights, and measured here."
    )
    head = ("name", "method", "images", "epochs", "paper", "theirs", "ours", "licence", "terms of the images")
    write("licences.md", "# Weights and their licences", "", about, *table(head, rows))


def reference_pages() -> None:
    """The reference of everything that is public."""
    for package in PUBLIC:
        module = import_module(package)
        lines = [f"# {package}", "", inspect.getdoc(module) or "", ""]
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                continue
            kind = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "data"
            if kind != "data" and not inspect.getdoc(value):
                raise UndocumentedError(f"{package}.{name} has no docstring.")
            home = defining(package, name) if kind == "data" else value.__module__
            own = home == package or home.startswith(f"{package}.")
            lines += [f"## {name}", *directive(name, home, kind)] if own else [f"- `{name}` of `{home}`", ""]
        write(f"reference/{package}.md", *lines)
    index("reference", "Reference", "All that is public, from its docstrings.",
          ["", *(f"- [{package}]({package}.md)" for package in PUBLIC), ""], list(PUBLIC))  # fmt: skip


def defining(package: str, name: str) -> str:
    """The module whose source gives a public value its name."""
    imported = re.compile(
        rf"^from (ssl_backbones\S*) import (?:\((?:[^)]*\b)?{name}\b|[^(\n]*\b{name}\b)", re.MULTILINE
    )
    found = imported.search(inspect.getsource(import_module(package)))
    return defining(found[1], name) if found else package


def copied_pages() -> None:
    """Pages that stand elsewhere in the repository, with their links turned to it; BrokenLinkError names a dead one."""
    pages = {"CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing", "benchmarks/README.md": "measured"}
    for path, page in pages.items():
        text = (ROOT / path).read_text(encoding="utf-8")

        def turned(link: re.Match[str], path: Path = Path(path)) -> str:
            target = path.parent / link[1]
            if not (ROOT / str(target).partition("#")[0]).exists():
                raise BrokenLinkError(f"{path} links to {link[1]}, which is not there.")
            return f"]({SOURCE}/{target.as_posix()})"

        write(f"{page}.md", re.sub(r"\]\((?!https?:|#)([^)]+)\)", turned, text))


def generate() -> None:
    """Write every page that follows from the code."""
    os.environ["COLUMNS"] = "100"
    for pages in (command_pages, method_pages, recipe_page, weights_page, reference_pages, copied_pages):
        pages()
