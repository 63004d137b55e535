"""The tensors that operations make, and how many bytes of them are alive at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):
    """Context manager: the sizes of all storages that are made meanwhile, and the most bytes that are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.made: list[int] = []
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        result = function(*args, **kwargs or {})
        self.sweep()
        for storage in (one.untyped_storage() for one in tree_leaves(result) if isinstance(one, Tensor)):
            if storage._cdata not in given | self.alive.keys():
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self.made.append(storage.nbytes())
        self.peak = max(self.peak, self.bytes())
        return result

    def sweep(self) -> None:
        self.alive = {key: (held, size) for key, (held, size) in self.alive.items() if not held.expired()}

    def bytes(self) -> int:
        """The bytes that are alive."""
        self.sweep()
        return sum(size for _, size in self.alive.values())
