"""Nets of parallel branches: DenseNet-121, Inception-v3, RepVGG-A0 as trained, ShuffleNetV2."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_norm, head


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1×1 to 128, BatchNorm, ReLU, 3×3 to 32, beside everything before it."""

    def __init__(self, c_in: int, growth: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.ReLU(),
            conv_norm(c_in, 4 * growth, 1),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet121() -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    wide = 64
    for stage, depth in enumerate((6, 12, 24, 16)):
        for _ in range(depth):
            layers.append(DenseLayer(wide))
            wide += 32
        layers += [nn.BatchNorm2d(wide), nn.ReLU()]
        if stage < 3:
            layers += [nn.Conv2d(wide, wide // 2, 1, bias=False), nn.AvgPool2d(2)]
            wide //= 2
    return nn.Sequential(*layers, head(wide))


class Branches(nn.Module):
    """Several ways through, their channels side by side."""

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([way(x) for way in self.ways], 1)


def inception_v3() -> nn.Module:
    unit = partial(conv_norm, epsilon=1e-3)
    row, column = (1, 7), (7, 1)

    def pooled(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), unit(c_in, c_out, 1))

    def narrow(c_in: int, pool: int) -> nn.Module:
        return Branches(
            unit(c_in, 64, 1),
            nn.Sequential(unit(c_in, 48, 1), unit(48, 64, 5)),
            nn.Sequential(unit(c_in, 64, 1), unit(64, 96, 3), unit(96, 96, 3)),
            pooled(c_in, pool),
        )

    def factorised(wide: int) -> nn.Module:
        twice = (unit(768, wide, 1), unit(wide, wide, column), unit(wide, wide, row), unit(wide, wide, column))
        return Branches(
            unit(768, 192, 1),
            nn.Sequential(unit(768, wide, 1), unit(wide, wide, row), unit(wide, 192, column)),
            nn.Sequential(*twice, unit(wide, 192, row)),
            pooled(768, 192),
        )

    def widest(c_in: int) -> nn.Module:
        def fork() -> nn.Module:
            return Branches(unit(384, 384, (1, 3)), unit(384, 384, (3, 1)))

        return Branches(
            unit(c_in, 320, 1),
            nn.Sequential(unit(c_in, 384, 1), fork()),
            nn.Sequential(unit(c_in, 448, 1), unit(448, 384, 3), fork()),
            pooled(c_in, 192),
        )

    halved = Branches(
        unit(288, 384, 3, 2, padding=0),
        nn.Sequential(unit(288, 64, 1), unit(64, 96, 3), unit(96, 96, 3, 2, padding=0)),
        nn.MaxPool2d(3, 2),
    )
    halved_again = Branches(
        nn.Sequential(unit(768, 192, 1), unit(192, 320, 3, 2, padding=0)),
        nn.Sequential(unit(768, 192, 1), unit(192, 192, row), unit(192, 192, column), unit(192, 192, 3, 2, padding=0)),
        nn.MaxPool2d(3, 2),
    )
    stem = (
        *(unit(3, 32, 3, 2, padding=0), unit(32, 32, 3, padding=0), unit(32, 64, 3), nn.MaxPool2d(3, 2)),
        *(unit(64, 80, 1), unit(80, 192, 3, padding=0), nn.MaxPool2d(3, 2)),
    )
    body = (narrow(192, 32), narrow(256, 64), narrow(288, 64), halved, *map(factorised, (128, 160, 160, 192)))
    return nn.Sequential(*stem, *body, halved_again, widest(1280), widest(2048), nn.Dropout(), head(2048))


class Rep(nn.Module):
    """relu(BN(3×3) + BN(1×1) + BN(x)), the last one where the shape allows."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.large = conv_norm(c_in, c_out, 3, stride, act=None)
        self.small = conv_norm(c_in, c_out, 1, stride, act=None)
        self.same = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x) + self.small(x)
        return F.relu(y if self.same is None else y + self.same(x))


def repvgg_a0() -> nn.Module:
    layers: list[nn.Module] = []
    c_in = 3
    for wide, depth in ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1)):
        for number in range(depth):
            layers.append(Rep(c_in, wide, 2 if number == 0 else 1))
            c_in = wide
    return nn.Sequential(*layers, head(c_in))


class Shuffle(nn.Module):
    """Half of the channels pass (stride 1) or are halved in size by a way of their own (stride 2); then a shuffle."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        half = c_out // 2
        wide = half if stride == 1 else c_in
        self.other = None
        if stride == 2:
            self.other = nn.Sequential(conv_norm(c_in, c_in, 3, 2, groups=c_in, act=None), conv_norm(c_in, half, 1))
        self.body = nn.Sequential(
            conv_norm(wide, half, 1), conv_norm(half, half, 3, stride, groups=half, act=None), conv_norm(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.other is None else (self.other(x), x)
        return shuffle(torch.cat([left, self.body(right)], 1))


def shuffle(x: Tensor) -> Tensor:
    """The two halves of the channels, one from each in turn."""
    _, channels, height, width = x.shape
    return x.view(-1, 2, channels // 2, height, width).transpose(1, 2).reshape(-1, channels, height, width)


def shufflenet_v2() -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    c_in = 24
    for wide, depth in ((116, 4), (232, 8), (464, 4)):
        for number in range(depth):
            layers.append(Shuffle(c_in, wide, 2 if number == 0 else 1))
            c_in = wide
    return nn.Sequential(*layers, conv_norm(c_in, 1024, 1), head(1024))
