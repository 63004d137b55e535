"""The four detectors: with boxes alone or masks as well, on the C4 maps of a ResNet or on a pyramid of its stages.

Settings are those of MoCo's and LEWEL's detectron2 configurations; every normalisation learns.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from ssl_backbones.evaluate.detection.rcnn import RCNN, AlignedRoIAlign, Maps, proposals, region_heads

Head = Literal["faster_fpn", "mask_fpn", "faster_c4", "mask_c4"]

ANCHOR = 8
"""Side of an anchor on a map of a pyramid, in strides: 32 pixels at stride 4, as in the pyramid's paper."""
C4_ANCHORS = (32, 64, 128, 256, 512)
C4_STRIDE, C4_REGION = 16, 14
MASK_WIDTH = 256


class Borrowed(nn.Module):
    """A part of the backbone at work in the detector; its weights stay the backbone's alone, under one name."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = (part,)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.part[0](x)
        return answer


class Stages(nn.Module):
    """The maps of some stages of the backbone, the finest first; its weights stay its own as well."""

    def __init__(self, backbone: nn.Module, indices: list[int]) -> None:
        super().__init__()
        self.backbone, self.indices = (backbone,), indices

    def forward(self, images: Tensor) -> Maps:
        backbone: Any = self.backbone[0]
        maps = backbone.forward_intermediates(images, indices=self.indices, stop_early=True, intermediates_only=True)
        return {str(number): each for number, each in enumerate(maps)}


@dataclass(frozen=True)
class Sampling:
    """Numbers of regions, anchors and proposals of an image that are scored."""

    regions: int
    """In training, by the heads."""
    anchors: int
    """In training, by the proposal network."""
    test_proposals: int
    """In a test, by the heads, at most."""


def build_detector(backbone: nn.Module, head: Head, classes: int, sampling: Sampling, width: int) -> RCNN:
    """The detector of `classes` classes, a pyramid being `width` wide; ValueError where the backbone lacks what the
    head is made of."""
    masks = head.startswith("mask")
    if head.endswith("c4"):
        return c4(backbone, classes, masks, sampling)
    return pyramid(backbone, classes, masks, sampling, width)


def c4(backbone: Any, classes: int, masks: bool, sampling: Sampling) -> RCNN:
    """Proposals on the third stage's map; the fourth stage and one more normalisation are the head on regions."""
    infos = backbone.feature_info
    if len(infos) < 5 or infos[3]["reduction"] != C4_STRIDE or not hasattr(backbone, "layer4"):
        strides = ", ".join(str(info["reduction"]) for info in infos)
        raise ValueError(
            f"a C4 head takes a ResNet whose third stage has stride {C4_STRIDE} and whose fourth is layer4, and this "
            f"{type(backbone).__name__} has maps of strides {strides}: take faster_fpn or mask_fpn"
        )
    channels, width = infos[3]["num_chs"], infos[4]["num_chs"]
    trunk = nn.Sequential(Borrowed(backbone.layer4), nn.BatchNorm2d(width))
    predictor = {"mask_predictor": MaskRCNNPredictor(width, MASK_WIDTH, classes + 1)} if masks else {}
    pool = AlignedRoIAlign({"0": C4_STRIDE}, C4_REGION)
    return RCNN(
        Stages(backbone, [3]),
        proposals(channels, (C4_ANCHORS,), (12000, 6000), (2000, sampling.test_proposals), sampling.anchors),
        region_heads(pool, trunk, width, classes, sampling.regions, shared=True, **predictor),
    )


def pyramid(backbone: Any, classes: int, masks: bool, sampling: Sampling, width: int) -> RCNN:
    """Proposals and regions on a pyramid of all stages that stride; four convolutions and a layer are the box head.

    A network of few stages gets two coarser maps on top, one of four stages a subsampled one for proposals alone.
    """
    infos = backbone.feature_info
    # A map of stride 1 would have an anchor at every pixel, and the stem is no stage.
    indices = [index for index, info in enumerate(infos) if index > 0 and info["reduction"] > 1]
    strides = {str(number): infos[index]["reduction"] for number, index in enumerate(indices)}
    last = max(strides.values())
    few = last < C4_STRIDE
    network = FeaturePyramidNetwork(
        [infos[index]["num_chs"] for index in indices],
        width,
        extra_blocks=LastLevelP6P7(width, width) if few else LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d,
    )
    above = {"p6": 2 * last, "p7": 4 * last} if few else {"pool": 2 * last}
    sizes = tuple((ANCHOR * stride,) for stride in (*strides.values(), *above.values()))
    cut = strides | above if few else strides
    head = FastRCNNConvFCHead((width, 7, 7), [width] * 4, [4 * width], norm_layer=nn.BatchNorm2d)
    mask = {
        "mask_roi_pool": AlignedRoIAlign(cut, 14),
        "mask_head": MaskRCNNHeads(width, (width,) * 4, 1, norm_layer=nn.BatchNorm2d),
        "mask_predictor": MaskRCNNPredictor(width, width, classes + 1),
    }
    return RCNN(
        nn.Sequential(OrderedDict(stages=Stages(backbone, indices), network=network)),
        proposals(width, sizes, (2000, 1000), (1000, sampling.test_proposals), sampling.anchors),
        region_heads(
            AlignedRoIAlign(cut, 7),
            head,
            4 * width,
            classes,
            sampling.regions,
            shared=False,
            **(mask if masks else {}),
        ),
    )
