"""What a backbone is worth: accelerate launch training/evaluate.py PROTOCOL MODEL --data ... --out ... [--OPTION ...]

MODEL is a registered name, hf-hub:org/name, or the folder of a run. `evaluate.py PROTOCOL --help` says what a protocol
does and lists its options.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import torch

from ssl_backbones.evaluate.presets import parse_preset
from ssl_backbones.refusal import Refusal
from ssl_backbones.train import processes
from ssl_backbones.typed.values import nearest
from ssl_backbones.typed.words import read, refuse

FROZEN = {
    "knn": "weighted nearest neighbours, k and temperature swept",
    "logistic": "logistic regression by L-BFGS, its weight decay chosen on a held-out part of the training images",
    "mlp": "two fully-connected layers, or one, by Adam on features without augmentation",
    "diagnose": "spread, rank, alignment and uniformity, without labels",
}
"""Protocols on features that are extracted once."""
TRAINED = {
    "linear": "one layer on the frozen network, by a paper's preset",
    "finetune": "the whole network, by a paper's preset",
    "semi": "the whole network, on the labels of 1% or 10% of the images",
}
"""Protocols that train by presets, which `--preset` names."""
PROTOCOLS = FROZEN | TRAINED
"""What there is, each in a module of protocols/ under its name."""


def protocol_of(words: Sequence[str]) -> ModuleType:
    """The module that the first word names. Without one that is known the process ends: one sentence, exit code 2."""
    word = words[0] if words else ""
    if word in ("-h", "--help"):
        print("\n".join([__doc__ or "", *(f"  {name:<10} {what}" for name, what in PROTOCOLS.items())]))
        raise SystemExit(0)
    if word in PROTOCOLS:
        return import_module(f"ssl_backbones.evaluate.protocols.{word}")
    said = f"{word!r} is no protocol{nearest(word, PROTOCOLS)}" if word else "the protocol is missing"
    return refuse(f"evaluate.py: {said}; the first word is one of {', '.join(PROTOCOLS)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; what is refused ends in one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    words = list(sys.argv[1:] if argv is None else argv)
    protocol = protocol_of(words)
    program, said = f"evaluate.py {words[0]}", protocol.__doc__ or ""
    if words[0] in TRAINED:
        options = parse_preset(protocol.PRESETS, words[1:], program, said)
    else:
        options = read(protocol.Options, None, words[1:], program, said)
    try:
        protocol.run(options)
    except Refusal as error:
        processes.refuse("evaluate.py", error)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
