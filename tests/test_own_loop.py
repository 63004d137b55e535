"""A training loop of one's own: docs/parts.md over every method, and what such a loop leans on."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT
from PIL import Image
from small_methods import CONFIGS, STAND_INS, Drawn, batch_of, features_of, mined, small_config, small_method
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_backbones.data import Epochs, Images
from ssl_backbones.data.order import Order
from ssl_backbones.hub import save_backbone
from ssl_backbones.losses import vicreg
from ssl_backbones.methods import BYOL, BYOLConfig, MethodConfig, MoCoV2, MoCoV2Config, SimCLR
from ssl_backbones.models import batch_norm, plain_batch_norm
from ssl_backbones.models.batch_norm import BatchNormError, CrossReplicaBatchNorm, SplitBatchNorm, groups_of
from ssl_backbones.refusal import Refusal
from ssl_backbones.views import IMAGENET_MEAN, CenterCrop
from ssl_backbones.visualizers import overlay, raw_grad_cam
from ssl_backbones.visualizers.embedding import trustworthiness

PAGE = (ROOT / "docs" / "parts.md").read_text(encoding="utf-8")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@pytest.fixture(scope="module")
def pretrain() -> Any:
    """The loop of the page."""
    (text,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def pretrain(" in text)
    told: dict[str, Any] = {"__name__": "page"}
    exec(compile(text.partition("\ndevice = ")[0], "page", "exec"), told)
    return told["pretrain"]


@pytest.mark.parametrize("kind", STAND_INS)
def test_the_loop_of_the_page_trains_every_method(kind: type[MethodConfig], pretrain: Any) -> None:
    method = small_method(kind)
    before = copy.deepcopy(dict(method.backbone.named_parameters()))
    backbone = pretrain(method, mined(Drawn(24)), 16, 8, 2, torch.device("cpu"))
    assert backbone is method.published
    assert all((value != before[name]).any() for name, value in method.backbone.named_parameters())
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_every_epoch_has_other_views_in_another_order_and_the_same_again() -> None:
    images = Drawn(8)
    dataset = small_method(BYOLConfig).dataset(images, 16, seed=3)

    def shown(order: Epochs) -> tuple[np.ndarray, Tensor]:
        (request,) = order
        return request.indices, dataset[request].content[0]

    order = Epochs(dataset, 8)
    (rows, views), (rows_later, views_later) = shown(order), shown(order)
    order.set_epoch(0)
    assert [*shown(order)[0]] == [*rows]
    assert sorted(rows) == sorted(rows_later) == [*range(8)]
    assert [*rows] != [*rows_later]
    for row in range(8):
        assert (views[[*rows].index(row)] != views_later[[*rows_later].index(row)]).any()
    again, views_again = shown(Epochs(dataset, 8, first=1))
    assert [*again] == [*rows_later]
    torch.testing.assert_close(views_again, views_later, rtol=0, atol=0)


def test_epochs_are_those_of_a_run_and_shared_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_method(BYOLConfig).dataset(Drawn(20), 16, seed=5)
    order, of_run = Epochs(dataset, 8), Order(20, 8, seed=5)
    assert len(order) == 2
    for epoch in range(2):
        for one, other in zip(order, of_run.requests(epoch), strict=True):
            assert [*one.indices] == [*other.indices]
    monkeypatch.setattr("ssl_backbones.data.order.world_size", lambda: 2)
    halves = []
    for rank in range(2):
        monkeypatch.setattr("ssl_backbones.data.order.rank", lambda rank=rank: rank)
        halves.append([[*request.indices] for request in Epochs(dataset, 8)])
    whole = [[*request.indices] for request in of_run.requests(0)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    with pytest.raises(ValueError, match="shared evenly by 2 processes"):
        len(Epochs(dataset, 7))


def test_readers_begun_anew_get_the_loader() -> None:
    """As `spawn` hands it over."""
    dataset = small_method(BYOLConfig).dataset(Drawn(8), 16, seed=3)
    loader = DataLoader(pickle.loads(pickle.dumps(dataset)), batch_size=None, sampler=Epochs(dataset, 8))  # type: ignore[var-annotated,arg-type]
    (batch,) = loader
    assert not batch.unreadable
    torch.testing.assert_close(batch.content, dataset[next(iter(Epochs(dataset, 8)))].content, rtol=0, atol=0)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_state_is_loaded_into_a_fresh_method(kind: type[MethodConfig]) -> None:
    """With a row for each image where it has one, of which a fresh method knows nothing."""
    trained = small_method(kind, seed=1)
    batch_of(trained)
    fresh = small_method(kind, seed=2)
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(fresh.state_dict(), trained.state_dict(), rtol=0, atol=0)
    copied = copy.deepcopy(small_method(kind, seed=2))
    copied.load_state_dict(trained.state_dict())
    torch.testing.assert_close(copied.state_dict(), trained.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["distilled", "rob", "instdisc", "deepcluster", "pcl"])
def test_what_learns_of_all_images_says_that_it_has_seen_none(name: str) -> None:
    (kind,) = (kind for kind in CONFIGS if kind.name == name)
    ready = small_method(kind)
    batch = batch_of(ready)
    with pytest.raises(ValueError, match=r"method\.dataset\(images, size, seed\) before the first step"):
        small_config(kind).build(timm.create_model("resnet8", num_classes=0))(batch)
    ready.on_epoch_start(lambda: torch.randn(8, features_of(ready)))
    assert ready(batch)["loss"].isfinite()


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_method_takes_weights_in_bfloat16(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    batch = batch_of(method, dtype=torch.bfloat16)
    method.bfloat16().on_epoch_start(lambda: torch.randn(8, features_of(method)))
    for _ in range(2):
        loss = method(batch)["loss"]
        loss.backward()
        method.on_step_end(0.5)
    assert loss.isfinite()


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_backbone_leaves_its_method_with_plain_batch_norm(kind: type[MethodConfig]) -> None:
    method = small_method(kind)
    state = copy.deepcopy(method.backbone.state_dict())
    backbone: nn.Module = plain_batch_norm(method.backbone).train()
    kinds = [type(part) for part in timm.create_model("resnet8", num_classes=0).modules()]
    assert [type(part) for part in backbone.modules()] == kinds
    torch.testing.assert_close(backbone.state_dict(), state, rtol=0, atol=0)
    assert backbone(torch.randn(2, 3, 16, 16)).isfinite().all()


def test_what_does_not_learn_is_exchanged_with_that() -> None:
    backbone = timm.create_model("resnet8", num_classes=0)
    backbone.layer1.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    for exchanged in (MoCoV2(backbone).backbone, plain_batch_norm(backbone)):
        assert {name: parameter.requires_grad for name, parameter in exchanged.named_parameters()} == flags


def test_a_second_method_that_exchanges_has_its_own_batch_norm() -> None:
    backbone = MoCoV2(timm.create_model("resnet8", num_classes=0)).backbone
    assert groups_of(MoCoV2(backbone, MoCoV2Config(bn_splits=2)).backbone) == 2
    assert all(type(part) is not SplitBatchNorm for part in SimCLR(backbone).modules())
    assert any(type(part) is CrossReplicaBatchNorm for part in backbone.modules())


def test_a_network_with_norms_of_its_own_stays_as_it_is() -> None:
    network: nn.Module = timm.create_model("mobilenetv3_small_050", num_classes=0)
    kinds = [type(part) for part in network.modules()]
    assert [type(part) for part in plain_batch_norm(network).modules()] == kinds
    with pytest.raises(BatchNormError, match="without the method's sync_bn"):
        SimCLR(network)


def test_groups_follow_processes_that_meet_after_the_method_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    method = MoCoV2(timm.create_model("resnet8", num_classes=0))
    assert groups_of(method) == 8
    rows = torch.randn(16, 3, 4, 4)
    split, plain = SplitBatchNorm(3, 8), nn.BatchNorm2d(3)
    for processes, groups in ((2, 4), (3, 2), (8, 1), (16, 1)):
        monkeypatch.setattr(batch_norm, "world_size", lambda processes=processes: processes)
        assert groups_of(method) == groups
    torch.testing.assert_close(split(rows), plain(rows), rtol=0, atol=0)  # of 16 processes
    torch.testing.assert_close(split.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_a_module_with_a_backbone_is_explained_by_its_own_outputs() -> None:
    """Whatever the attribute is called."""

    class Probe(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.name = name
            self.add_module(name, timm.create_model("resnet8", num_classes=0))
            self.fc = nn.Linear(64, 10)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.fc(getattr(self, self.name)(images))
            return scores

    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = [
        raw_grad_cam(probe, images, lambda outputs: outputs[:, 9], getattr(probe, probe.name).layer3)
        for probe in (Probe("backbone"), Probe("net"))
    ]
    torch.testing.assert_close(*maps)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16", "YCbCr"])
def test_an_image_that_is_not_rgb_is_told_by_its_mode(mode: str) -> None:
    class Odd(Images):
        keys, labels, classes, fingerprint = "abcdefghijklmnop", np.arange(16) % 3, ("x", "y", "z"), "odd"

        def __getitem__(self, index: int) -> Image.Image:
            return Image.new(mode, (24, 24))

    said = rf"of mode {mode!r}, where views are of RGB: give image\.convert\('RGB'\)"
    for name in ("byol", "rotnet", "patch_rotnet", "deepcluster", "swav", "pixpro"):
        (kind,) = (kind for kind in CONFIGS if kind.name == name)
        dataset = small_method(kind).dataset(Odd(), 16, seed=0)
        with pytest.raises(Refusal, match=said):
            dataset[next(iter(Epochs(dataset, 8)))]
    with pytest.raises(Refusal, match=said):
        CenterCrop(16).on_host([Image.new(mode, (24, 24))], None)


def test_a_folder_keeps_the_preparation_that_the_network_describes(tmp_path: Path) -> None:
    cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "interpolation": "bicubic", "crop_pct": 0.8}
    backbone = timm.create_model("resnet18", num_classes=0, pretrained_cfg_overlay=cfg | {"input_size": (3, 96, 96)})
    folder = save_backbone(BYOL(backbone).backbone, tmp_path / "backbone", "resnet18")
    for stranger in ({}, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}):
        backbone.pretrained_cfg = stranger
        other = save_backbone(backbone, tmp_path / "other", "resnet18")
        told = timm.create_model(f"local-dir:{other}", pretrained=True).pretrained_cfg
        assert (told["input_size"], told["mean"]) == ([3, 224, 224], [*stranger.get("mean", IMAGENET_MEAN)])
    found = timm.create_model(f"local-dir:{folder}", pretrained=True)
    prepared = timm.data.resolve_data_config({}, model=found)
    assert [*prepared["input_size"]] == [3, 96, 96]
    for name, value in cfg.items():
        assert prepared[name] == (list(value) if isinstance(value, tuple) else value)


def test_small_things_that_a_loop_of_ones_own_hands_over() -> None:
    crop = CenterCrop(8, mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])  # type: ignore[arg-type]  # as a folder's JSON has them
    assert crop.on_device(crop.on_host([Image.new("RGB", (9, 9))], None)).shape == (1, 3, 8, 8)
    heat = torch.rand(4, 4, requires_grad=True)
    assert overlay(Image.new("RGB", (8, 8)), heat).size == (8, 8)
    with pytest.raises(ValueError, match="give batches of 2 or more"):
        vicreg(torch.randn(1, 4), torch.randn(1, 4))


def test_the_trust_in_a_plane_is_of_all_images_whatever_is_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 5))
    found = []
    for at_once in (7, 300):
        monkeypatch.setattr("ssl_backbones.visualizers.embedding.AT_ONCE", at_once)
        found.append(trustworthiness(rows, rows[:, :2], 10))
    assert found[0] == found[1] < 1


@pytest.mark.filterwarnings("default")  # for those of lightning itself, and what it warns of a target in eval mode
def test_a_step_of_several_batches_moves_the_target_once(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install 'ssl-backbones[docs]'")
    (text,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "import lightning" in text)
    told: dict[str, Any] = {"__name__": "page"}
    exec(compile(text, "page", "exec"), told)
    method = small_method(BYOLConfig)
    dataset = method.dataset(Drawn(16), 16, seed=0)
    seen: list[float] = []
    method.on_step_end = lambda progress: seen.append(progress) or {}  # type: ignore[method-assign,func-returns-value]
    loader = DataLoader(dataset, None, sampler=Epochs(dataset, 4), collate_fn=lambda batch: batch.content)  # type: ignore[var-annotated,arg-type]
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", accumulate_grad_batches=2, default_root_dir=tmp_path, **quiet
    )
    trainer.fit(told["Pretraining"](method, dataset), loader)
    assert seen == [0, 0.25, 0.5, 0.75]
