"""A loop on a CUDA device that is not there: its tensors have shapes, types and a device, and no numbers.

What a GPU would refuse (tensors of two devices in one operation) is refused, and what it would be waited for is noted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import tiny
from small_methods import Drawn, mined
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_backbones import create_model
from ssl_backbones.data.batches import Batch
from ssl_backbones.data.order import Order
from ssl_backbones.data.placement import mapped, to_device
from ssl_backbones.methods import Method, MethodConfig
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.precision import Compute
from ssl_backbones.views import Transform
from ssl_backbones.views.normalise import _affine

CUDA = torch.device("cuda", 0)
IMAGES, BATCH = 26, 8
MANY = 64
"""Images, among which are some for every step of a policy."""
READ_BACK = ("_local_scalar_dense", "is_nonzero", "equal")
COUNTED = ("nonzero", "masked_select", "unique", "bincount", "repeat_interleave.Tensor")
"""Operations whose result is as large as its numbers say."""
NOT_REPEATABLE = re.compile(
    r"(_?adaptive_(avg|max)_pool\dd|avg_pool3d|fractional_max_pool\dd|upsample_(\w*linear|bicubic)\w*|reflection_pad\dd"
    r"|_?ctc_loss|_embedding_bag|grid_sampler_\dd)_backward|max_unpool\dd|nll_loss2d\w*|put_?|histc|median|scatter_reduce_?"
)
"""Operations without a deterministic form on CUDA, as torch.use_deterministic_algorithms lists them."""


@cache
def works() -> bool:
    """True where torch makes fake tensors of a GPU without one; old builds for CUDA ask its driver."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _ = torch.ones(2, device=CUDA)[:, None]
    except (RuntimeError, AssertionError):
        return False
    return True


class Waits(TorchDispatchMode):
    """Notes the operations for which a host waits for its device, the names of all, and how products are made."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.products: dict[str, set[str]] = {}
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        self.names[name.split(".")[0]] += 1
        if name.startswith(("addmm", "bmm")):
            self.products.setdefault(name.split(".")[0], set()).add(torch.get_float32_matmul_precision())
        if name.startswith((*READ_BACK, *COUNTED, "index", "_fused")):
            here = [tensor for tensor in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
            on_device = any(tensor.is_cuda for tensor in here)
            if on_device and name.startswith(READ_BACK + COUNTED):
                self.found.append(f"{name} is read back")
            if on_device and name.startswith("index") and self.masks(args):
                self.found.append(f"{name} counts a mask")
            if name.startswith("_fused"):  # whose fake form torch lacks
                assert {tensor.device.type for tensor in here} == {"cuda"}
                return None
        result = func(*args, **kwargs or {})
        if copies(name, args, kwargs or {}, result):
            self.found.append(f"{name} copies between host and device")
        return result

    @staticmethod
    def masks(args: Any) -> bool:
        """True if an index is boolean; a number at its places needs no counting."""
        indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        number = len(args) > 2 and isinstance(args[2], Tensor) and args[2].numel() == 1
        return not number and any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)


def copies(name: str, args: Any, kwargs: Any, result: Any) -> bool:
    """True for a copy from host to device or back that is waited for."""
    if name.startswith("_to_copy"):
        source, target, waits = args[0], result, not kwargs.get("non_blocking", False)
    elif name.startswith("copy_"):
        target, source, waits = args[0], args[1], not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    else:
        return False
    moved = isinstance(source, Tensor) and source.device.type != target.device.type
    return bool(moved and (waits or target.device.type == "cpu"))


class FakeAccelerator:
    """The part of Accelerate that a loop asks, for one process in single precision."""

    device, num_processes, process_index, scaler = CUDA, 1, 0, None
    no_sync = nullcontext

    def prepare(self, method: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        optimizer.step_was_skipped = False
        return method, optimizer

    def backward(self, loss: Tensor) -> None:
        walk_back(loss)


def walk_back(loss: Tensor) -> None:
    """`loss.backward()` without torch's engine, which on a machine without a GPU has no queue for one."""
    assert loss.grad_fn is not None
    gradients: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    for node in in_order(loss.grad_fn):
        run = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
        with torch.no_grad():
            found = run(*gradients.pop(node, []))
        found = found if isinstance(found, tuple) else (found,)
        for (below, place), gradient in zip(node.next_functions, found, strict=bool(node.next_functions)):
            if below is None or gradient is None:
                continue
            into = gradients.setdefault(below, [])
            into += [None] * (len(below._input_metadata) - len(into))
            gradient = gradient.sum_to_size(below._input_metadata[place].shape)  # the engine does for broadcasts
            into[place] = gradient if into[place] is None else into[place] + gradient


