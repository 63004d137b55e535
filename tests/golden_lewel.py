"""Recorded numbers of LEWEL (tests/golden/lewel.json) in the names of this package."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_backbones.methods import LewelB, LewelBConfig, LewelM, LewelMConfig

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "lewel.json").read_text())
CASES: dict[str, Any] = {case["name"]: case for case in GOLDEN["cases"]}

RENAMED = (
    (r"^online_net\.|^encoder_q\.enc\.", ""),
    (r"^target_net\.", "target."),
    (r"^encoder_k\.enc\.", "key_encoder."),
    (r"neck\.proj\.mlp", "head.projector.layers"),
    (r"neck\.proj_obj\.mlp", "head.semantic.layers"),
    (r"^predictor\.mlp", "predictor.layers"),
    (r"^predictor_obj\.mlp", "aligned_predictor.layers"),
    (r"^queue$", "queue.keys"),
    (r"^queue_ptr$", "queue.pointer"),
)


class StubBackbone(nn.Module):
    """The three layers the numbers were recorded with."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.bn1(self.conv1(images)).relu()

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_features(images).mean((2, 3))


def our_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=torch.float64).view(recorded["shape"])


def state_of(case: dict[str, Any]) -> dict[str, Tensor]:
    """The recorded state in our names and shapes."""
    state = {our_name(name): tensor(recorded) for name, recorded in case["state_dict"].items()}
    state = {name: value.squeeze(-1) if value.ndim == 3 else value for name, value in state.items()}
    if "queue.keys" in state:
        state["queue.keys"] = state["queue.keys"].T
        state["queue.pointer"] = state["queue.pointer"].view(()).long()
    return {name: value.long() if name.endswith("num_batches_tracked") else value for name, value in state.items()}


def images(step: int) -> list[Tensor]:
    return [tensor(view) for view in GOLDEN["images"][step]]


def lewel_b(name: str, **overrides: Any) -> LewelB:
    case = CASES["LEWEL_B_EMAN"]  # whose state LEWEL_B_BN shares
    config = LewelBConfig(
        hidden_dim=12,
        projection_dim=8,
        aligned_dim=8,
        groups=2,
        target_bn="ema" if "EMAN" in name else "plain",
        **overrides,
    )
    method = LewelB(StubBackbone(), config).double().train()
    method.load_state_dict(state_of(case))
    return method


def lewel_m(**overrides: Any) -> LewelM:
    settings: dict[str, Any] = {
        "hidden_dim": 12, "projection_dim": 8, "aligned_dim": 8, "groups": 2, "queue_size": 12, "momentum": 0.99,
        "key_bn": "shuffle", "bn_splits": 1, **overrides,
    }  # fmt: skip
    method = LewelM(StubBackbone(), LewelMConfig(**settings)).double().train()
    method.load_state_dict(state_of(CASES["LEWEL_M"]))
    return method
