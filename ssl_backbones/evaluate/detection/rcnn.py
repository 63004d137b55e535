"""Faster and Mask R-CNN around a timm ResNet, of torchvision's parts with detectron2's choices.

Ren et al., 2015. https://arxiv.org/abs/1506.01497. He et al., 2017. https://arxiv.org/abs/1703.06870
Lin et al., 2017 (the pyramid). https://arxiv.org/abs/1612.03144
He et al., 2020 (the C4 head with a normalisation more). https://arxiv.org/abs/1911.05722

Where torchvision differs, detectron2 is followed: boxes are learnt by L1, regions are cut with aligned corners and as
many samples as they need, and the last stage of a C4 network runs once for boxes and masks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

RATIOS = (0.5, 1.0, 2.0)
Maps = dict[str, Tensor]
"""Feature maps (B, C, h, w), the finest first."""


class RCNN(nn.Module):
    """Images to losses in training, and to detections otherwise: a GeneralizedRCNN whose images come resized."""

    def __init__(self, body: nn.Module, rpn: RegionProposalNetwork, roi_heads: RoIHeads) -> None:
        super().__init__()
        self.body, self.rpn, self.roi_heads = body, rpn, roi_heads

    def forward(
        self, images: Tensor, sizes: list[tuple[int, int]], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """The losses and the detections of images (B, 3, H, W) that fill `sizes` of it; one of the two is empty."""
        maps: Maps = {name: each.float() for name, each in self.body(images).items()}
        listed = ImageList(images, sizes)
        proposals, rpn_losses = self.rpn(listed, maps, targets)
        detections, losses = self.roi_heads(maps, proposals, sizes, targets)
        return rpn_losses | losses, detections


class Proposals(RegionProposalNetwork):
    """The proposal network, with L1 between boxes."""

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The losses of objectness and boxes over the sampled anchors."""
        positive, negative = (torch.where(torch.cat(rows))[0] for rows in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        wanted, deltas = torch.cat(labels), torch.cat(regression_targets)
        boxes = F.l1_loss(pred_bbox_deltas[positive], deltas[positive], reduction="sum") / max(1, len(sampled))
        return F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], wanted[sampled]), boxes


