"""The files of a repository, written into a folder: weights, configuration, card, and what was recorded."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_backbones.cleanup import is_new_or_empty
from ssl_backbones.credentials import change_texts
from ssl_backbones.files import write_file, write_json
from ssl_backbones.hub.card import ON_THE_HUB, Places, model_card
from ssl_backbones.hub.evaluations import stem_of
from ssl_backbones.hub.export import preparation, save_backbone
from ssl_backbones.hub.given import Terms, givens
from ssl_backbones.hub.publishing.material import Material, MaterialError
from ssl_backbones.hub.publishing.names import clear_names
from ssl_backbones.hub.sidecar import check_no_token
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.papers import PAPERS
from ssl_backbones.runs.manifest import MANIFEST, read_manifest

START = r"(?:file:/|[A-Za-z]:[/\\]|\\\\|/|~[^\s/\\]*[/\\]|\.\.?[/\\])"
"""The beginning of a path of a machine: at a root, a drive, a share or a home, here or above, as an address or not."""
WHOLE = re.compile(rf"(local-dir:)?{START}")
LETTERS = r"""[^\s'"=,()\[\]]"""
PLACE = re.compile(
    rf"""(?<=(['"`])){START}(?:(?!\1).)+(?=\1)"""
    rf"""|(?:(?<![^\s'"=,(\[])|(?<=local-dir:)){START}{LETTERS}+(?: (?!{START}|\w+://){LETTERS}*[/\\]{LETTERS}*)*"""
)
"""A path of a machine in a sentence, in quotes or not; a word that holds a slash goes on with the path before it."""


def write_files(material: Material, folder: Path, *, name: str, source: str, terms: Terms) -> list[str]:
    """Write all that is published into an empty folder; the files' names, in order."""
    state = copy_state(material.checkpoint, folder) if material.checkpoint else []
    cfg = material.config.get("pretrained_cfg", {})
    paper = PAPERS.get(Name.parse(str(material.recipe["model"])).method)
    about = {
        "license": terms.licence,
        "tag": cfg.get("tag"),
        "description": cfg.get("description"),
        "paper_name": paper.title if paper else None,
        "paper_ids": paper.url if paper else None,
    }
    prepared = preparation(material.backbone)
    save_backbone(material.backbone, folder, material.architecture, **prepared, **about, half=material.half)
    write(folder / "recipe.json", without_places(material.recipe))
    write(folder / "results.json", without_places(material.results))
    for path, found in zip(evaluation_files(material), material.evaluations, strict=True):
        write(folder / path, without_places(found))
    card = card_of(material, name=name, source=source, terms=terms, state=state)
    write_file(folder / "README.md", card.encode())
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for path in files:
        check_no_token({path: (folder / path).read_bytes()}, MaterialError)
    return files


def card_of(
    material: Material,
    *,
    name: str,
    source: str,
    terms: Terms,
    state: Sequence[str] = (),
    places: Places = ON_THE_HUB,
) -> str:
    """The card of the material, with the paths in it cut to their last part."""
    return model_card(
        without_places(material.recipe),
        without_places(material.results),
        {"pretrained_cfg": preparation(material.backbone)},
        name=name,
        source=source,
        terms=terms,
        evaluations=[without_places(found) for found in material.evaluations],
        state=state,
        places=replace(places, half=material.half),
    )


def check_empty(folder: Path) -> None:
    """Refuse to keep the files among others."""
    if not is_new_or_empty(folder):
        raise MaterialError(
            f"{folder} is not empty: name a new folder with --out, so that it holds what is published alone"
        )


def copy_state(checkpoint: Path, folder: Path) -> list[str]:
    """Copy the files that a checkpoint's manifest names to where a run's folder has them; tell of any others.

    Raises MaterialError for a file, or a folder, that is a link: what it leads to is not the run's.
    """
    named = {MANIFEST, *read_manifest(checkpoint)["files"]}
    target = folder / "checkpoints" / checkpoint.name
    target.mkdir(parents=True)
    for path in (checkpoint.parent, checkpoint, *(checkpoint / name for name in sorted(named))):
        if path.is_symlink():
            raise MaterialError(f"{path} is a link, and nothing is published through links: put the files there")
        if path.name in named:
            shutil.copyfile(path, target / path.name, follow_symlinks=False)
    if others := sorted(path.name for path in checkpoint.iterdir() if path.name not in named):
        print(f"Left out, as the manifest of {checkpoint} does not name them: {', '.join(map(repr, others))}")
    clear_names(target)
    return sorted(path.relative_to(folder).as_posix() for path in target.iterdir())


def evaluation_files(material: Material) -> list[str]:
    """A file for each evaluation, numbered where there are several of one protocol and of the same network."""
    names: list[str] = []
    given = givens(material.results)
    for found in material.evaluations:
        stem = stem_of(found, given)
        number = sum(re.fullmatch(rf"evaluations/{stem}(_\d+)?\.json", name) is not None for name in names)
        names.append(f"evaluations/{stem}_{number + 1}.json" if number else f"evaluations/{stem}.json")
    return names


def without_places(value: Any) -> Any:
    """A JSON value whose paths are cut to their last part: where files lay is a machine's own affair."""
    changed = change_texts(value, last_part)
    if isinstance(value, dict) and isinstance(value.get("command"), str):
        changed["command"] = shlex.join(map(in_word, shlex.split(value["command"])))
    return changed


def in_word(word: str) -> str:
    """A word of a command, --OPTION=PATH too, whose path is cut to its last part."""
    option, equals, value = word.partition("=")
    return f"{option}={last_part(value)}" if equals and option.startswith("-") else last_part(word)


def last_part(text: str) -> str:
    """A path, or a sentence, in which every path that begins at a root, at a home or above is its last part.

    A text that begins with a path is taken for one, whatever spaces it holds.
    """
    if found := WHOLE.match(text):
        return f"{found[1] or ''}{name_of(text)}"
    return PLACE.sub(lambda found: name_of(found[0]), text)


def name_of(path: str) -> str:
    """The last part of a path, of Windows or not."""
    return next((part for part in reversed(re.split(r"[/\\]", path)) if part), ".")


def write(path: Path, value: Any) -> None:
    """Put a value in place as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
