"""Evaluate a backbone by a protocol: k-NN, logistic regression, linear probe, fine-tuning and others.

Examples:
    ssl-backbones evaluate knn resnet50_swav.in1k_800ep --data imagenet --out results/knn
    ssl-backbones evaluate logistic runs/mine --data images --out results/logistic --size 32
    ssl-backbones evaluate linear runs/mine --preset lewel_b --data images --out results/linear
    ssl-backbones evaluate knn resnet50 --random --data images --out results/random

The first word is a protocol, the second a registered name, a timm name, hf-hub:org/name, or the folder of a run;
--random evaluates the same network with random weights. `ssl-backbones evaluate PROTOCOL --help` explains a protocol
and its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from ssl_backbones.commands import summaries
from ssl_backbones.evaluate import protocols
from ssl_backbones.evaluate.presets import read_preset
from ssl_backbones.typed.values import nearest
from ssl_backbones.typed.words import CommandLineError, read

PROTOCOLS = summaries(protocols.__path__[0])
"""Each protocol, a module of evaluate/protocols/, with the first line of what it says of itself."""


@dataclass(frozen=True)
class Options:
    """A protocol and what it is asked."""

    protocol: ModuleType
    asked: Any


def parse(words: Sequence[str], program: str) -> Options:
    """The protocol that the first word names, and its options."""
    word = words[0] if words else ""
    if word in ("-h", "--help"):
        print("\n".join([__doc__ or "", *(f"  {name:<10} {about}" for name, about in PROTOCOLS.items())]))
        raise SystemExit(0)
    if word not in PROTOCOLS:
        said = f"{word!r} is no protocol{nearest(word, PROTOCOLS)}" if word else "the protocol is missing"
        raise CommandLineError(f"{said}; the first word is one of {', '.join(PROTOCOLS)}")
    protocol = import_module(f"{protocols.__name__}.{word}")
    program, about = f"{program} {word}", protocol.__doc__
    if hasattr(protocol, "PRESETS"):
        return Options(protocol, read_preset(protocol.PRESETS, words[1:], program, about))
    return Options(protocol, read(protocol.Options, words[1:], program, about))


def run(options: Options) -> None:
    """Evaluate, and leave results.json in the folder that is named."""
    options.protocol.run(options.asked)