class ProposalHead(RPNHead):
    """torchvision's head, its answers in single precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and box deltas of each map."""
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class AlignedRoIAlign(MultiScaleRoIAlign):
    """Regions cut as detectron2's ROIAlignV2 does, out of maps of known strides."""

    def __init__(self, strides: dict[str, int], size: int) -> None:
        """`strides` of the maps by name, the finest first, and the side of a region in cells."""
        super().__init__(list(strides), size, sampling_ratio=0)
        self.strides = list(strides.values())
        levels = [stride.bit_length() - 1 for stride in self.strides]
        self.mapper = LevelMapper(levels[0], levels[-1], self.canonical_scale, self.canonical_level)

    def forward(self, x: Maps, boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Regions (R, C, size, size) of the boxes of all images."""
        maps = [x[name].float() for name in self.featmap_names]
        owner = torch.cat([torch.full_like(each[:, :1], row) for row, each in enumerate(boxes)])
        rois = torch.cat([owner, torch.cat(boxes)], dim=1)
        if len(maps) == 1:
            return self.cut(maps[0], rois, self.strides[0])
        levels = self.mapper(boxes)
        regions = maps[0].new_zeros((len(rois), maps[0].shape[1], *self.output_size))
        for level, (features, stride) in enumerate(zip(maps, self.strides, strict=True)):
            rows = torch.where(levels == level)[0]
            regions[rows] = self.cut(features, rois[rows], stride)
        return regions

    def cut(self, features: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Regions of one map, whatever the precision around."""
        regions: Tensor = roi_align(features, rois.float(), self.output_size, 1 / stride, 0, aligned=True)
        return regions


class RegionHeads(RoIHeads):
    """The heads on regions. Where they share a trunk, it runs once a step and masks take the foreground of its answer.

    Boxes are learnt by L1 (detectron2's smooth L1 with beta 0), over all sampled regions.
    """

    def __init__(self, *parts: Any, shared: bool, **mask: Any) -> None:
        super().__init__(*parts, **mask)
        self.shared = shared

    def forward(
        self,
        features: Maps,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """The detections, and in training the losses instead."""
        if not self.training:
            return self.detect(features, proposals, image_shapes), {}
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        regions = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        losses = self.box_losses(regions, torch.cat(labels), torch.cat(deltas))
        if not self.with_masks:
            return [], losses
        assert targets is not None
        positive = [torch.where(each > 0)[0] for each in labels]
        boxes = [each[rows] for each, rows in zip(proposals, positive, strict=True)]
        foreground = regions[torch.cat(labels) > 0] if self.shared else None
        losses["loss_mask"] = maskrcnn_loss(
            self.mask_logits(features, boxes, image_shapes, foreground),
            boxes,
            [target["masks"] for target in targets],
            [target["labels"] for target in targets],
            [each[rows] for each, rows in zip(matched, positive, strict=True)],
        )
        return [], losses

    @property
    def with_masks(self) -> bool:
        """True if there is a head for masks."""
        return self.mask_predictor is not None

    def predicted(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, K) and box deltas (R, 4 K) in single precision."""
        pooled = regions.mean(dim=(2, 3)) if self.shared else regions
        logits, deltas = self.box_predictor(pooled)
        return logits.float(), deltas.float()

    def box_losses(self, regions: Tensor, labels: Tensor, deltas: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of classes (R,), and L1 of the deltas (R, 4) of the foreground."""
        logits, found = self.predicted(regions)
        positive = torch.where(labels > 0)[0]
        chosen = found.reshape(len(labels), -1, 4)[positive, labels[positive]]
        boxes = F.l1_loss(chosen, deltas[positive], reduction="sum") / max(1, len(labels))
        return {"loss_classifier": F.cross_entropy(logits, labels), "loss_box_reg": boxes}

    def mask_logits(
        self,
        features: Maps,
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
        regions: Tensor | None = None,
    ) -> Tensor:
        """Logits (R, K, M, M) of the boxes' masks, of what the shared trunk made of them where that is known."""
        if self.shared:
            if regions is None:
                regions = self.box_head(self.box_roi_pool(features, boxes, image_shapes))
        else:
            regions = self.mask_roi_pool(features, boxes, image_shapes)
            with torch.autocast(regions.device.type, enabled=False):  # of no boxes, half statistics would be shared
                regions = self.mask_head(regions.float())
        logits: Tensor = self.mask_predictor(regions)
        return logits.float()

    def detect(
        self, features: Maps, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Boxes, labels, scores and, at their own size, masks (N, 1, M, M) of each image."""
        logits, deltas = self.predicted(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        found = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        detections = [
            {"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in zip(*found, strict=True)
        ]
        if self.with_masks:
            logits = self.mask_logits(features, [each["boxes"] for each in detections], image_shapes)
            masks = maskrcnn_inference(logits, [each["labels"] for each in detections])
            for each, mask in zip(detections, masks, strict=True):
                each["masks"] = mask
        return detections


def proposals(
    channels: int, sizes: tuple[tuple[int, ...], ...], before: tuple[int, int], after: tuple[int, int], anchors: int
) -> Proposals:
    """The proposal network: anchors of these sizes on each map, and how many stay before and after suppression.

    Of the two counts, the first is that of training; `anchors` are scored per image in training.
    """
    generator = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    return Proposals(
        generator,
        ProposalHead(channels, generator.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=anchors,
        positive_fraction=0.5,
        pre_nms_top_n={"training": before[0], "testing": before[1]},
        post_nms_top_n={"training": after[0], "testing": after[1]},
        nms_thresh=0.7,
    )


def region_heads(
    pool: MultiScaleRoIAlign, head: nn.Module, width: int, classes: int, regions: int, *, shared: bool, **mask: Any
) -> RegionHeads:
    """The heads on regions of `classes` classes, the background beside them; `regions` per image in training."""
    return RegionHeads(
        pool,
        head,
        box_predictor(width, classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=regions,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
        shared=shared,
        **mask,
    )


def box_predictor(width: int, classes: int) -> FastRCNNPredictor:
    """The last layers for boxes, drawn as detectron2 draws them."""
    predictor = FastRCNNPredictor(width, classes)
    for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return predictor
