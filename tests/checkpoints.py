"""Checkpoints as their publishers write them: the exact keys and containers, and a number of its own in every tensor.

A tensor is one number stretched to its shape, so that a file of a ResNet-50 is small and a mapping can be read off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import timm
import torch

Tensors = dict[str, torch.Tensor]


@cache
def shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=0)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def backbone(architecture: str = "resnet50") -> Tensors:
    """Every key of a headless network, the n-th filled with n."""
    return {
        key: torch.tensor(n) if key.endswith("tracked") else torch.full((1,), float(n)).expand(shape)
        for n, (key, shape) in enumerate(shapes(architecture).items())
    }


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + key: value for key, value in tensors.items()}


def some(keys: Iterable[str]) -> Tensors:
    """Heads: what is in them does not matter."""
    return {key: torch.zeros(2) for key in keys}


def linear(name: str, bias: bool = True) -> list[str]:
    return [f"{name}.weight"] + [f"{name}.bias"] * bias


def norm(name: str, affine: bool = True) -> list[str]:
    statistics = [f"{name}.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")]
    return linear(name) * affine + statistics


def mlp(name: str) -> list[str]:
    """Two layers with a norm between, the form of LEWEL's heads."""
    return [*linear(f"{name}.0", bias=False), *norm(f"{name}.1"), *linear(f"{name}.3", bias=False)]


def moco(net: Tensors, head: list[str]) -> Any:
    both = [under(f"module.encoder_{part}.", {**net, **some(head)}) for part in "qk"]
    state = {**both[0], **both[1], **some(["module.queue", "module.queue_ptr"])}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def online_target(net: Tensors, neck: list[str], predictors: list[str]) -> Any:
    state: Tensors = {}
    for part in ("online", "target"):
        state |= under(f"module.{part}_net.", {**under("backbone.", net), **some(neck)})
    state |= some(f"module.{key}" for key in predictors)
    return {"epoch": 400, "arch": "LEWELB_EMAN", "state_dict": state, "best_acc1": torch.tensor(3.0), "scaler": {}}


def lewel(net: Tensors) -> Any:
    necks = [*mlp("neck.proj.mlp"), *mlp("neck.proj_obj.mlp")]
    return online_target(net, necks, [*mlp("predictor.mlp"), *mlp("predictor_obj.mlp")])


def simsiam(net: Tensors) -> Any:
    projector = [key for n in (0, 3) for key in (*linear(f"fc.{n}", bias=False), *norm(f"fc.{n + 1}"))]
    projector += [*linear("fc.6"), *norm("fc.7", affine=False)]
    predictor = [*linear("predictor.0", bias=False), *norm("predictor.1"), *linear("predictor.3")]
    state = {**under("module.encoder.", {**net, **some(projector)}), **under("module.", some(predictor))}
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}}


def swav(net: Tensors, prototypes: tuple[str, ...] = ("prototypes.weight",)) -> Any:
    head = [*linear("projection_head.0"), *norm("projection_head.1"), *linear("projection_head.3"), *prototypes]
    return under("module.", {**net, **some(head)})


def barlow_twins(net: Tensors) -> Any:
    projector = [key for n in (0, 3) for key in (*linear(f"projector.{n}", bias=False), *norm(f"projector.{n + 1}"))]
    head = [*projector, "projector.6.weight", *norm("bn", affine=False)]
    return {"epoch": 5, "model": under("module.", {**under("backbone.", net), **some(head)}), "optimizer": {}}


def dino(net: Tensors) -> Any:
    head = [*linear("head.mlp.0"), *linear("head.mlp.2"), "head.last_layer.weight_g", "head.last_layer.weight_v"]
    wrong = {key: torch.zeros_like(value) for key, value in net.items()}
    student = under("module.", {**under("backbone.", wrong), **some(head)})
    teacher = {**under("backbone.", net), **some(head)}
    return {"student": student, "teacher": teacher, "args": argparse.Namespace(arch="resnet50"), "epoch": 3}


