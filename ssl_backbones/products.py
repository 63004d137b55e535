"""Products of float32 numbers: exact or, on a GPU, in TF32, which keeps three digits and is several times faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch


def exact_products() -> AbstractContextManager[None]:
    """Context manager: multiply float32 matrices exactly; within a compiled graph, as the rest of that does.

    A gradient that is computed after the block multiplies as is allowed by then.
    """
    return nullcontext() if torch.compiler.is_compiling() else products("highest")


def network_products(device: torch.device) -> AbstractContextManager[None]:
    """Context manager: multiply float32 matrices as a network may, on a GPU in TF32 and exactly on a CPU."""
    return products("high") if device.type == "cuda" else nullcontext()


@contextmanager
def products(precision: Literal["highest", "high"]) -> Iterator[None]:
    """Context manager: set torch's precision of products of float32 matrices inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class ExactConvolutions:
    """Context manager, for one block after another: convolve float32 exactly, which a GPU else does in TF32."""

    def __enter__(self) -> None:
        self.before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32 = self.before
