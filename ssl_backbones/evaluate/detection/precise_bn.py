"""Batch statistics taken anew before a test, as detectron2's PreciseBN does. Wu and Johnson, 2021, section 3.

https://arxiv.org/abs/2105.07576
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ssl_backbones.distributed import sum_over_processes, world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import modes_kept


@contextmanager
def precise_statistics(method: Method, batches: Iterable[Any]) -> Iterator[None]:
    """The method in eval mode, its batch statistics the mean over `batches` and processes; afterwards as it was.

    Without a batch, the statistics are those of training, averaged over the processes.
    """
    norms = [module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    buffers = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    momenta = [norm.momentum for norm in norms]
    with modes_kept(method):
        try:
            retake(method.train(), norms, batches)
            method.eval()
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for buffer, before in buffers:
                buffer.copy_(before)


@torch.no_grad()
def retake(method: Method, norms: list[nn.modules.batchnorm._BatchNorm], batches: Iterable[Any]) -> None:
    """Replace the running statistics by the mean over batches, one for all processes."""
    for number, batch in enumerate(batches):
        if number == 0:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch then keeps the plain mean
        method(batch)
    for norm in norms:
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                statistic.copy_(sum_over_processes(statistic) / world_size())
