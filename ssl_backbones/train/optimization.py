"""The optimiser a recipe asks for, and its learning rate at each step."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import nn

from ssl_backbones.optimizers import LARS
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.recipes.settings import ClipPer, OptimizerConfig


class Kind(NamedTuple):
    """A kind of parameters that share their hyper-parameters."""

    own_rate: bool
    """True for the backbone's, if that has a learning rate of its own."""
    constant: bool
    """True if the rate stays at the peak after the warm-up."""
    plain: bool
    """True if neither decayed nor adapted."""


NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(method: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The parameters that learn, as the groups that are decayed (and, by LARS, adapted) or left plain.

    Plain are, where the recipe excludes them, biases and the scales of normalisation layers; of the latter, those
    outside the backbone only where it excludes the heads' as well. A part whose rate is constant has two groups of its
    own, and so has the backbone where it has a rate of its own. An empty group is left out.
    """
    held = config.constant_part
    either = (False, True)
    groups: dict[Kind, list[nn.Parameter]] = {Kind(*kind): [] for kind in product(either, either, either)}
    seen: set[int] = set()
    for path, module in method.named_modules():
        in_backbone = path == "backbone" or path.startswith("backbone.")
        norm = isinstance(module, NORMS) and (in_backbone or config.exclude_head_norm)
        constant = held is not None and (path == held or path.startswith(f"{held}."))
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            plain = config.exclude_norm_and_bias and (norm or name.endswith("bias"))
            own_rate = in_backbone and config.backbone_lr is not None
            groups[Kind(own_rate, constant, plain)].append(parameter)
    if held is not None and not any(found for kind, found in groups.items() if kind.constant):
        raise ValueError(f"optimizer.constant_part is {held!r}, but no part of the method that learns is called that.")
    return [{"params": parameters} | group_settings(config, kind) for kind, parameters in groups.items() if parameters]


def group_settings(config: OptimizerConfig, kind: Kind) -> dict[str, Any]:
    """The hyper-parameters in which a kind differs from the optimiser's defaults."""
    found: dict[str, Any] = {"constant": True} if kind.constant else {}
    if kind.own_rate and config.backbone_lr is not None:
        found["lr_scale"] = config.backbone_lr / config.lr
    if kind.plain:
        found["weight_decay"] = 0.0
        if config.norm_and_bias_lr is not None:
            found["lr_scale"] = config.norm_and_bias_lr / config.lr
        if config.kind == "lars":
            found["adapt"] = False
    return found


def build_optimizer(method: nn.Module, recipe: Run, scaled: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimiser over a method's parameters, at its peak learning rate; of torch's, the fused one on a GPU.

    Not so under a gradient scaler (`scaled`): a fused one leaves steps out by itself, and nobody would hear of it.
    """
    config = recipe.optimizer
    fused = True if not scaled and all(weights.is_cuda for weights in method.parameters()) else None
    optimizer = optimizer_of(config, parameter_groups(method, config), recipe.peak_lr, fused)
    if (longest := config.clip) is not None:
        optimizer.register_step_pre_hook(lambda stepping, *_: clip_gradients(stepping, longest, config.clip_per))
    return optimizer


def optimizer_of(
    config: OptimizerConfig, groups: list[dict[str, Any]], lr: float, fused: bool | None
) -> torch.optim.Optimizer:
    """The optimiser of a configuration over groups of parameters."""
    decay = config.weight_decay
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr, momentum=config.momentum, weight_decay=decay, fused=fused)
    if config.kind == "lars":
        return LARS(groups, lr, config.momentum, decay, config.trust_coefficient, config.trust)
    adam = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return adam(groups, lr, betas=config.betas, weight_decay=decay, fused=fused)


def clip_gradients(optimizer: torch.optim.Optimizer, longest: float, per: ClipPer) -> None:
    """Cut gradients to a length, each parameter's for itself or all together, before they make a step."""
    learning = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
    if per == "all":
        nn.utils.clip_grad_norm_(learning, longest)
    elif gradients := [weight.grad for weight in learning]:
        lengths = torch.stack(torch._foreach_norm(gradients))
        torch._foreach_mul_(gradients, (longest / (lengths + 1e-6)).clamp(max=1.0).unbind())


def set_hyperparameters(optimizer: torch.optim.Optimizer, recipe: Run, step: int, steps_per_epoch: int) -> float:
    """Give every group the learning rate of an optimiser step, counted from 0, and return it.

    A group's "lr_scale", where it has one, multiplies its share; a "constant" one knows the warm-up alone.
    """
    lr = recipe.lr(step, steps_per_epoch)
    constant_lr = recipe.peak_lr * recipe.schedule.rise(step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = (constant_lr if group.get("constant") else lr) * group.get("lr_scale", 1.0)
    return lr
