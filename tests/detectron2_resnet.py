"""A literal ResNet as detectron2 builds and names it, with which to read what was exported for it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_backbones.weightless import weightless


class Conv2d(nn.Conv2d):
    """A convolution that owns its norm."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(super().forward(x))
        return out


class BottleneckBlock(nn.Module):
    """STRIDE_IN_1X1 False: the stride lies in the 3 x 3."""

    def __init__(self, inside: int, middle: int, stride: int) -> None:
        super().__init__()
        outside = 4 * middle
        self.shortcut = Conv2d(inside, outside, 1, stride) if inside != outside else None
        self.conv1 = Conv2d(inside, middle, 1)
        self.conv2 = Conv2d(middle, middle, 3, stride)
        self.conv3 = Conv2d(middle, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(out + (self.shortcut(x) if self.shortcut else x))


class Stem(nn.Module):
    """7 x 7 and a max-pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 64, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), 3, 2, 1)


class ResNet(nn.Module):
    """The C5 features of a ResNet-50."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, inside = Stem(), 64
        for number, blocks in enumerate((3, 4, 6, 3)):
            middle, stage = 64 * 2**number, []
            for block in range(blocks):
                stage.append(BottleneckBlock(inside, middle, 2 if number and not block else 1))
                inside = 4 * middle
            self.add_module(f"res{number + 2}", nn.Sequential(*stage))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number in (2, 3, 4, 5):
            x = getattr(self, f"res{number}")(x)
        return x


def on_meta() -> ResNet:
    with weightless():
        return ResNet()