def supcon(net: Tensors) -> Any:
    state = under("module.", {**under("encoder.", net), **some([*linear("head.0"), *linear("head.2")])})
    return {"opt": argparse.Namespace(temp=0.07), "model": state, "optimizer": {}, "epoch": 200}


def supcon_cifar(net: Tensors) -> Any:
    net = {key.replace(".downsample.", ".shortcut."): value for key, value in net.items()}
    return {"model": {**under("encoder.module.", net), **some([*linear("head.0"), *linear("head.2")])}}


def vissl(net: Tensors) -> Any:
    model = {"trunk": under("_feature_blocks.", net), "heads": some(["0.clf.0.weight"])}
    return {"phase_idx": 105, "classy_state_dict": {"base_model": {"model": model}, "losses": {}}}


def relational(net: Tensors) -> Any:
    return {"backbone": net, "relation": some(linear("0")), "optimizer": {"state": {}}}


def without_counters(net: Tensors) -> Any:
    """As torch before 0.4.1 wrote them."""
    return {key: value for key, value in net.items() if not key.endswith("num_batches_tracked")}


LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Any]]] = {
    "MoCo v1": ("MoCo", lambda net: moco(net, linear("fc"))),
    "MoCo v2": ("MoCo", lambda net: moco(net, [*linear("fc.0"), *linear("fc.2")])),
    "LEWEL": ("LEWEL and EMAN", lewel),
    "EMAN BYOL": ("LEWEL and EMAN", lambda net: online_target(net, mlp("neck.mlp"), mlp("predictor.mlp"))),
    "SimSiam": ("SimSiam", simsiam),
    "SwAV": ("SwAV", swav),
    "DeepCluster-v2": ("SwAV", lambda net: swav(net, tuple(f"prototypes.prototypes{n}.weight" for n in range(3)))),
    "bare": ("torchvision", lambda net: net),
    "with a classifier": ("torchvision", lambda net: {**net, **some(linear("fc"))}),
    "without counters": ("torchvision", without_counters),
    "Barlow Twins": ("Barlow Twins, VICReg and DINO", barlow_twins),
    "DINO": ("Barlow Twins, VICReg and DINO", dino),
    "SupCon": ("SupCon", supcon),
    "SupCon, wrapped inside": ("SupCon", supcon_cifar),
    "VISSL": ("VISSL", vissl),
    "relational reasoning": ("torchvision", relational),
}
"""By name: the label that the converter gives it, and what its file holds of a backbone."""


def haiku(net: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of DeepMind's network by haiku's names and in its order of axes, with heads and counters."""
    arrays: dict[str, Any] = {}
    for key, value in net.items():
        if key.endswith("num_batches_tracked"):
            continue
        *path, leaf = key.split(".")
        module = haiku_module(path)
        if value.ndim == 4:
            arrays[f"{module}/w"] = value.permute(2, 3, 1, 0).numpy()
            continue
        name = {"weight": "scale", "bias": "offset", "running_mean": "~/mean_ema/average"}
        arrays[f"{module}/{name.get(leaf, '~/var_ema/average')}"] = value.reshape(1, 1, 1, -1).numpy()
        if leaf == "running_mean":
            arrays |= {f"{module}/~/mean_ema/{rest}": np.zeros(1, np.float32) for rest in ("hidden", "counter")}
    heads = ("projector/linear/w", "projector/batch_norm/~/mean_ema/average", "predictor/linear_1/w", "classifier/b")
    return arrays | {key: np.zeros(2, np.float32) for key in heads}


def haiku_module(path: list[str]) -> str:
    """haiku's name of the module that timm calls by a path."""
    scope = "res_net50/~/"
    if len(path) == 1:
        return scope + {"conv1": "initial_conv", "bn1": "initial_batchnorm"}[path[0]]
    stage, block, *last = path
    scope += f"block_group_{int(stage[-1]) - 1}/~/block_{block}/~/"
    if last[0] == "downsample":
        return scope + ("shortcut_conv" if last[1] == "0" else "shortcut_batchnorm")
    return scope + last[0].replace("bn", "batchnorm_").replace("conv", "conv_").replace(
        last[0][-1], str(int(last[0][-1]) - 1)
    )
