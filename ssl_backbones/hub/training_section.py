"""A card's section on training: what was run on which images, in what it differs from its recipe, and the command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_backbones.catalogue.lookup import list_models
from ssl_backbones.hub.markup import in_code
from ssl_backbones.hub.run_name import data_name, fingerprint
from ssl_backbones.invocation import NAME
from ssl_backbones.registry.image_sets import are_those, known_by


def training(recipe: Mapping[str, Any], results: Mapping[str, Any], record: str) -> dict[str, Any]:
    """The recipe, the command, the data and the machine; `record` is where recipe.json lies."""
    promise = recipe.get("promise", {})
    return {
        "settings": settings(recipe, results),
        "paper": promise.get("paper", "not recorded"),
        "table": promise.get("table", "not recorded"),
        "left_open": by_name(promise.get("not_stated", "")),
        "images": images(recipe, results),
        "command": command(recipe, results),
        "alterations": alterations(results, record),
    }


def by_name(text: str) -> str:
    """A text in which weights that anybody can load go by their name, and not by the run's folder where they lay."""
    published = list_models(pretrained=True)
    return re.sub(r"\bruns/([\w.]*\w)", lambda found: found[1 if found[1] in published else 0], text)


def settings(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The rows on what the run was; None is what was not recorded."""
    optimizer, schedule = recipe.get("optimizer", {}), recipe.get("schedule", {})
    data, compute = results.get("data", {}), results.get("compute", {})
    unreadable = results.get("unreadable")
    return [
        ("data", data_name(recipe)),
        ("images", data.get("images")),
        ("fingerprint of the data", data.get("fingerprint")),
        ("unreadable images left out", len(unreadable) if isinstance(unreadable, list) else unreadable),
        ("epochs", results.get("epochs", recipe.get("epochs"))),
        ("optimiser's steps", results.get("steps")),
        ("batch", recipe.get("batch_size")),
        ("optimiser", optimizer.get("kind")),
        ("learning rate", joined(optimizer.get("lr"), optimizer.get("lr_rule"))),
        ("weight decay", optimizer.get("weight_decay")),
        ("schedule", joined(schedule.get("kind"), f"{schedule.get('warmup_epochs')} epochs of warm-up")),
        ("maker of the views", recipe.get("engine")),
        ("seed", results.get("seed", recipe.get("seed"))),
        ("device", joined(compute.get("device"), f"{compute.get('processes')} process(es)")),
        ("precision", compute.get("precision")),
        ("date", results.get("date")),
        *sorted(results.get("versions", {}).items()),
    ]


def joined(*parts: Any) -> str | None:
    """Parts with commas between, or None where the first is missing."""
    return None if parts[0] is None else ", ".join(str(part) for part in parts if part is not None)


def images(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """A sentence on whether the images are those that the recipe is written for, as far as their fingerprint tells."""
    meant = recipe.get("promise", {}).get("data")
    if not meant:
        return "What images it is written for is not recorded."
    known = known_by(fingerprint(results))
    same = are_those(meant, fingerprint(results))
    if known and same:
        return f"It is written for {meant}, and the images are those, by their fingerprint: {known.origin}."
    if known or same is False:
        whose = f"{known.name} instead" if known else "not the copy of those that is known"
        told = f"by their fingerprint, the images are {whose}"
    else:
        told = "whether the images are those is not recorded"
    return f"It is written for {meant}; {told}, so the weights do not bear the recipe's tag."


def command(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The command that runs it again, where DATA stands for the images and CLASSES for the list of those that were
    taken: the recipe and all that an option can alter.

    The engine is named, as on another machine another one may be found.
    """
    words = [word for name, (_, new) in leaves(results) for word in option(name, new)]
    seed = results.get("seed", recipe.get("seed"))
    words += ["--cache", "CACHE"] if recipe.get("reencode") else []  # in which images are kept as other pixels
    named = "engine" in results.get("altered", {}) or recipe.get("engine", "auto") == "auto"
    words += [] if named else option("engine", recipe["engine"])
    apart = {"classes": "CLASSES", "deterministic": True}
    left = [name for name in apart if recipe.get(name) and name not in results.get("altered", {})]
    words += [word for name in left for word in option(name, apart[name])]
    words += ["--seed", str(seed)] if seed else []
    return in_code(shlex.join([NAME, "pretrain", str(recipe["name"]), "--data", "DATA", *words]))


def alterations(results: Mapping[str, Any], record: str) -> str:
    """A sentence on the fields in which the run differs from the recipe it is named after, and what that one has."""
    if "altered" not in results:
        return f"That is the recipe unaltered: give it each field that differs in `{record}`, as --FIELD VALUE."
    changed = [f"`{name}` ({was(old, new, record)})" for name, (old, new) in leaves(results)]
    return f"Altered from the recipe: {', '.join(changed)}." if changed else "No field of the recipe was altered."


def leaves(results: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Each altered field by its dotted name, as options have it, with the recipe's value and the run's."""
    for name, (old, new) in results.get("altered", {}).items():
        yield from parts(name, old, new)


def parts(name: str, old: Any, new: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """A field that holds as many parts in both is altered in some of those; any other as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new[key]) for key in new]
    elif nested(old) and nested(new) and len(old) == len(new):
        pairs = [(str(at), *both) for at, both in enumerate(zip(old, new, strict=True))]
    else:
        yield name, (old, new)
        return
    for key, before, after in pairs:
        if before != after:
            yield from parts(f"{name}.{key}", before, after)


def nested(value: Any) -> bool:
    """True for a list of things that have fields of their own."""
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def option(name: str, value: Any) -> list[str]:
    """A field's value as the words of a command line; none for what no words can say."""
    if nested(value) or isinstance(value, dict):
        return []
    if isinstance(value, bool):
        part, dot, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{part}{dot}no_{last}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def was(old: Any, new: Any, record: str) -> str:
    """The recipe's own value of a field, in words; for what options cannot alter, where to look it up."""
    if not option("", new):
        return f"see `{record}`, no option says it"
    if old in ("", []):
        return "was empty"
    return f"was {' '.join(map(str, old)) if isinstance(old, list) else old}"
