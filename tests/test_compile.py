"""A compiled method learns what an uncompiled one learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import image_folder, run, state, tiny
from torch import nn

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
