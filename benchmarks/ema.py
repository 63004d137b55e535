"""Measure the update of a target network against the loops that are often written: python benchmarks/ema.py

One loop builds a new state dict and loads it, the other moves tensor after tensor in place. All move the same numbers,
parameters and running statistics, of a backbone with a projector, and take turns in one process; that they agree is
checked before anything is timed. With one thread on a CPU, CPU time is what counts. The
figures go to benchmarks/results/ema.json.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timing import circumstances, clock_of, command, in_turn, quartiles, say_verdicts, verdict, write
from torch import nn

import ssl_backbones
from ssl_backbones.models.backbone import width_of
from ssl_backbones.models.ema import EMA

PACKAGES = ("torch", "timm", "ssl-backbones")
NETWORKS = ("resnet8", "resnet18", "resnet50")
TARGET = 3.0
MOMENTUM = 0.99


@torch.no_grad()
def by_state_dict(target: nn.Module, online: nn.Module) -> None:
    """One entry after the other into a new state dict, which is loaded."""
    theirs = online.state_dict()
    moved = {
        name: MOMENTUM * old + (1 - MOMENTUM) * theirs[name] if old.is_floating_point() else theirs[name]
        for name, old in target.state_dict().items()
    }
    target.load_state_dict(moved)


@torch.no_grad()
def in_place(target: nn.Module, online: nn.Module) -> None:
    """One tensor after the other where it lies."""
    for old, new in zip(target.state_dict().values(), online.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.mul_(MOMENTUM).add_(new, alpha=1 - MOMENTUM)
        else:
            old.copy_(new)


def online_of(name: str, seed: int, device: torch.device) -> nn.Module:
    """A backbone with a projector of BYOL's form."""
    torch.manual_seed(seed)
    backbone = ssl_backbones.create_model(name, num_classes=0)
    width = width_of(backbone)
    projector = (nn.Linear(width, 4 * width), nn.BatchNorm1d(4 * width), nn.ReLU(), nn.Linear(4 * width, 256))
    return nn.Sequential(backbone, *projector).to(device)


def measure(name: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """The time of both ways, and the ratio."""
    online = online_of(name, 0, device)
    ema = EMA(averaged=True, network=online_of(name, 1, device))
    targets = {"state dict": online_of(name, 1, device), "in place": online_of(name, 1, device)}
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: ema.update(MOMENTUM, network=online),
        "state dict": lambda: by_state_dict(targets["state dict"], online),
        "in place": lambda: in_place(targets["in place"], online),
    }
    for way in ways.values():
        way()
    for target in targets.values():
        for mine, literal in zip(ema.network.state_dict().values(), target.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, literal)
    seconds = in_turn(ways, rounds, clock_of(device)[1])
    return {
        "network": name,
        "tensors": len(online.state_dict()),
        "numbers": sum(value.numel() for value in online.state_dict().values()),
        "ms": {way: quartiles(values * 1e3, 3) for way, values in seconds.items()},
        "times_as_fast": {way: quartiles(seconds[way] / seconds["ours"], 2) for way in targets},
    }


def main() -> None:
    """Measure, print and write."""
    parser = command(__file__, __doc__, rounds=51, of="updates each way, in turn")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help=f"backbones ({' '.join(NETWORKS)})")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where (cuda or cpu)")
    parser.add_argument("--quick", action="store_true", help="the smallest network alone, as a test has time for")
    options = parser.parse_args()
    device = torch.device(options.device)
    results = circumstances(PACKAGES, device) | {"time": clock_of(device)[0], "rounds": options.rounds, "measured": []}
    for name in NETWORKS[:1] if options.quick else options.networks:
        row = measure(name, options.rounds, device)
        results["measured"].append(row)
        print(f"{name}: {row['ms']['ours']['median']:.2f} ms")
        for way, ratio in row["times_as_fast"].items():
            print(f"  {ratio['median']:.1f} times as fast as by {way} [{ratio['q1']:.1f}, {ratio['q3']:.1f}]")
    results["targets"] = [
        verdict(
            f"{row['network']}, times as fast as by state dict",
            row["times_as_fast"]["state dict"]["median"],
            TARGET,
            at_most=False,
        )
        for row in results["measured"]
    ]
    say_verdicts(results["targets"])
    write(results, options.out)


if __name__ == "__main__":
    main()
