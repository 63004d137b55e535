"""A method that goes on from its authors' checkpoint: heads, slow copy and queue where the file holds them."""

from __future__ import annotations

from pathlib import Path

from ssl_backbones.convert.heads import NAMES, heads
from ssl_backbones.convert.reading import read_checkpoint
from ssl_backbones.fetch.kept import folder_of, recall
from ssl_backbones.methods.from_run import RunError
from ssl_backbones.methods.method import Method, MethodConfig


def authors_file(init: str) -> Path | None:
    """The checkpoint that a start names: a file, or what was fetched or imported for a registered name; None for a
    folder or a repository."""
    path = Path(init)
    if path.is_file():
        return None if path.name == "model.safetensors" and (path.parent / "config.json").is_file() else path
    kept = None if path.exists() or ":" in init else recall(folder_of(init))
    return kept.path if kept else None


def take_over_heads(method: Method, config: MethodConfig, file: Path, shown: str) -> str:
    """Give a method all that its authors' file holds beside the backbone, and return a sentence on it.

    Raises RunError for a file without, for a method whose files are not known, and for one of other sizes.
    """
    alone = "leave --with_state out to start from the backbone alone"
    if config.name not in NAMES:
        known = ", ".join(NAMES)
        raise RunError(f"of files that others publish, heads are read of {known}, and not of {config.name}: {alone}")
    own, given = method.state_dict(), heads(read_checkpoint(file), config.name)
    if not given:
        raise RunError(f"{shown} holds no heads of {config.name}, as its authors name them: {alone}")
    places = tuple(dict.fromkeys(NAMES[config.name].values()))
    wanted = {name for name in own if name.startswith(places)}
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    for name in sorted(wanted - counters | given.keys()):
        there = tuple(given[name].shape) if name in given else "nothing"
        here = tuple(own[name].shape) if name in own else "nothing"
        if there != here:
            raise RunError(
                f"{shown} has other heads than this recipe's {config.name}, first in {name} ({there} there and {here} "
                f"here): give --method its sizes, or {alone}"
            )
    method.load_state_dict(given, strict=False)
    rest = sorted({name.partition(".")[0] for name in own.keys() - given.keys() - counters} - {"backbone"})
    drawn = f"; {', '.join(rest)} as drawn" if rest else ""
    return f"Of {config.name}, {len(given)} tensors beside the backbone are taken over from {shown}{drawn}."
