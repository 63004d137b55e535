"""The detectors, and each way in which they follow detectron2 where torchvision goes another."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

import ssl_backbones
from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.detection.detection import Detection, DetectionConfig
from ssl_backbones.evaluate.detection.precise_bn import precise_statistics
from ssl_backbones.evaluate.detection.rcnn import AlignedRoIAlign, Proposals, RegionHeads, box_predictor

HEADS = ("faster_fpn", "mask_fpn", "faster_c4", "mask_c4")
SOME = [pytest.param(head, marks=pytest.mark.slow if head in ("faster_fpn", "mask_c4") else ()) for head in HEADS]
SIZES = [(96, 96), (80, 96)]


def detection(head: str = "faster_fpn", arch: str = "test_resnet", **choices: Any) -> Detection:
    """A small detector of two classes in training mode, the same every time."""
    backbone = copy.deepcopy(backbone_of(arch))
    torch.manual_seed(0)
    small = {"classes": 2, "regions": 16, "anchors": 32, "width": 16, "test_proposals": 8, "smallest": 96}
    return DetectionConfig(**{"head": head, **small, **choices}).build(backbone).train()


@cache
def backbone_of(arch: str) -> nn.Module:
    """A backbone, the same every time."""
    torch.manual_seed(0)
    return ssl_backbones.create_model(arch, num_classes=0)


def batch(objects: int = 2) -> Any:
    """Two images of 96 pixels, the first with objects and their masks, the second without."""
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 96, 96, generator=stream)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0], [40.0, 30.0, 90.0, 80.0]])
    masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.tensor([1, 2])
    targets = [{"boxes": boxes[:count], "labels": labels[:count], "masks": masks[:count]} for count in (objects, 0)]
    return (images, SIZES), targets


@pytest.mark.parametrize("head", SOME)
def test_every_head_learns_with_all_its_weights_and_finds_objects(head: str) -> None:
    method = detection(head)
    optimizer = torch.optim.SGD(method.parameters(), 0.01)
    for _ in range(2):
        torch.manual_seed(1)
        scalars = method(batch())
        assert torch.isfinite(scalars["loss"])
        scalars["loss"].backward()
        assert all(weights.grad is not None for weights in method.parameters())
        optimizer.step()
        optimizer.zero_grad()
    parts = {"objectness", "rpn_box_reg", "classifier", "box_reg"} | ({"mask"} if head.startswith("mask") else set())
    assert set(scalars) == {"loss"} | parts
    assert scalars["loss"].item() == pytest.approx(sum(scalars[name].item() for name in parts), rel=1e-5)
    method.eval()
    found = method.find(*batch()[0])
    assert len(found) == 2
    assert ("masks" in found[0]) == head.startswith("mask")


@pytest.mark.parametrize("head", HEADS)
def test_images_without_objects_give_every_weight_a_gradient(head: str) -> None:
    method = detection(head)
    method(batch(objects=0))["loss"].backward()
    assert all(weights.grad is not None for weights in method.parameters())  # or processes would wait for one
    assert all(torch.isfinite(buffer).all() for buffer in method.buffers())


def test_the_last_stage_runs_once_a_step_under_one_name() -> None:
    method = detection("mask_c4")
    method(batch())
    counts = {name: int(value) for name, value in method.state_dict().items() if name.endswith("num_batches_tracked")}
    assert len(counts) > 10
    assert set(counts.values()) == {1}
    pointers = [value.data_ptr() for value in method.state_dict().values() if value.numel()]
    assert len(set(pointers)) == len(pointers)
    assert {name for name in method.state_dict() if "layer4" in name} == {
        f"backbone.{name}" for name in method.backbone.state_dict() if "layer4" in name
    }


def test_the_shared_trunk_gives_masks_the_foreground_of_what_boxes_got() -> None:
    method = detection("mask_c4")
    heads = method.detector.roi_heads
    seen: list[Tensor] = []
    heads.box_head.register_forward_hook(lambda module, given, answer: seen.append(answer.detach()))
    heads.mask_predictor.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    method(batch())
    regions, masked = seen
    assert 0 < len(masked) < len(regions)
    for row in masked:
        assert any(torch.equal(row, other) for other in regions)


def test_c4_ends_in_one_more_normalisation_and_everything_learns() -> None:
    method = detection("faster_c4")
    trunk = method.detector.roi_heads.box_head
    assert isinstance(trunk[1], nn.BatchNorm2d)
    assert trunk[1].num_features == 96
    for head in ("faster_c4", "mask_fpn"):
        built = detection(head)
        norms = [module for module in built.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        assert len(norms) > 10
        assert all(weights.requires_grad for weights in built.parameters())
        assert not any("Frozen" in type(module).__name__ for module in built.modules())


def test_a_pyramids_heads_are_normalised_and_c4_looks_at_more_proposals() -> None:
    pyramid, c4 = detection("mask_fpn"), detection("mask_c4", test_proposals=1000)
    heads = pyramid.detector.roi_heads
    for part, count in ((pyramid.detector.body.network, 8), (heads.box_head, 4), (heads.mask_head, 4)):
        assert sum(isinstance(module, nn.BatchNorm2d) for module in part.modules()) == count
    rpn = c4.detector.rpn
    assert (rpn._pre_nms_top_n, rpn._post_nms_top_n) == (
        {"training": 12000, "testing": 6000},
        {"training": 2000, "testing": 1000},
    )
    assert pyramid.detector.rpn._pre_nms_top_n == {"training": 2000, "testing": 1000}


def test_regions_are_cut_with_aligned_corners_at_the_maps_known_strides() -> None:
    features = torch.randn(2, 3, 24, 24)
    boxes = [torch.tensor([[3.0, 5.0, 60.0, 70.0]]), torch.tensor([[10.0, 10.0, 11.0, 50.0], [0.0, 0.0, 33.0, 33.0]])]
    rois = torch.cat([torch.tensor([[0.0], [1.0], [1.0]]), torch.cat(boxes)], dim=1)
    expected = roi_align(features, rois, 7, 1 / 4, sampling_ratio=0, aligned=True)
    # Images of 33 pixels, padded to 96: from those sizes torchvision would take the stride for another.
    assert torch.equal(AlignedRoIAlign({"0": 4}, 7)({"0": features}, boxes, [(33, 33)] * 2), expected)
    levels = AlignedRoIAlign({"0": 4, "1": 8}, 7)({"0": features, "1": features[..., ::2, ::2]}, boxes, [(96, 96)] * 2)
    assert torch.equal(levels, expected)  # 224 pixels belong to stride 16, so all of these to the finest


def test_large_regions_come_from_coarse_maps() -> None:
    sides = (128, 64, 32, 16)
    maps = {str(level): torch.full((1, 1, side, side), float(level)) for level, side in enumerate(sides)}
    boxes = [torch.tensor([[0.0, 0.0, side, side]]) for side in (50.0, 112.0, 224.0, 500.0)]
    pool = AlignedRoIAlign({"0": 4, "1": 8, "2": 16, "3": 32}, 2)
    assert pool(maps, [torch.cat(boxes)], [(512, 512)]).amax((1, 2, 3)).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_boxes_are_learnt_by_l1() -> None:
    method = detection()
    rpn = method.detector.rpn
    assert isinstance(rpn, Proposals)
    labels, deltas = [torch.tensor([1.0, 0.0, 1.0, -1.0])], [torch.randn(4, 4)]
    objectness, found = torch.randn(4, 1), torch.randn(4, 4)
    score, box = rpn.compute_loss(objectness, found, labels, deltas)
    rows = torch.tensor([0, 2])
    assert box.item() == pytest.approx((found[rows] - deltas[0][rows]).abs().sum().item() / 3, rel=1e-5)
    expected = F.binary_cross_entropy_with_logits(objectness[:3, 0], labels[0][:3])
    assert score.item() == pytest.approx(expected.item(), rel=1e-5)
    heads = method.detector.roi_heads
    assert isinstance(heads, RegionHeads)
    regions, classes, targets = torch.randn(3, 64), torch.tensor([0, 2, 1]), torch.randn(3, 4)
    losses = heads.box_losses(regions, classes, targets)
    logits, boxes = heads.box_predictor(regions)
    by_hand = sum((boxes[row, 4 * k : 4 * k + 4] - targets[row]).abs().sum() for row, k in ((1, 2), (2, 1))) / 3
    assert losses["loss_box_reg"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert losses["loss_classifier"].item() == pytest.approx(F.cross_entropy(logits, classes).item(), rel=1e-5)


def test_the_last_layers_begin_small() -> None:
    torch.manual_seed(0)
    predictor = box_predictor(1024, 21)
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert (predictor.cls_score.bias == 0).all()


@pytest.mark.parametrize("head", ["mask_fpn", "mask_c4"])
def test_regions_and_losses_are_in_single_precision_under_autocast(head: str) -> None:
    method = detection(head)
    kinds: dict[str, set[torch.dtype]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, answer: Any) -> None:
            values = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple) else [answer]
            flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
            kinds[name] = {each.dtype for each in flat}

        return hook

    detector = method.detector
    convolution = next(module for module in detector.rpn.head.modules() if isinstance(module, nn.Conv2d))
    for name, module in {
        "rpn": detector.rpn.head,
        "regions": detector.roi_heads.box_roi_pool,
        "convolution": convolution,
    }.items():
        module.register_forward_hook(note(name))
    detector.roi_heads.register_forward_pre_hook(lambda module, given: note("maps")(module, (), given[0]))
    with torch.autocast("cpu", torch.bfloat16):
        scalars = method(batch())
    assert kinds.pop("convolution") == {torch.bfloat16}
    assert kinds == {name: {torch.float32} for name in ("maps", "rpn", "regions")}
    assert {value.dtype for value in scalars.values()} == {torch.float32}


@pytest.mark.parametrize("objects", [0, 2])
def test_a_pyramids_masks_are_normalised_in_single_precision_with_and_without_objects(objects: int) -> None:
    """Statistics of half precision, as of no regions under autocast, cannot be summed with those of other processes."""
    method = detection("mask_fpn")
    given: set[torch.dtype] = set()
    for module in method.detector.roi_heads.mask_head.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(lambda _, inputs: given.add(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        method(batch(objects))
    assert given == {torch.float32}


@pytest.mark.parametrize(("arch", "strides"), [("resnet8", [2, 4, 8, 16]), ("resnet18_byol", [4, 8, 16, 32, 64])])
def test_anchors_are_eight_strides_wide_on_every_map_of_a_pyramid(arch: str, strides: list[int]) -> None:
    method = detection(arch=arch)
    maps = method.detector.body(torch.zeros(1, 3, 128, 128))
    assert [128 // each.shape[-1] for each in maps.values()] == strides
    assert [size for (size,) in method.detector.rpn.anchor_generator.sizes] == [8 * stride for stride in strides]


def test_networks_of_few_stages_learn_on_a_pyramid_and_are_refused_by_c4() -> None:
    method = detection("mask_fpn", "resnet8")
    method(batch())["loss"].backward()
    assert all(weights.grad is not None for weights in method.parameters())
    with pytest.raises(ValueError, match=r"maps of strides 1, 1, 2, 4: take faster_fpn or mask_fpn"):
        detection("faster_c4", "resnet8")


def test_precise_statistics_are_the_mean_over_batches_and_go_again() -> None:
    method = detection()
    method(batch())
    before = {key: value.clone() for key, value in method.state_dict().items()}
    name, norm = next(
        (name, module) for name, module in method.backbone.named_modules() if isinstance(module, nn.BatchNorm2d)
    )
    inputs: list[Tensor] = []
    norm.register_forward_pre_hook(lambda module, given: inputs.append(given[0].detach()))
    shown = [((torch.randn(2, 3, 96, 96) + shift, SIZES), batch()[1]) for shift in (0.0, 1.0, 3.0)]
    with precise_statistics(method, shown):
        assert not any(module.training for module in method.modules())
        means = torch.stack([each.mean((0, 2, 3)) for each in inputs])
        torch.testing.assert_close(norm.running_mean, means.mean(0), rtol=1e-4, atol=1e-5)
        assert norm.num_batches_tracked == 3
    assert method.training
    assert norm.momentum == 0.1
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    with precise_statistics(method, []):
        assert torch.equal(norm.running_mean, before[f"backbone.{name}.running_mean"])


def test_what_a_step_samples_follows_the_seed() -> None:
    method = detection()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(method(batch())["loss"].detach()))
    assert losses[0] == losses[1] != losses[2]


def test_images_that_the_head_cannot_learn_from_are_refused() -> None:
    from small_methods import Drawn

    with pytest.raises(ImageSourceError, match="detection needs images with objects"):
        detection().dataset(Drawn(3), 96, 0)
    with pytest.raises(ValueError, match="classes"):
        DetectionConfig(classes=0)
    assert np.isfinite(DetectionConfig().precise_batches)
