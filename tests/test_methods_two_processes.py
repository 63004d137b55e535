"""One process with the whole batch, and two with half of it each: the same loss, gradients and state."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from small_methods import CONFIGS, Drawn, mined, small_method, views
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import run_two_processes

from ssl_backbones import distributed
from ssl_backbones.distributed import (
    first_decides,
    gather,
    gather_objects,
    in_every_process,
    share_first,
    sum_over_processes,
)
from ssl_backbones.methods import BYOLConfig, LewelBConfig, LewelMConfig, Method, MoCoV2Config, RoBConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.batch_norm import CrossReplicaBatchNorm
from ssl_backbones.train.guards import all_finite
from ssl_backbones.train.host_group import make_host_group

SYNCHRONISED: list[tuple[type[MethodConfig], dict[str, Any]]] = [
    (LewelBConfig, {"target_bn": "sync", "coupled_head": False}),
    (LewelMConfig, {"key_bn": "sync"}),
    (LewelMConfig, {"key_bn": "sync", "symmetric": True, "aligned_negatives": "everything"}),
    *((RoBConfig, {"loss": loss}) for loss in ("byol", "moco_v2", "lewel_b", "lewel_m")),
]
"""Beside those of whole runs, in test_run_two_processes.py."""


def train(kind: type[MethodConfig], choices: dict[str, Any], parts: int, rank: int) -> tuple[list[float], Method]:
    """Two steps on this rank's part of the batches; the losses over all ranks, and the method after them."""
    method = small_method(kind, **choices).double()
    wrapped: nn.Module = method
    if parts > 1:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped = DistributedDataParallel(method, broadcast_buffers=False)
    optimizer = torch.optim.SGD([value for value in method.parameters() if value.requires_grad], lr=0.05, momentum=0.9)
    losses = []
    for number in range(2):
        batch = [view.chunk(parts)[rank] for view in views(dtype=torch.float64, seed=number)]
        loss = wrapped(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.on_step_end(number / 2)
        mean = loss.detach().clone()
        if parts > 1:
            torch.distributed.all_reduce(mean)
        losses.append(mean.item() / parts)
    return losses, method


def on_a_rank(rank: int, cases: list[tuple[type[MethodConfig], dict[str, Any]]]) -> list[Any]:
    results = []
    for kind, choices in cases:
        losses, method = train(kind, choices, parts=2, rank=rank)
        results.append([losses, method.state_dict()])
    return results


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def test_synchronised_methods_do_not_care_how_the_batch_is_shared(ranks: list[Any]) -> None:
    for (kind, choices), first, second in zip(SYNCHRONISED, *(rank["synchronised"] for rank in ranks), strict=True):
        losses, alone = train(kind, choices, parts=1, rank=0)
        assert first[0] == pytest.approx(losses, rel=1e-10), (kind, choices)
        assert largest_difference(first[1], second[1]) == 0, (kind, choices)
        assert largest_difference(first[1], alone.state_dict()) < 1e-10, (kind, choices)


APART: list[tuple[type[MethodConfig], dict[str, Any]]] = [
    (BYOLConfig, {"target_bn": "plain"}),
    (LewelBConfig, {"target_bn": "ema"}),
    (MoCoV2Config, {"key_bn": "shuffle"}),
    (LewelMConfig, {"key_bn": "shuffle", "bn_splits": 4}),
]


def test_other_methods_keep_weights_and_queues_alike_all_the_same(ranks: list[Any]) -> None:
    """Statistics are each process's own; what they are used for must not drift apart. And they do make a difference."""
    first_rank, second_rank = (rank["apart"] for rank in ranks)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for (kind, choices), (losses, first), (_, second) in zip(APART, first_rank, second_rank, strict=True):
        shared = [name for name in first if not name.endswith(statistics) and not name.startswith("target.")]
        weights = [{name: state[name] for name in shared} for state in (first, second)]
        assert largest_difference(*weights) == 0, (kind, choices)
        alone, _ = train(kind, choices, parts=1, rank=0)
        if kind in (BYOLConfig, LewelBConfig):
            assert max(abs(a - b) for a, b in zip(losses, alone, strict=True)) > 1e-3


def normalise(rank: int) -> list[Tensor]:
    """Rows of 6 on the first rank and 2 on the second through one BatchNorm, forwards and back."""
    rows = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = (rows[:6] if rank == 0 else rows[6:]).clone().requires_grad_()
    norm = CrossReplicaBatchNorm(3).double()
    output = norm(mine)
    (output * torch.arange(output.numel()).view_as(output)).sum().backward()
    assert mine.grad is not None
    return [output.detach(), mine.grad, norm.running_mean, norm.running_var]


class OnGPU(Tensor):
    """A tensor on the CPU that stands for one on a GPU: made by `cuda`, and forgotten by `to` and `copy_`."""


def nccl(collective: Callable[..., Any], patch: pytest.MonkeyPatch) -> None:
    """Let a collective refuse what NCCL would: a tensor that is on no GPU."""
    real = getattr(torch.distributed, collective.__name__)

    def by_gpus(first: Any, *more: Any, **how: Any) -> Any:
        given = [tensor for each in (first, *more) for tensor in (each if isinstance(each, list) else [each])]
        for tensor in given if how.get("group") is None else ():
            if isinstance(tensor, Tensor) and not isinstance(tensor, OnGPU):
                raise RuntimeError("No backend type associated with device type cpu")
        return real(first, *more, **how)

    patch.setattr(torch.distributed, collective.__name__, by_gpus)


def starts_by_nccl(rank: int) -> dict[str, Any]:
    """Every method's start, before it is on its device, and what is sent of tensors on the CPU, by GPUs alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "get_backend", lambda: "nccl")
        patch.setattr(Tensor, "cuda", lambda tensor: tensor.clone().as_subclass(OnGPU))
        patch.setattr(OnGPU, "to", lambda tensor, *_: tensor.as_subclass(Tensor))
        for collective in (torch.distributed.broadcast, torch.distributed.all_reduce, torch.distributed.all_gather):
            nccl(collective, patch)
        centres = {}
        for kind in CONFIGS:
            method = small_method(kind)
            method.dataset(mined(Drawn(12)), 16, 0)
            centres |= {f"{kind.name} {name}": own for name, own in method.named_buffers() if "centre" in name}
        mine = torch.arange(3) + 10 * rank
        sent = {"sum": sum_over_processes(mine), "rows": gather(mine)}
        share_first(mine)
        return sent | {"first": mine} | centres


def objects_by_hosts(rank: int) -> dict[str, Any]:
    """All that processes tell one another beside tensors, and whether that and all reports went from host to host."""
    make_host_group(torch.device("cpu"))
    groups: list[Any] = []

    def noted(collective: Callable[..., Any], *given: Any, **how: Any) -> None:
        groups.append(how.get("group"))
        collective(*given, **how)

    def work() -> int:
        before = len(groups)
        while len(groups) == before:  # nothing reported yet
            time.sleep(0.01)
        return rank

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "REPORTS", timedelta(seconds=0.02))
        for collective in (torch.distributed.all_gather_object, torch.distributed.broadcast_object_list):
            patch.setattr(torch.distributed, collective.__name__, partial(noted, collective))
        told = {"gathered": gather_objects(rank), "decided": first_decides(work), "done": in_every_process(work)}
    own = distributed.HostGroup.group
    return told | {"by hosts": own is not None and all(group is own for group in groups)}


def found_finite(rank: int) -> dict[str, bool]:
    """The verdict on a network where a weight, or a statistic, is infinite in one process or in none."""
    found = {}
    for part, where in product(("weight", "running_var"), (0, 1, None)):
        network = nn.BatchNorm1d(3)
        if rank == where:
            getattr(network, part).data[1] = torch.inf
        found[f"{part} {where}"] = all_finite(network)
    return found


def everything(rank: int) -> dict[str, Any]:
    """The results of all that is compared; two processes take long to begin."""
    return {
        "synchronised": on_a_rank(rank, SYNCHRONISED),
        "apart": on_a_rank(rank, APART),
        "normalised": normalise(rank),
        "by nccl": starts_by_nccl(rank),
        "objects": objects_by_hosts(rank),
        "finite": found_finite(rank),
    }


@pytest.fixture(scope="module")
def ranks() -> list[Any]:
    """The results of either of two processes."""
    return run_two_processes(everything)


def test_cross_replica_batch_norm_is_batch_norm_over_all_rows(ranks: list[Any]) -> None:
    normalised = [rank["normalised"] for rank in ranks]
    rows = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    norm = nn.BatchNorm1d(3).double()
    output = norm(rows)
    weights = torch.cat([torch.arange(36).view(6, 3, 2), torch.arange(12).view(2, 3, 2)])
    (output * weights).sum().backward()
    assert rows.grad is not None
    torch.testing.assert_close(torch.cat([normalised[0][0], normalised[1][0]]), output.detach())
    torch.testing.assert_close(torch.cat([normalised[0][1], normalised[1][1]]), rows.grad)
    for part in normalised:
        torch.testing.assert_close(part[2], norm.running_mean)
        torch.testing.assert_close(part[3], norm.running_var)


def test_before_a_method_is_on_its_gpu_nothing_is_sent_that_nccl_refuses(ranks: list[Any]) -> None:
    first, second = (rank["by nccl"] for rank in ranks)
    assert largest_difference(first, second) == 0
    assert any(name.endswith(".centre") and tensor.any() for name, tensor in first.items())
    expected = {"sum": [10, 12, 14], "rows": [0, 1, 2, 10, 11, 12], "first": [0, 1, 2]}
    assert {name: second[name].tolist() for name in expected} == expected


def test_objects_go_from_host_to_host(ranks: list[Any]) -> None:
    """By NCCL a process would wait ten minutes for one that is killed; by gloo it hears of it at once."""
    told = {"gathered": [0, 1], "decided": 0, "done": [0, 1], "by hosts": True}
    assert [rank["objects"] for rank in ranks] == [told, told]


def test_what_is_not_finite_in_one_process_ends_both(ranks: list[Any]) -> None:
    for found in (rank["finite"] for rank in ranks):
        assert {name: name.endswith("None") for name in found} == found
