"""The heads, the slow copy and the queue in a checkpoint of a method's authors, under the names of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

MLP = r"mlp\."
"""LEWEL's and EMAN's name for the layers of a head."""
NAMES: dict[str, dict[str, str]] = {
    "swav": {r"projection_head\.": "head.", r"prototypes\.weight$": "prototypes.weight"},
    "moco_v2": {
        r"encoder_q\.fc\.": "head.",
        r"encoder_k\.fc\.": "key_encoder.head.",
        r"encoder_k\.": "key_encoder.backbone.",
        r"queue$": "queue.keys",
        r"queue_ptr$": "queue.pointer",
    },
    "byol": {
        rf"online_net\.neck\.{MLP}": "projector.layers.",
        rf"target_net\.neck\.{MLP}": "target.projector.layers.",
        r"target_net\.backbone\.": "target.backbone.",
        rf"predictor\.{MLP}": "predictor.layers.",
    },
    "lewel_b": {
        rf"online_net\.neck\.proj\.{MLP}": "head.projector.layers.",
        rf"online_net\.neck\.proj_obj\.{MLP}": "head.semantic.layers.",
        rf"target_net\.neck\.proj\.{MLP}": "target.head.projector.layers.",
        rf"target_net\.neck\.proj_obj\.{MLP}": "target.head.semantic.layers.",
        r"target_net\.backbone\.": "target.backbone.",
        rf"predictor\.{MLP}": "predictor.layers.",
        rf"predictor_obj\.{MLP}": "aligned_predictor.layers.",
    },
}
"""By method, what its authors (of BYOL EMAN's) call each part, behind any prefix, and its name here."""


def heads(tensors: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """The tensors (...) of a file that are a method's beside its backbone, as its state names them; empty for none."""
    names = NAMES.get(method, {})
    known = re.compile("|".join(rf"(?:^|.*\.)({pattern})" for pattern in names)) if names else None
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        match = known.match(key) if known else None
        if match is not None and match.lastindex is not None:
            name = list(names.values())[match.lastindex - 1] + key[match.end() :]
            found[name] = shaped(name, value)
    return found


def shaped(name: str, value: Tensor) -> Tensor:
    """A tensor (...) as the state has it: keys of a queue stand in rows here, in columns at MoCo's, and a layer that is
    LEWEL's convolution over one position, (O, I, 1), is linear."""
    if name == "queue.keys":
        return value.T.contiguous()
    if name == "queue.pointer":
        return value.reshape(())
    return value.squeeze(-1) if value.ndim == 3 else value
