"""Switches of a GPU: they are set for a run and a device, and what has to be exact stays so beside TF32."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import ROOT, drawn_image
from runs import image_folder, outcome, run, tiny
from scenes import DrawnScenes
from test_losses import ARGUMENTS
from test_segment_model import small
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_backbones import losses
from ssl_backbones.data.parts import Request
from ssl_backbones.evaluate.detection.detect_run import DetectRun
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS
from ssl_backbones.evaluate.segmentation.segmentation import Segmentation
from ssl_backbones.evaluate.segmentation.segmentation_judge import SegmentationJudge
from ssl_backbones.losses.parts import in_parts
from ssl_backbones.methods import MoCoV2Config
from ssl_backbones.methods.nnclr import cosines
from ssl_backbones.models.prototypes import Prototypes
from ssl_backbones.products import network_products, products
from ssl_backbones.train import switches
from ssl_backbones.train.precision import passes
from ssl_backbones.train.switches import NotRepeatableError, repeatable, set_switches
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "images")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(switches.WORKSPACE, raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def switched() -> tuple[bool, bool, bool, str | None]:
    """Repeatable operations, fresh memory filled, a search for fast convolutions, and cuBLAS' workspace."""
    filled: bool = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    found = torch.are_deterministic_algorithms_enabled(), filled, torch.backends.cudnn.benchmark
    return *found, os.environ.pop(switches.WORKSPACE, None)


def test_switches_follow_the_run_and_the_device(data: Path) -> None:
    plain = tiny(MoCoV2Config, data, data.parent / "run")
    repeated = replace(plain, deterministic=True)
    for asked, device, expected in (
        (plain, CUDA, (False, True, True, None)),
        (repeated, CUDA, (True, False, False, ":4096:8")),
        (DetectRun(size=800), CUDA, (False, True, False, None)),
        (repeated, CPU, (False, True, False, None)),
    ):
        set_switches(asked, device)
        assert switched() == expected


