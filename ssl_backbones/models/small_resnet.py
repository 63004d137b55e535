"""ResNets for small images: a 3x3 stem that keeps every pixel, then three stages of 16, 32 and 64 channels.

He et al., 2016, section 4.2, with projection shortcuts. https://arxiv.org/abs/1512.03385
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from timm.layers import DropPath, create_classifier, get_act_layer, get_norm_layer
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_backbones.models.build import HEADLESS, build
from ssl_backbones.registry.backbones import SMALL

WIDTHS = (16, 32, 64)
STAGES = ("layer1", "layer2", "layer3")


class SmallResNet(nn.Module):
    """A ResNet for small images with timm's interface: images (B, 3, H, W) to (B, 64), or (B, num_classes) with a head.

    `output_stride` below 4 trades stride for dilation; 8, 16 and 32 change nothing.
    """

    if TYPE_CHECKING:  # TorchScript would take these for types of its own
        feature_info: list[dict[str, Any]]
        layer1: nn.Sequential
        layer2: nn.Sequential
        layer3: nn.Sequential
        global_pool: Any
        fc: nn.Module

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int = 0,
        in_chans: int = 3,
        output_stride: int = 4,
        global_pool: str = "avg",
        act_layer: Any = nn.ReLU,
        norm_layer: Any = nn.BatchNorm2d,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        zero_init_last: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if output_stride not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}, but must be 1, 2, 4, 8, 16 or 32")
        place = {"device": device, "dtype": dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        act_layer, norm_layer = get_act_layer(act_layer), get_norm_layer(norm_layer)
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False, **place)
        self.bn1 = norm_layer(WIDTHS[0], **place)
        self.act1 = act_layer(inplace=True)
        self.feature_info = [{"num_chs": WIDTHS[0], "reduction": 1, "module": "act1"}]
        self._add_stages(layers, output_stride, drop_path_rate, act_layer=act_layer, norm_layer=norm_layer, **place)
        self.num_features = WIDTHS[-1]
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool, **place)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.init_weights(zero_init_last)

    def _add_stages(
        self, layers: Sequence[int], output_stride: int, drop_path_rate: float, norm_layer: Any, **kinds: Any
    ) -> None:
        """Register layer1 to layer3; once `output_stride` is reached, a stage dilates where it would have strided."""
        place = {"device": kinds["device"], "dtype": kinds["dtype"]}
        rates = torch.linspace(0, drop_path_rate, sum(layers), device="cpu").tolist()
        reduction, width, dilation, before = 1, WIDTHS[0], 1, 1
        for name, planes, blocks, stride in zip(STAGES, WIDTHS, layers, (1, 2, 2), strict=True):
            if reduction * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reduction *= stride
            stage = []
            for block in range(blocks):
                shortcut = None
                if planes != width:
                    shortcut = downsample_conv(width, planes, 1, stride, dilation, before, norm_layer, **place)
                rate = rates.pop(0)
                stage.append(
                    BasicBlock(
                        width,
                        planes,
                        stride if block == 0 else 1,
                        shortcut,
                        dilation=dilation,
                        first_dilation=before,
                        drop_path=DropPath(rate) if rate > 0 else None,
                        norm_layer=norm_layer,
                        **kinds,
                    )
                )
                width, before = planes, dilation
            self.add_module(name, nn.Sequential(*stage))
            self.feature_info.append({"num_chs": planes, "reduction": reduction, "module": name})

    def init_weights(self, zero_init_last: bool = False) -> None:
        """Draw every convolution from N(0, 2 / (k * k * out)); with `zero_init_last`, blocks start as identities."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock) and zero_init_last:
                module.zero_init_last()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Patterns that sort parameters by depth, per stage or per block, for layer-wise learning rates."""
        return {"stem": r"^(?:conv1|bn1)\.", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: recompute the blocks' activations in backward."""
        self.grad_checkpointing = enable

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """The last layer, or its name."""
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh head on, or none for 0 classes; an empty `global_pool` keeps the feature map unpooled."""
        self.num_classes = num_classes
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        place = {"device": self.conv1.weight.device, "dtype": self.conv1.weight.dtype}
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=pool, **place)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The last feature map and those asked for, of stem, layer1, layer2 and layer3: the last n, or by index."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}, but a convolutional network gives 'NCHW' alone")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        x = self.act1(self.bn1(self.conv1(x)))
        maps = [x] if 0 in taken else []
        for depth, name in enumerate(STAGES[:last] if stop_early else STAGES, start=1):
            stage = getattr(self, name)
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if depth in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages that none of the feature maps asked for needs; return the absolute indices of those maps."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        shortened = last < len(STAGES)
        for name in STAGES[last:]:
            setattr(self, name, nn.Sequential())
        if shortened:
            self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return list(taken)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map (B, 64, H / 4, W / 4)."""
        x = self.act1(self.bn1(self.conv1(x)))
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            x = checkpoint_seq([self.layer1, self.layer2, self.layer3], x, flatten=True)
        else:
            x = self.layer3(self.layer2(self.layer1(x)))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The feature map pooled, and classified unless there is no head or `pre_logits` is set."""
        x = self.global_pool(x)
        if self.drop_rate > 0.0:
            x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def build_plain(name: str) -> Callable[..., nn.Module]:
    """The function by which timm makes one of these networks."""

    def make(pretrained: bool, **kwargs: Any) -> nn.Module:
        features = {"out_indices": tuple(range(1 + len(STAGES)))}
        sizes = {"layers": (SMALL[name],) * len(STAGES), **kwargs}
        model: nn.Module = build_model_with_cfg(SmallResNet, name, pretrained, feature_cfg=features, **sizes)
        return model

    return make


def entry_point(name: str) -> Callable[..., nn.Module]:
    """The function that timm calls to build one of these networks."""

    def build_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(build_plain(name), name, pretrained, **kwargs)

    build_small.__name__ = build_small.__qualname__ = name
    build_small.__doc__ = f"ResNet-{name.removeprefix('resnet')} for small images, {WIDTHS[-1]} features."
    return build_small


_CFG = {**HEADLESS, "input_size": (3, 32, 32), "pool_size": (8, 8), "crop_pct": 1.0}
default_cfgs = generate_default_cfgs({name: {**_CFG, "first_conv": "conv1", "classifier": "fc"} for name in SMALL})

for _name in SMALL:
    globals()[_name] = register_model(entry_point(_name))
