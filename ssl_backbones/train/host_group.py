"""The group in which the processes of a run talk from host to host, beside their devices, which have other work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from ssl_backbones import distributed
from ssl_backbones.distributed import HostGroup, by_hosts, launched, say
from ssl_backbones.refusal import Refusal

INTERFACE = "set GLOO_SOCKET_IFNAME to the network interface that the machines share, such as eth0 (see `ip addr`)"
GLOO = re.compile(r"gloo|unable to find (interface|address)|ifaddrs", re.I)
"""Words of torch where gloo finds no way from one host to another."""


class MeetingError(Refusal, RuntimeError):
    """Processes that cannot talk to one another."""


@contextmanager
def meeting() -> Iterator[None]:
    """Context manager: raise MeetingError, with the way out, where processes meet by gloo and find no way."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not GLOO.search(str(error)):
            raise
        raise MeetingError(
            f"the {launched()} processes cannot reach one another ({first_line(error)}): {INTERFACE}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error, without its end."""
    return str(error).strip().split("\n")[0].rstrip(".")


def make_host_group(device: torch.device) -> None:
    """Make the group, in all processes together, as they meet: before the devices have begun to talk.

    Where it cannot be made, the devices' own group serves; MeetingError where that is gloo's too.
    """
    by_devices = "gloo" not in dist.get_backend()
    HostGroup.world, HostGroup.group, trouble = dist.group.WORLD, None, ""
    try:
        group = dist.new_group(backend="gloo", timeout=distributed.PATIENCE)
        assert isinstance(group, dist.ProcessGroup)
        dist.barrier(group=group)
        HostGroup.group = group
    except RuntimeError as error:
        trouble = first_line(error)
        if not by_devices:
            raise MeetingError(f"processes cannot talk from host to host ({trouble}): {INTERFACE}") from error
    if by_devices:
        everybody = torch.tensor(int(not trouble), device=device)
        dist.all_reduce(everybody, dist.ReduceOp.MIN)
        if not everybody:
            HostGroup.group = None
            say(
                f"Processes cannot use gloo between hosts ({trouble or 'reported by another process'}); they use their "
                f"devices' own backend, which is waited for at every step: {INTERFACE}"
            )


def host_group() -> dist.ProcessGroup | None:
    """The group that was made when the processes met; None where the devices' own serves."""
    if HostGroup.world is not dist.group.WORLD:
        make_host_group(torch.device("cpu") if "gloo" in dist.get_backend() else device_here())
    return by_hosts()


def device_here() -> torch.device:
    """The device that this process computes on."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