@pytest.mark.parametrize("fails", [False, True])
def test_no_convolutions_are_searched_for_images_of_many_sizes(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    searching = []

    def scores(method: Segmentation, image: Tensor, size: tuple[int, int]) -> Tensor:
        searching.append(torch.backends.cudnn.benchmark)
        assert not fails
        return torch.zeros(1, 4, *size)

    monkeypatch.setattr(Segmentation, "scores", scores)
    judge = SegmentationJudge(PRESETS["voc_moco"], small(), DrawnScenes(2), ["0", "1", "2", "3"])
    bench: Any = Mock(device=CPU, workers=0, autocast=nullcontext)
    torch.backends.cudnn.benchmark = True
    with pytest.raises(AssertionError) if fails else nullcontext():
        judge.judge(bench)
    assert searching == [False] * (1 if fails else 2)
    assert torch.backends.cudnn.benchmark


def test_on_a_cpu_repeatable_operations_are_those_that_always_run(data: Path) -> None:
    recipe = tiny(MoCoV2Config, data, data.parent / "plain", max_steps=3)
    run(recipe)
    run(replace(recipe, deterministic=True, out=str(data.parent / "repeated")))
    plain, repeated = (outcome(data.parent / name) for name in ("plain", "repeated"))
    assert plain == repeated


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    torch.use_deterministic_algorithms(True)
    words = r"^put_ has no deterministic form .* leave out --deterministic"
    with pytest.raises(NotRepeatableError, match=words), repeatable():
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    with pytest.raises(RuntimeError, match="another"), repeatable():
        raise RuntimeError("another")


def test_one_that_is_met_while_a_run_is_prepared_is_named_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of precision and of memory go backwards through the method before its first step."""
    for part in ("fitted", "prepare"):
        with monkeypatch.context() as patched:
            error = RuntimeError("put_ does not have a deterministic implementation, but you set")
            patched.setattr(f"ssl_backbones.train.pretrain.{part}", Mock(side_effect=error))
            with pytest.raises(NotRepeatableError, match=r"^put_ has no deterministic form"):
                run(tiny(MoCoV2Config, data, data.parent / part))


@pytest.mark.skipif(not torch.__version__.startswith("2.14."), reason="the page tells the list of torch 2.14")
def test_the_page_lists_what_torch_has_no_deterministic_form_of() -> None:
    said = str(torch.use_deterministic_algorithms.__doc__)
    listed = said[said.rindex("will throw a\n") : said.index("In addition, several operations")]
    names = re.findall(r"\* :(?:class|func):`[\w.]*?(\w+)`", listed)
    assert len(names) > 20
    told = (ROOT / "docs" / "reliability.md").read_text().partition("## Operations without a deterministic form")[2]
    assert [name for name in names if f"`{name}`" not in told] == []


class TF32(TorchDispatchMode):
    """Products as a GPU makes them in TF32, where torch allows that: of numbers with ten bits behind the point."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        product = str(func).removeprefix("aten.").startswith(("mm.", "bmm.", "addmm."))
        if product and torch.get_float32_matmul_precision() != "highest":
            args = [shortened(part) if isinstance(part, Tensor) else part for part in args]
        return func(*args, **kwargs or {})


def shortened(value: Tensor) -> Tensor:
    """A float32 tensor with ten bits behind the point."""
    return ((value.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def views_of(images: list[Any]) -> list[Tensor]:
    transform = MultiView(MOCO_V2_VIEWS, 16, "device")
    drawn = transform.draw(3, 0, Request(0, np.arange(len(images))).indices)
    return transform.on_device(transform.on_host(images, drawn))


def test_the_levels_of_views_are_exact_beside_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [drawn_image(number, 40, 32) for number in range(6)]
    expected = views_of(images)
    with TF32(), network_products(CUDA):
        allowed = views_of(images)
        monkeypatch.setattr("ssl_backbones.views.device_engine.exact_products", lambda: products("high"))
        spoilt = views_of(images)
    assert all(torch.equal(*pair) for pair in zip(allowed, expected, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(spoilt, expected, strict=True))


ROWS, KEYS = (normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(count))) for count in (8, 64))


def in_single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize(
    "work",
    [
        *[partial(getattr(losses, name), *map(in_single, given)) for name, given in ARGUMENTS.items()],
        partial(losses.info_nce, ROWS, KEYS[:8], KEYS, 0.2),
        partial(cosines, ROWS, KEYS),
        partial(Prototypes(5, 16), ROWS),
        partial(Prototypes(5, 16, weight_norm=True), ROWS[None]),
    ],
    ids=lambda work: getattr(work.func, "__name__", "Prototypes"),
)
def test_losses_queues_and_prototypes_are_exact_beside_tf32(work: Callable[[], Any]) -> None:
    plain = torch.as_tensor(work())
    with TF32(), network_products(CUDA):
        assert torch.equal(torch.as_tensor(work()), plain)
        rounded = ROWS @ KEYS.T
    assert not torch.equal(rounded, ROWS @ KEYS.T)
    with network_products(CPU):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "highest"


def test_both_passes_of_a_step_may_be_in_tf32() -> None:
    seen: list[str] = []

    class Noting(nn.Module):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            batch.register_hook(lambda _: seen.append(f"back {torch.get_float32_matmul_precision()}"))
            seen.append(torch.get_float32_matmul_precision())
            return {"loss": batch.sum()}

    passes(Noting(), torch.ones(2, requires_grad=True), "fp32", CUDA)
    assert seen == ["high", "back high"]


@pytest.mark.parametrize("at_once", [3, 8])
def test_parts_that_are_computed_again_for_the_gradient_are_exact_beside_tf32(at_once: int) -> None:
    made: list[str] = []

    def work(rows: Tensor, others: Tensor) -> Tensor:
        made.append(torch.get_float32_matmul_precision())
        return (rows @ others.T).square()

    rows = ROWS.clone().requires_grad_()
    with network_products(CUDA):
        found = torch.cat([part.sum(1) for part in in_parts(lambda part: work(part, KEYS), (rows,), at_once)])
        found.sum().backward()
        assert torch.get_float32_matmul_precision() == "high"
    assert made == ["highest"] * (6 if at_once == 3 else 1)
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, 2 * ROWS @ KEYS.T @ KEYS)
