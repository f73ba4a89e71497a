"""VGG-19 with BatchNorm, MobileNetV1 and SqueezeNet 1.1: nets without additions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import conv_norm, head


def vgg19() -> nn.Module:
    """All 16 convolutions; the classifier, most of the weights and none of the structure, is 512 wide."""
    layers: list[nn.Module] = []
    c_in = 3
    for wide, depth in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(depth):
            layers.append(conv_norm(c_in, wide))
            c_in = wide
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 1000))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


def mobilenet_v1() -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
    c_in = 32
    steps = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    for wide, stride in steps:
        layers += [conv_norm(c_in, c_in, 3, stride, groups=c_in), conv_norm(c_in, wide, 1)]
        c_in = wide
    return nn.Sequential(*layers, head(c_in))


class Fire(nn.Module):
    """1×1 squeeze, then 1×1 and 3×3 side by side."""

    def __init__(self, c_in: int, squeezed: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(c_in, squeezed, 1), nn.ReLU())
        self.expand1 = nn.Sequential(nn.Conv2d(squeezed, wide, 1), nn.ReLU())
        self.expand3 = nn.Sequential(nn.Conv2d(squeezed, wide, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand1(x), self.expand3(x)], 1)


def squeezenet() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU()]
    c_in = 64
    for pairs in (((16, 64),) * 2, ((32, 128),) * 2, ((48, 192),) * 2 + ((64, 256),) * 2):
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for squeezed, wide in pairs:
            layers.append(Fire(c_in, squeezed, wide))
            c_in = 2 * wide
    layers += [nn.Dropout(), nn.Conv2d(c_in, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)
