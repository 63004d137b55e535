"""Checkpoints as their publishers write them: the exact keys and containers, and a number of its own in every tensor.

A tensor is one number stretched to its shape, so that a file of a ResNet-50 is small and a mapping can be read off.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import timm
import torch

from ssl_backbones.weightless import weightless

Tensors = dict[str, torch.Tensor]


@cache
def shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    with weightless():
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


def other(net: Tensors) -> Tensors:
    """The same network with other numbers in it."""
    return {key: value + 1 for key, value in net.items()}


def numbered(net: Tensors, shift: int = 3) -> Tensors:
    """As in `Sequential(*list(resnet.children())[:-1])`."""
    names = {"conv1": "0", "bn1": "1", **{f"layer{n}": str(n + shift) for n in (1, 2, 3, 4)}}
    parts = ((*key.partition("."), value) for key, value in net.items())
    return {names.get(top, top) + dot + rest: value for top, dot, rest, value in parts}


def shortcut(net: Tensors) -> Tensors:
    """As networks for CIFAR call a downsample."""
    return {key.replace(".downsample.", ".shortcut."): value for key, value in net.items()}


def lightning(state: Tensors) -> Any:
    """As Lightning writes a module of somebody's."""
    return {"epoch": 9, "state_dict": state, "loops": {"fit_loop": {}}, "hyper_parameters": {"lr": 0.1}}


def solo_learn(net: Tensors) -> Any:
    heads = [*linear("classifier"), *linear("projector.0"), *norm("projector.1"), *linear("predictor.0")]
    heads += [*linear("momentum_projector.0"), *linear("momentum_classifier")]
    return lightning({**under("backbone.", net), **some(heads), **under("momentum_backbone.", other(net))})


def lightly_tutorial(net: Tensors) -> Any:
    heads = [*linear("projection_head.layers.0"), *linear("projection_head_momentum.layers.0")]
    net = numbered(net)
    return lightning({**under("backbone.", net), **some(heads), **under("backbone_momentum.", other(net))})


def lightly_benchmark(net: Tensors) -> Any:
    heads = [*linear("projection_head.layers.0"), *norm("projection_head.layers.1"), *linear("online_classifier")]
    return lightning(under("_orig_mod.", {**under("backbone.", net), **some(heads)}))


def mmselfsup(net: Tensors) -> Any:
    """Version 0: the online network is a Sequential, and its backbone is kept under a second name as well."""
    state = {**under("backbone.", net), **under("online_net.0.", net), **under("target_net.0.", other(net))}
    return {"meta": {"epoch": 200}, "state_dict": {**state, **some([*linear("online_net.1.fc0"), *linear("neck.fc0")])}}


def mmselfsup_averaged(net: Tensors) -> Any:
    """Version 1: the target is torch's averaged model, with a counter."""
    state = {**under("backbone.", net), **under("target_net.module.0.", other(net)), **some(linear("neck.fc0"))}
    return {"meta": {}, "message_hub": {"runtime": {}}, "state_dict": {**state, "target_net.steps": torch.tensor(3)}}


def stable_pretraining(net: Tensors) -> Any:
    heads = [*linear("projector.0"), *linear("callbacks_modules.linear_probe.1"), *norm("callbacks_modules.knn")]
    return lightning({**under("backbone.", net), **some([*heads, "callbacks_metrics.top1.tp"])})


def compiled_stages(net: Tensors) -> Tensors:
    """Each stage compiled by itself."""
    return {re.sub(r"^(layer\d)\.", r"\1._orig_mod.", key): value for key, value in net.items()}


LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Any]]] = {
    "MoCo v1": ("state_dict.module.encoder_q.", lambda net: moco(net, linear("fc"))),
    "MoCo v2": ("state_dict.module.encoder_q.", lambda net: moco(net, [*linear("fc.0"), *linear("fc.2")])),
    "LEWEL": ("state_dict.module.online_net.backbone.", lewel),
    "EMAN BYOL": (
        "state_dict.module.online_net.backbone.",
        lambda net: online_target(net, mlp("neck.mlp"), mlp("predictor.mlp")),
    ),
    "SimSiam": ("state_dict.module.encoder.", simsiam),
    "SwAV": ("module.", swav),
    "DeepCluster-v2": ("module.", lambda net: swav(net, tuple(f"prototypes.prototypes{n}.weight" for n in range(3)))),
    "bare": ("", lambda net: net),
    "with a classifier": ("", lambda net: {**net, **some(linear("fc"))}),
    "without counters": ("", without_counters),
    "Barlow Twins": ("model.module.backbone.", barlow_twins),
    "DINO": ("teacher.backbone.", dino),
    "SupCon": ("model.module.encoder.", supcon),
    "SupCon, wrapped inside": ("model.encoder.module.", supcon_cifar),
    "VISSL": ("classy_state_dict.base_model.model.trunk._feature_blocks.", vissl),
    "relational reasoning": ("backbone.", relational),
    "solo-learn": ("state_dict.backbone.", solo_learn),
    "lightly's tutorials": ("state_dict.backbone.", lightly_tutorial),
    "lightly's benchmarks": ("state_dict.backbone.", lightly_benchmark),
    "mmselfsup 0": ("state_dict.backbone.", mmselfsup),
    "mmselfsup 1": ("state_dict.backbone.", mmselfsup_averaged),
    "stable-pretraining": ("state_dict.backbone.", stable_pretraining),
    "a Sequential": ("", numbered),
    "a Sequential without pooling": ("", lambda net: shortcut(numbered(net, 1))),
    "compiled inside": ("model.encoder.", lambda net: {"model": under("encoder._orig_mod.", net)}),
    "compiled stages": ("", compiled_stages),
    "a model in a model": ("model.model.", lambda net: {"model": {"model": net, "step": 3}}),
    "an average beside it": ("state_dict.", lambda net: {"state_dict": net, "state_dict_ema": other(net)}),
    "a copy by another name": ("a.", lambda net: {"a": net, "b": dict(net)}),
}
"""By name: the beginning of the backbone's keys, and what its file holds of a backbone."""


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
