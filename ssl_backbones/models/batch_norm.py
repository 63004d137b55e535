"""Batch normalisation over other groups than the samples of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from ssl_backbones.distributed import AllReduceSum, world_size
from ssl_backbones.refusal import Refusal


class BatchNormError(Refusal, ValueError):
    """A layer whose batch statistics cannot be taken over other groups."""


class CrossReplicaBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the samples of all processes, on any device; torch's own refuses to run on a CPU."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(rows)
        self.num_batches_tracked.add_(1)
        return self.across_processes(rows)

    def across_processes(self, rows: Tensor) -> Tensor:
        """Normalise rows (B, C, ...) with the mean and variance over B and positions of all processes."""
        axes = [axis for axis in range(rows.ndim) if axis != 1]
        shape = [1, -1, *[1] * (rows.ndim - 2)]
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        count = all_reduce_sum(wide.new_full((), rows.numel() // rows.shape[1]))
        mean = all_reduce_sum(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = all_reduce_sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(rows.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows of any number of axes will do."""


def all_reduce_sum(part: Tensor) -> Tensor:
    """The sum over processes, with gradient."""
    total: Tensor = AllReduceSum.apply(part)
    return total


class SplitBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over each of `splits` contiguous groups of the batch of all processes: few standing for several GPUs.

    Where an image has several rows, one after the other, `forward` is told their number, and keeps them in one group.
    Running statistics move by the mean over the groups, as they would on the mean GPU. On a device all groups are one
    call; on a CPU, where the copies for that take longer than the calls, each group is one.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(
        self, num_features: int, splits: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__(num_features, eps, momentum, affine)
        self.splits = splits

    @property
    def groups(self) -> int:
        """The groups of this process's part of the batch."""
        return max(1, self.splits // world_size())

    def forward(self, rows: Tensor, rows_of_an_image: int = 1) -> Tensor:
        groups = self.groups
        if not self.training or groups == 1:
            return super().forward(rows)
        images = len(rows) // rows_of_an_image
        if images < groups:
            raise ValueError(
                f"a batch of {images} cannot be normalised in {groups} groups: lower bn_splits or, for a backbone that "
                "goes on without its method, take plain_batch_norm(backbone)"
            )
        means = self.running_mean.expand(groups, -1).clone()
        variances = self.running_var.expand(groups, -1).clone()
        if rows.device.type != "cpu" and images % groups == 0:
            normalised = self.at_once(rows, means, variances)
        else:
            normalised = self.one_by_one(rows, means, variances, rows_of_an_image)
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        self.num_batches_tracked.add_(1)
        return normalised

    def at_once(self, rows: Tensor, means: Tensor, variances: Tensor) -> Tensor:
        """Normalise the groups of rows (B, C, ...) as channels of one batch; moves their statistics (groups, C)."""
        splits, weight, bias = self.groups, self.weight, self.bias
        last = rows.movedim(1, -1).unflatten(0, (splits, -1))  # (splits, B / splits, ..., C)
        in_place = rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last)
        if in_place or rows.ndim == 2:  # channels lie side by side, and stay so
            folded = last.movedim(0, -2).flatten(-2).movedim(-1, 1)
        else:
            folded = rows.unflatten(0, (splits, -1)).transpose(0, 1).flatten(1, 2)
        normalised = batch_norm(
            folded,
            means.view(-1),
            variances.view(-1),
            None if weight is None else weight.repeat(splits),
            None if bias is None else bias.repeat(splits),
            True,
            self.momentum,
            self.eps,
        )
        if in_place or rows.ndim == 2:
            apart = normalised.movedim(1, -1).unflatten(-1, (splits, -1)).movedim(-2, 0)
            unfolded: Tensor = apart.flatten(0, 1).movedim(-1, 1)
        else:
            unfolded = normalised.unflatten(1, (splits, -1)).transpose(0, 1).flatten(0, 1)
        return unfolded

    def one_by_one(self, rows: Tensor, means: Tensor, variances: Tensor, rows_of_an_image: int = 1) -> Tensor:
        """Normalise the groups of rows (B, C, ...) one after the other; moves their statistics (groups, C)."""
        whole, more = divmod(len(rows) // rows_of_an_image, self.groups)
        sizes = [rows_of_an_image * (whole + (group < more)) for group in range(self.groups)]
        groups = rows.split_with_sizes(sizes)  # not a slice each: its gradient would be as large as all rows together
        parts = zip(groups, means, variances, strict=True)
        return torch.cat(
            [batch_norm(part, m, v, self.weight, self.bias, True, self.momentum, self.eps) for part, m, v in parts]
        )

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows of any number of axes will do."""

    def extra_repr(self) -> str:
        return f"{self.num_features}, splits={self.splits}, eps={self.eps}, momentum={self.momentum}"


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every BatchNorm taken over all processes; state-dict keys and values stay.

    Between GPUs that is torch's own, which is fused.
    """
    on_gpus = torch.cuda.is_available() and world_size() > 1 and "nccl" in torch.distributed.get_backend()
    kind = nn.SyncBatchNorm if on_gpus else CrossReplicaBatchNorm
    return _replace(module, lambda norm: kind(norm.num_features, norm.eps, _momentum(norm), norm.affine))


def normalises_together(module: nn.Module) -> bool:
    """True if a BatchNorm in the module is taken over all processes, or over groups of their batches."""
    synchronised = any(isinstance(part, CrossReplicaBatchNorm | nn.SyncBatchNorm) for part in module.modules())
    return synchronised or groups_of(module) > 1


def split_batch_norm(module: nn.Module, splits: int) -> nn.Module:
    """The module with every BatchNorm taken over each of `splits` groups of all processes' batch; keys stay."""
    return _replace(
        module, lambda norm: SplitBatchNorm(norm.num_features, splits, norm.eps, _momentum(norm), norm.affine)
    )


def groups_of(module: nn.Module) -> int:
    """The groups of a process's batch whose statistics are their own; 1 where no BatchNorm is split."""
    return max([1, *(norm.groups for norm in module.modules() if isinstance(norm, SplitBatchNorm))])


def plain_batch_norm(module: nn.Module) -> nn.Module:
    """The module with the BatchNorms that a method exchanged as they were, statistics kept; state-dict keys stay.

    A backbone that leaves its method for training of another kind wants them; for inference they are alike.
    """
    if (kind := getattr(module, "plain", None)) is not None:
        norm: Any = module
        return _carried(norm, kind(norm.num_features, norm.eps, norm.momentum, norm.affine))
    for name, child in module.named_children():
        setattr(module, name, plain_batch_norm(child))
    return module


def _replace(module: nn.Module, new: Callable[[nn.modules.batchnorm._BatchNorm], Any]) -> nn.Module:
    """The module with each BatchNorm1d and BatchNorm2d in it exchanged, at every depth; one exchanged before, too."""
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or hasattr(module, "plain"):
        norm: Any = module
        kind = getattr(norm, "plain", type(norm))
        if kind not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise BatchNormError(
                f"a {type(module).__name__} does more than normalise and cannot be exchanged for one that looks at "
                "other images: train it in one process, without the method's sync_bn or with its target_bn or key_bn "
                "'ema', whichever it has, or take a network of plain BatchNorm, such as a ResNet"
            )
        exchanged = new(norm)
        if type(exchanged) is not kind:
            exchanged.plain = kind
        return _carried(norm, exchanged)
    for name, child in module.named_children():
        setattr(module, name, _replace(child, new))
    return module


def _carried(norm: nn.modules.batchnorm._BatchNorm, into: nn.Module) -> nn.Module:
    """The other layer with all that a BatchNorm holds."""
    into.load_state_dict(norm.state_dict())
    for name, parameter in norm.named_parameters():
        into.get_parameter(name).requires_grad_(parameter.requires_grad)
    return into.to(norm.running_mean).train(norm.training)


def _momentum(norm: nn.modules.batchnorm._BatchNorm) -> float:
    """The momentum of the running statistics; BatchNormError for a BatchNorm that averages over all steps."""
    if norm.momentum is None:
        raise BatchNormError(
            "a BatchNorm with momentum=None averages over all steps and cannot be exchanged: give it a momentum, such "
            "as 0.1, train it on one process, or take a plain ResNet"
        )
    return norm.momentum
