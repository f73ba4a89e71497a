"""ResNet-18/34/50 and ResNeXt-50 (32×4d), and ResNet-18 with the norm before the convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_norm, head


class Basic(nn.Module):
    """3×3, 3×3."""

    expansion = 1

    def __init__(self, c_in: int, wide: int, stride: int, groups: int, base: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(c_in, wide, 3, stride), conv_norm(wide, wide, act=None))
        self.down = shortcut(c_in, wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.down(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 (grouped in ResNeXt), 1×1."""

    expansion = 4

    def __init__(self, c_in: int, wide: int, stride: int, groups: int, base: int) -> None:
        super().__init__()
        inner = wide * base // 64 * groups
        self.body = nn.Sequential(
            conv_norm(c_in, inner, 1),
            conv_norm(inner, inner, 3, stride, groups=groups),
            conv_norm(inner, 4 * wide, 1, act=None),
        )
        self.down = shortcut(c_in, 4 * wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.down(x))


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 and c_in == c_out else conv_norm(c_in, c_out, 1, stride, act=None)


def resnet(
    block: type[Basic] | type[Bottleneck], depths: tuple[int, ...], groups: int = 1, base: int = 64
) -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    c_in = 64
    for stage, depth in enumerate(depths):
        for number in range(depth):
            stride = 2 if stage and number == 0 else 1
            layers.append(block(c_in, 64 << stage, stride, groups, base))
            c_in = (64 << stage) * block.expansion
    return nn.Sequential(*layers, head(c_in))


def resnet18() -> nn.Module:
    return resnet(Basic, (2, 2, 2, 2))


def resnet34() -> nn.Module:
    return resnet(Basic, (3, 4, 6, 3))


def resnet50() -> nn.Module:
    return resnet(Bottleneck, (3, 4, 6, 3))


def resnext50() -> nn.Module:
    return resnet(Bottleneck, (3, 4, 6, 3), groups=32, base=4)


class PreActivation(nn.Module):
    """BatchNorm, ReLU, 3×3, twice; where the width changes, the shortcut reads what the first ReLU gave."""

    def __init__(self, c_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, wide, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(wide), nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        same = stride == 1 and c_in == wide
        self.down = None if same else nn.Conv2d(c_in, wide, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        skip = x if self.down is None else self.down(y)
        return self.conv2(F.relu(self.norm2(self.conv1(y)))) + skip


def preact_resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
    c_in = 64
    for stage in range(4):
        for number in range(2):
            layers.append(PreActivation(c_in, 64 << stage, 2 if stage and number == 0 else 1))
            c_in = 64 << stage
    return nn.Sequential(*layers, nn.BatchNorm2d(c_in), nn.ReLU(), head(c_in, 10))
