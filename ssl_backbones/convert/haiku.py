"""The arrays of DeepMind's BYOL, by the names that haiku gives them. Grill et al., 2020.

The published file is a pickle of code-bearing objects and is never opened here. Saved as .npz or .safetensors, each
array is called `module/leaf`, as in `res_net50/~/initial_conv/w`; parameters and state of one network lie together. On
a machine that may run the pickle, with jax, haiku and dill installed (not tried on the published file):

    state = dill.load(open("pretrain_res50x1.pkl", "rb"))["experiment_state"]
    modules = [*state.online_params.items(), *state.online_state.items()]
    numpy.savez("byol.npz", **{f"{module}/{leaf}": array for module, of in modules for leaf, array in of.items()})
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

NOTES = (
    "these weights were trained with TensorFlow's SAME padding, uneven on even sizes (2 and 3 pixels at the stem, "
    "0 and 1 at strided layers), and timm's network pads evenly: its features are near the originals, not equal"
)
"""The sentence to say of every conversion."""
MARK = "/~/"
"""The part of a name that is haiku's alone."""
_SCOPE = re.compile(r"(?P<scope>(?:.*/)?res_net\d+/~/)(?P<name>.+)")
_BLOCK = r"block_group_(?P<group>\d)/~/block_(?P<block>\d+)/~/"
_LEAVES = {
    "scale": "weight",
    "offset": "bias",
    "~/mean_ema/average": "running_mean",
    "~/var_ema/average": "running_var",
}
_NORM = "(?P<leaf>" + "|".join(_LEAVES) + ")"
_TABLE = (
    (re.compile(r"initial_conv/w"), "conv1.weight"),
    (re.compile(r"initial_batchnorm/" + _NORM), "bn1.{leaf}"),
    (re.compile(_BLOCK + r"conv_(?P<number>\d)/w"), "layer{group}.{block}.conv{number}.weight"),
    (re.compile(_BLOCK + r"batchnorm_(?P<number>\d)/" + _NORM), "layer{group}.{block}.bn{number}.{leaf}"),
    (re.compile(_BLOCK + r"shortcut_conv/w"), "layer{group}.{block}.downsample.0.weight"),
    (re.compile(_BLOCK + r"shortcut_batchnorm/" + _NORM), "layer{group}.{block}.downsample.1.{leaf}"),
)
_COUNTED = re.compile(r".+/~/(?:mean|var)_ema/(?:hidden|counter)")
"""Entries of a running average that are not the average itself."""


def dotted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors (...), a network of haiku's under its scope and timm's names, its axes in torch's order."""
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        match = _SCOPE.fullmatch(key)
        if match is None or _COUNTED.fullmatch(key):
            found[key] = value
        elif name := timm_name(match["name"]):
            found[f"{match['scope']}.{name}"] = as_torch(value, kernel=key.endswith("/w"))
        else:
            found[f"{match['scope']}.{match['name']}"] = value
    return found


def timm_name(key: str) -> str | None:
    """timm's name of an array; None for what is no part of the network."""
    for pattern, name in _TABLE:
        if match := pattern.fullmatch(key):
            found = match.groupdict()
            for counted in ("group", "number"):  # haiku counts from 0; block numbers start at 0 with both
                if counted in found:
                    found[counted] = str(int(found[counted]) + 1)
            return name.format(**{**found, "leaf": _LEAVES.get(found.get("leaf", ""), "")})
    return None


def as_torch(value: Tensor, kernel: bool) -> Tensor:
    """A kernel (H, W, I, O) as (O, I, H, W), and a norm's (1, 1, 1, C) as (C,)."""
    return value.permute(3, 2, 0, 1).contiguous() if kernel and value.ndim == 4 else value.reshape(-1)