def in_order(root: Any) -> list[Any]:
    """The nodes below a node of autograd's graph, each after all that lead to it."""
    done: dict[Any, None] = {}
    stack = [(root, False)]
    while stack:
        node, below_done = stack.pop()
        if below_done:
            done[node] = None
        elif node not in done:
            stack.append((node, True))
            stack += [(below, False) for below, _ in node.next_functions if below is not None and below not in done]
    return list(reversed(done))


class NoJudge:
    """Nothing is measured."""

    every, at_start = 0, False


def applied(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` with new parameters: fake ones cannot be exchanged in place."""
    for child in module.children():
        applied(child, convert)
    for name, weights in module._parameters.items():
        if weights is not None:
            module._parameters[name] = nn.Parameter(convert(weights.detach()), weights.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module


def hidden(method: Method) -> list[nn.Module]:
    """Networks that a method uses and does not train: they are not among its modules."""
    owners = [own for module in method.modules() for own in vars(module).values() if hasattr(own, "__dict__")]
    held = [part for own in owners for part in vars(own).values()]
    return list({id(part): part for part in held if isinstance(part, nn.Module)}.values())


def steps(
    kind: type[MethodConfig],
    data: Path,
    optimizer: OptimizerConfig,
    choices: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[Loop, Waits]:
    """A loop after a step of a method on fake CUDA, and what was noted in it.

    Its views are made on the host; for those of a device see `views_there`. What is brought there once for all steps
    is there already.
    """
    torch.manual_seed(0)
    run = tiny(kind, data, data.parent / "run", choices, optimizer=optimizer, **fields)
    images = mined(Drawn(IMAGES), *([run.method.pairs] if hasattr(run.method, "pairs") else []))
    method = run.method.build(create_model("resnet8", num_classes=0))
    dataset = method.dataset(images, run.size, run.seed)
    requests = list(islice(Order(IMAGES, BATCH, run.seed, accumulation=run.accumulation).requests(0), run.accumulation))
    content = [dataset[request].content for request in requests]
    mode = FakeTensorMode()
    for network in (method, *hidden(method)):
        applied(network, mode.from_tensor)
    with pytest.MonkeyPatch.context() as patch, mode, Waits() as waits:
        patch.setattr(nn.Module, "_apply", applied)
        patch.setattr(type(method), "dataset", lambda *asked: dataset)
        forget_constants(patch)
        batches = [Batch(mapped(mode.from_tensor, part), {}) for part in content]
        for network in hidden(method):
            network.to(CUDA)
        accelerator: Any = FakeAccelerator()
        judge: Any = NoJudge()
        compute, folder = Compute("fp32", "channels_last", tried={}), RunFolder(data.parent / "run", False)
        loop = Loop(run, images, judge, method, compute, accelerator, folder)
        dataset.on_device(to_device(batches[0].content, CUDA))
        waits.found.clear()
        waits.names.clear()
        loop.descend(batches)
        return loop, waits


def views_there(transform: Transform) -> tuple[list[Tensor], Waits]:
    """All that a transform makes on fake CUDA of images of several sizes, and what was noted meanwhile."""
    drawn = Drawn(MANY)
    images = [drawn[index] for index in range(MANY)]
    content = transform.on_host(images, transform.draw(0, 0, np.arange(MANY)))
    mode = FakeTensorMode()
    with pytest.MonkeyPatch.context() as patch, mode, Waits() as waits:
        forget_constants(patch)
        here = mapped(mode.from_tensor, content)
        transform.on_device(to_device(here, CUDA))
        waits.found.clear()
        waits.names.clear()
        return torch.utils._pytree.tree_leaves(transform.on_device(to_device(here, CUDA))), waits


def forget_constants(patch: pytest.MonkeyPatch) -> None:
    """Make the tensors that are kept for all steps anew, as fake ones."""
    patch.setattr(sys.modules[_affine.__module__], "_affine", cache(_affine.__wrapped__))


def left_behind(loop: Loop) -> list[str]:
    """Names of the method's and the optimiser's tensors that are not on the device."""
    named = {**dict(loop.method.named_parameters()), **dict(loop.method.named_buffers())}
    for parameter, state in loop.optimizer.state.items():
        shape = tuple(parameter.shape)
        named |= {f"{name} of {shape}": part for name, part in state.items() if isinstance(part, Tensor) and part.ndim}
    return [name for name, tensor in named.items() if not tensor.is_cuda]
