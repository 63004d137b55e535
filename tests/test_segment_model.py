"""The network of a segmentation, its loss, and its test at the size of every image."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import DrawnScenes
from torch import Tensor, nn
from two_processes import run_two_processes

import ssl_backbones
from ssl_backbones.data import Request, UnreadableImageError
from ssl_backbones.evaluate.segmentation.fcn import FCNHead, dilated, enlarged, widths_of
from ssl_backbones.evaluate.segmentation.iou import mean_iou
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.scene_views import Scene
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS
from ssl_backbones.evaluate.segmentation.segmentation import Segmentation, SegmentationConfig, mean_loss
from ssl_backbones.evaluate.segmentation.segmentation_judge import overlaps
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.prepare import UnfitError

SMALL = {"classes": 4, "channels": 8, "convs": 1, "concat": False, "dropout": 0.0, "auxiliary": 0.0}


def small(seed: int = 0, **choices: Any) -> Segmentation:
    torch.manual_seed(seed)
    return Segmentation(dilated("resnet8", False, 8), SegmentationConfig(**SMALL | choices))


def batch(count: int = 4, side: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 4, (count, side, side), generator=generator)
    masks[:, : side // 4] = IGNORED
    masks[0, : side // 2] = IGNORED
    return torch.randn(count, 3, side, side, generator=generator), masks


@pytest.mark.parametrize(
    ("model", "stride", "shape", "widths"),
    [
        ("resnet18", 8, (9, 13), [256, 512]),
        ("resnet18", 16, (5, 7), [256, 512]),
        ("resnet18", 0, (3, 4), [256, 512]),
        ("resnet8", 8, (17, 25), [32, 64]),
        ("resnet32_moco_v2", 2, (33, 49), [32, 64]),
    ],
)
def test_the_last_map_is_at_the_stride(model: str, stride: int, shape: tuple[int, int], widths: list[int]) -> None:
    backbone = dilated(model, False, stride)
    before, last = backbone(torch.zeros(2, 3, 65, 97))
    assert tuple(last.shape) == (2, widths[1], *shape)
    assert (before.shape[1], widths_of(backbone)) == (widths[0], widths)
    assert backbone.training


def test_dilation_keeps_the_names_of_weights_and_what_the_first_stages_compute() -> None:
    torch.manual_seed(3)
    plain = ssl_backbones.create_model("resnet18", num_classes=0).eval()
    backbone = dilated("resnet18", False, 8).eval()
    names = {name for name in plain.state_dict() if not name.startswith("fc.")}
    assert set(backbone.state_dict()) == names
    backbone.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)
    (expected,) = plain.forward_intermediates(image, indices=[2], intermediates_only=True)
    stem = backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(image))))
    torch.testing.assert_close(backbone.layer2(backbone.layer1(stem)), expected)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224"])
def test_a_model_without_such_maps_is_refused(model: str) -> None:
    with pytest.raises(UnfitError, match=rf"^'{model}' gives no feature maps at stride 8 .*output_stride 0$"):
        dilated(model, False, 8)


def test_heads_of_the_presets() -> None:
    mmseg, moco = PRESETS["voc_fcn_d8"].task, PRESETS["voc_moco"].task
    head = FCNHead(2048, mmseg.channels, 21, mmseg.convs, mmseg.dilation, mmseg.concat, mmseg.dropout)
    assert sum(part.numel() for part in head.parameters()) == 9 * 512 * (2048 + 512 + 2560) + 6 * 512 + 21 * 513
    other = FCNHead(2048, moco.channels, 21, moco.convs, moco.dilation, moco.concat, moco.dropout)
    convs = [part for part in other.modules() if isinstance(part, nn.Conv2d)]
    assert [(part.out_channels, part.kernel_size[0], part.dilation[0]) for part in convs] == [
        (256, 3, 6), (256, 3, 6), (21, 1, 1)]  # fmt: skip
    assert head(torch.zeros(2, 2048, 3, 5)).shape == other(torch.zeros(2, 2048, 3, 5)).shape == (2, 21, 3, 5)


def test_presets_are_the_papers() -> None:
    lewel, moco = PRESETS["voc_fcn_d8"], PRESETS["voc_moco"]
    assert (lewel.size, lewel.batch_size, lewel.iterations, lewel.task.output_stride) == (512, 16, 20_000, 8)
    assert (lewel.peak_lr, lewel.optimizer.momentum, lewel.optimizer.weight_decay) == (pytest.approx(0.01), 0.9, 5e-4)
    assert (lewel.schedule.kind, lewel.schedule.power, lewel.task.short_side) == ("poly", 0.9, 512)
    assert (moco.size, moco.batch_size, moco.iterations, moco.task.output_stride) == (513, 16, 50_000, 16)
    assert (moco.peak_lr, moco.optimizer.weight_decay, moco.task.short_side) == (pytest.approx(0.003), 1e-4, 0)
    run = moco.on(10_582)
    assert [run.lr(step, 661) for step in (0, 34_999, 35_000, 45_000)] == pytest.approx([0.003, 0.003, 3e-4, 3e-5])
    assert lewel.on(10_582).lr(10_000, 661) == pytest.approx(0.01 * 0.5**0.9)


def test_loss_and_chance() -> None:
    method = small(auxiliary=0.4, auxiliary_channels=6)
    images, masks = batch()
    told = method(batch())
    before, last = method.backbone(images)
    pixels = [
        nn.functional.cross_entropy(enlarged(head(maps), (24, 24)), masks, ignore_index=IGNORED)
        for head, maps in ((method.head, last), (method.auxiliary_head, before))
    ]
    assert told["loss"].item() == pytest.approx((pixels[0] + 0.4 * pixels[1]).item(), rel=1e-5)
    assert told["chance"] == pytest.approx(1.4 * math.log(4))
    assert told["loss"].item() == pytest.approx(told["chance"], rel=0.1)
    nothing = mean_loss(torch.randn(2, 4, 6, 6, requires_grad=True), torch.full((2, 6, 6), IGNORED))
    nothing.backward()
    assert nothing.item() == 0


def test_scores_are_enlarged_between_the_centres_of_pixels() -> None:
    scores = torch.arange(8.0).view(1, 1, 2, 4)
    large = enlarged(scores, (4, 8))
    torch.testing.assert_close(large[0, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))
    method = small().eval()
    images, masks = batch()
    with torch.no_grad():
        asked = nn.functional.cross_entropy(method.scores(images, (24, 24)), masks, ignore_index=IGNORED)
        assert method((images, masks))["loss"].item() == pytest.approx(asked.item(), rel=1e-6)


@pytest.mark.parametrize("short_side", [0, 16])
def test_every_image_is_tested_at_its_own_size(short_side: int) -> None:
    method, scenes = small(3, short_side=short_side), DrawnScenes(6)
    state = copy.deepcopy(method.state_dict())
    found = overlaps(method, scenes, torch.device("cpu"))
    literal = np.zeros((4, 4), int)
    view = method.whole()
    method.eval()
    for row in range(len(scenes)):
        image, mask = view.on_device(view.on_host([Scene(scenes[row], scenes.mask(row))], None))
        with torch.no_grad():
            small_scores = method.head(method.backbone(image)[-1])
        grown = nn.functional.interpolate(small_scores, mask.shape[1:], mode="bilinear", align_corners=False)
        for true, told in zip(scenes.mask(row).ravel(), grown.argmax(1).numpy().ravel(), strict=True):
            if true != IGNORED:
                literal[true, told] += 1
    np.testing.assert_array_equal(found.confusion, literal)
    assert found.images.shape == (6, 3, 4)
    assert found.images[:, 2].sum() == sum((scenes.mask(row) != IGNORED).sum() for row in range(6))
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


def step_and_test(rank: int) -> dict[str, Tensor]:
    """The gradients of this process's part of a batch, and what a test finds, in one process or in two."""
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    method = small(1, auxiliary=0.4, auxiliary_channels=6).double()
    images, masks = batch(4)
    share = slice(rank * 4 // world, (rank + 1) * 4 // world)
    method((images[share].double(), masks[share]))["loss"].backward()
    gradients = {name: part.grad for name, part in method.named_parameters()}
    if world > 1:
        for gradient in gradients.values():
            torch.distributed.all_reduce(gradient)
            gradient /= world
    found = overlaps(method.float(), DrawnScenes(7), torch.device("cpu"))
    return gradients | {"images": torch.from_numpy(found.images), "confusion": torch.from_numpy(found.confusion)}


class TornScenes(DrawnScenes):
    """Scenes of which one cannot be read."""

    def __getitem__(self, index: int) -> Image.Image:
        if index == 3:
            raise UnreadableImageError("3.png is torn")
        return super().__getitem__(index)


def two(rank: int) -> dict[str, Any]:
    """The findings of a process, and what it hears of an image that the second one cannot read."""
    with pytest.raises(Refusal) as error:
        overlaps(small(), TornScenes(5), torch.device("cpu"))
    return {"found": step_and_test(rank), "heard": str(error.value)}


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    """The answers of either of two processes."""
    return run_two_processes(two)


def test_an_image_that_one_process_cannot_test_is_named_by_both(ranks: list[dict[str, Any]]) -> None:
    assert [told["heard"] for told in ranks] == ["3.png is torn"] * 2


def test_two_processes_are_one(ranks: list[dict[str, Any]]) -> None:
    alone = step_and_test(0)
    for told in (answers["found"] for answers in ranks):
        for name in ("images", "confusion"):
            assert torch.equal(told.pop(name), alone[name]), name
        for name, gradient in told.items():
            torch.testing.assert_close(gradient, alone[name], rtol=2e-5, atol=1e-7, msg=name)


@pytest.mark.slow
def test_a_handful_of_scenes_is_learnt() -> None:
    torch.manual_seed(0)
    config = SegmentationConfig(**SMALL | {"channels": 32, "output_stride": 2, "dilation": 2, "scale": (0.8, 1.25)})
    method, scenes = Segmentation(dilated("resnet8", False, 2), config), DrawnScenes(6)
    dataset = method.dataset(scenes, 36, 0)
    optimizer = torch.optim.SGD(method.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300) ** 0.9
        loss = method(dataset.on_device(dataset[Request(step, np.arange(6))].content))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = overlaps(method, scenes, torch.device("cpu"))
    assert mean_iou(found.images.sum(axis=0)) > 0.9
