"""The optimiser a recipe asks for, and its learning rate at each step."""

from __future__ import annotations

from typing import Any

import torch
from recipe import OptimizerConfig, Recipe
from torch import nn

from ssl_backbones.optimizers import LARS

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(method: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The parameters that learn, as the groups that are decayed (and, by LARS, adapted) or left plain.

    Plain are, where the recipe excludes them, biases and the scales of normalisation layers; of the latter, those
    outside the backbone only where it excludes the heads' as well. An empty group is left out.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    seen: set[int] = set()
    for path, module in method.named_modules():
        in_backbone = path == "backbone" or path.startswith("backbone.")
        norm = isinstance(module, NORMS) and (in_backbone or config.exclude_head_norm)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            exclude = config.exclude_norm_and_bias and (norm or name.endswith("bias"))
            (plain if exclude else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    if config.kind == "lars":
        groups[1]["adapt"] = False
    return [group for group in groups if group["params"]]


def build_optimizer(method: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over a method's parameters, at its peak learning rate."""
    config = recipe.optimizer
    groups, lr, decay = parameter_groups(method, config), recipe.peak_lr, config.weight_decay
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr, momentum=config.momentum, weight_decay=decay)
    if config.kind == "lars":
        return LARS(groups, lr, config.momentum, decay, config.trust_coefficient, config.trust)
    adam = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return adam(groups, lr, betas=config.betas, weight_decay=decay)


def set_hyperparameters(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Give every group the learning rate of an optimiser step, counted from 0, and return it.

    A group's "lr_scale", where it has one, multiplies its share.
    """
    lr = recipe.lr(step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    return lr
