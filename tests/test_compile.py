"""A compiled method learns what an uncompiled one learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import image_folder, run, state, tiny
from small_methods import batch_of, small_method
from torch import nn
from torch._dynamo.testing import CompileCounter

from ssl_backbones.methods import (
    BYOLConfig,
    DenseCLConfig,
    DINOConfig,
    InstDiscConfig,
    LewelMConfig,
    LewelNNCLRConfig,
    LewelSwAVConfig,
    Method,
    MethodConfig,
    NNCLRConfig,
    PCLConfig,
    PixProConfig,
    ReSimConfig,
    SupConConfig,
    SwAVConfig,
    VICRegLConfig,
)

SLOWLY = (
    BYOLConfig,
    SupConConfig,
    NNCLRConfig,
    DenseCLConfig,
    SwAVConfig,
    DINOConfig,
    InstDiscConfig,
    PCLConfig,
    PixProConfig,
    ReSimConfig,
    LewelNNCLRConfig,
    LewelSwAVConfig,
    VICRegLConfig,
)


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOWLY), LewelMConfig])
def test_a_compiled_run_ends_like_another(
    kind: type[MethodConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced whole runs, without the compiler that a machine may lack: EMA, queue and exchange included."""
    data = image_folder(tmp_path / "photos")
    compiled: list[Method] = []

    def traced(method: Method) -> None:
        compiled.append(method)
        nn.Module.compile(method, backend="eager")

    monkeypatch.setattr(Method, "compile", traced)
    choices = {"epochs": 1}
    run(tiny(kind, data, tmp_path / "plain", **choices))
    assert not compiled
    run(tiny(kind, data, tmp_path / "compiled", compile=True, **choices))
    assert compiled
    plain, traced_state = state(tmp_path / "plain"), state(tmp_path / "compiled")
    assert plain.keys() == traced_state.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(traced_state[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOWLY)
def test_parts_of_a_batch_are_compiled_once(kind: type[MethodConfig]) -> None:
    """The next part is no other case for what the first one held back."""
    torch._dynamo.reset()
    method, counter = small_method(kind), CompileCounter()
    method.compile(backend=counter)
    batch, compiled = batch_of(method), []
    for _ in range(2):
        for _ in range(3):
            method(batch)["loss"].backward()
            method.on_part_end()
            compiled.append(counter.frame_count)
        method.on_step_end(0.5)
    assert compiled == compiled[:1] * 6
