"""Names, taken apart and put together."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.registry.names import Name, without_place
from ssl_backbones.registry.papers import PAPERS

ARCHS = (
    "resnet50",
    "wide_resnet50_2",
    "convnext_tiny",
    "resnet50d",
    "vit_small_patch14_dinov2",
    "resnetv2_50x1_bit",
)


@pytest.mark.parametrize("method", sorted(PAPERS))
def test_a_name_is_taken_apart_and_put_together_again(method: str) -> None:
    for arch, tag in product(ARCHS, ("", "in1k_100ep", "in1k_100ep_byol")):
        text = f"{arch}_{method}.{tag}" if tag else f"{arch}_{method}"
        name = Name.parse(text)
        assert name == Name(arch, method, tag)
        assert (str(name), name.model) == (text, f"{arch}_{method}")


@pytest.mark.parametrize("text", ["resnet50", "convnext_tiny", "sample", "byol", "_", "a_b", ""])
def test_a_name_without_a_method_is_a_network_s(text: str) -> None:
    assert Name.parse(text) == Name(text)
    assert Name.parse(f"{text}.a1_in1k") == Name(text, tag="a1_in1k")


@pytest.mark.parametrize("arch", ["resnet50", "wide_resnet50_2", "convnext_tiny"])
def test_an_unknown_method_is_what_follows_the_network(arch: str) -> None:
    assert Name.parse(f"{arch}_my_method.x") == Name(arch, "my_method", "x")


@given(st.text())
def test_no_letter_of_any_text_is_lost(text: str) -> None:
    assert str(Name.parse(text)) in (text, text.removesuffix("."))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet8_byol.imagenette32_60ep", "resnet8_byol.imagenette32_60ep"),
        ("hf-hub:org/name", "hf-hub:org/name"),
        ("private/runs/mine", "mine"),
        ("private/runs/mine/", "mine"),
        ("private/runs/mine/backbone", "mine"),
        (".", "here"),
        ("backbone", "here"),
    ],
)
def test_a_folder_goes_by_its_last_part(
    model: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert without_place(model) == expected
