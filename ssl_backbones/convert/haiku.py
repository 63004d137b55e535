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
from dataclasses import dataclass

from torch import Tensor

from ssl_backbones.convert.layout import Layout, Parts

_SCOPE = r"(?:.*/)?res_net\d+/~/"
_BLOCK = r"block_group_(?P<group>\d)/~/block_(?P<block>\d+)/~/"
_LEAVES = {
    "scale": "weight",
    "offset": "bias",
    "~/mean_ema/average": "running_mean",
    "~/var_ema/average": "running_var",
}
_NORM = "(?P<leaf>" + "|".join(_LEAVES) + ")"
_TABLE = (
    (re.compile(_SCOPE + r"initial_conv/w"), "conv1.weight"),
    (re.compile(_SCOPE + r"initial_batchnorm/" + _NORM), "bn1.{leaf}"),
    (re.compile(_SCOPE + _BLOCK + r"conv_(?P<number>\d)/w"), "layer{group}.{block}.conv{number}.weight"),
    (re.compile(_SCOPE + _BLOCK + r"batchnorm_(?P<number>\d)/" + _NORM), "layer{group}.{block}.bn{number}.{leaf}"),
    (re.compile(_SCOPE + _BLOCK + r"shortcut_conv/w"), "layer{group}.{block}.downsample.0.weight"),
    (re.compile(_SCOPE + _BLOCK + r"shortcut_batchnorm/" + _NORM), "layer{group}.{block}.downsample.1.{leaf}"),
)
_HEADS = re.compile(r"(?:projector|predictor|classifier)/.+|.+/~/(?:mean|var)_ema/(?:hidden|counter)")
"""Heads, and of running averages what is not the average."""


@dataclass(frozen=True)
class Haiku(Layout):
    """A network of haiku's: other names, other orders of axes, and padding that timm's network has not."""

    label: str = "DeepMind's BYOL"
    notes: str = (
        "these weights were trained with TensorFlow's SAME padding, uneven on even sizes (2 and 3 pixels at the stem, "
        "0 and 1 at strided layers), and timm's network pads evenly: its features are near the originals, not equal"
    )

    def split(self, tensors: Mapping[str, Tensor]) -> Parts | None:
        """The network under timm's names; None where no key looks like haiku's."""
        if not any(_TABLE[0][0].fullmatch(key) for key in tensors):
            return None
        backbone: dict[str, Tensor] = {}
        heads: list[str] = []
        unknown: list[str] = []
        for key, value in tensors.items():
            if name := timm_name(key):
                backbone[name] = as_torch(value, kernel=key.endswith("/w"))
            else:
                (heads if _HEADS.fullmatch(key) else unknown).append(key)
        return Parts(backbone, tuple(heads), tuple(unknown))


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


HAIKU = Haiku()
