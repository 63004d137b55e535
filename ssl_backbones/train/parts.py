"""The parts of a batch where a run goes on with another number of processes than wrote its last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssl_backbones.distributed import world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.models.batch_norm import normalises_together
from ssl_backbones.runs.manifest import manifests
from ssl_backbones.runs.run_folder import RunFolder

PARTS = "accumulation"
"""The field that is settled when a part of the batch was tried, whether the recipe leaves others to rules or not."""


@dataclass(frozen=True)
class Earlier:
    """The processes that wrote a run's last checkpoint, and the parts in which each scored its share of a batch."""

    parts: int
    processes: int

    @property
    def moved(self) -> bool:
        """True if there is another number of processes now."""
        return self.processes != world_size()


def earlier(folder: RunFolder) -> Earlier | None:
    """The processes and parts of a run's last checkpoint; None where none tells of both."""
    for manifest in manifests(folder.checkpoints):
        parts, processes = parts_in(manifest["scalars"]), manifest["made_with"].get("world_size")
        return Earlier(parts, processes) if parts and isinstance(processes, int) else None
    return None


def parts_in(scalars: Any) -> int:
    """The parts of a batch as the plain values of a checkpoint tell them, 0 where they do not."""
    parts = scalars.get("compute", {}).get("parts")
    return parts if isinstance(parts, int) else 0


def may_differ(folder: RunFolder, parts: int) -> bool:
    """True if a run in the folder may go on in so many parts, whatever its recipe.json says.

    That was written by processes that may have saved nothing yet.
    """
    before = earlier(folder)
    return before is not None and (before.moved or before.parts == parts)


def parts_to_keep(method: Method, before: Earlier | None) -> int:
    """The fewest parts in which a run that goes on with other processes is what it was; 1 for any other run.

    Where the images of a part are compared, or normalised, over all processes, the parts stay, and so they do where
    keys are shuffled, whose groups may be the processes themselves. Elsewhere each has as many images at a time.
    """
    if before is None or not before.moved:
        return 1
    shuffled = getattr(method.config, "key_bn", "") == "shuffle"
    if shuffled or normalises_together(method) or not method.accumulation_is_exact:
        return before.parts
    return -(-before.parts * before.processes // world_size())


def followed(batch_size: int, before: Earlier, parts: int) -> str:
    """A sentence on the parts of a run's batch before and now."""
    there, here = (
        f"{processes} process{'es' if processes > 1 else ''}, {parts} part{'s' if parts > 1 else ''} of "
        f"{batch_size // (processes * parts)} images each"
        for processes, parts in ((before.processes, before.parts), (world_size(), parts))
    )
    return f"Accumulation changed with the number of processes: now {here}, before {there}."
