"""A detector in the manner of YOLOv8-n: SiLU, split and concatenated stages, pooled pyramid, three heads."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .layers import conv_norm

unit = partial(conv_norm, act=nn.SiLU, epsilon=1e-3)


class Bottleneck(nn.Module):
    """Two 3×3, with a skip in the backbone and without one in the neck."""

    def __init__(self, wide: int, skips: bool) -> None:
        super().__init__()
        self.body, self.skips = nn.Sequential(unit(wide, wide), unit(wide, wide)), skips

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skips else self.body(x)


class Stage(nn.Module):
    """1×1, split in two, bottlenecks after the second half; everything on the way is concatenated."""

    def __init__(self, c_in: int, c_out: int, depth: int, skips: bool = False) -> None:
        super().__init__()
        half = c_out // 2
        self.split = unit(c_in, c_out, 1)
        self.blocks = nn.ModuleList(Bottleneck(half, skips) for _ in range(depth))
        self.join = unit((2 + depth) * half, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.join(torch.cat(parts, 1))


class PooledPyramid(nn.Module):
    """Three 5×5 maxima in a row, all kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.pool = unit(channels, channels // 2, 1), nn.MaxPool2d(5, 1, 2)
        self.join = unit(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.join(torch.cat(parts, 1))


class Head(nn.Module):
    """Four box values and ``classes`` scores for every place of one grid."""

    def __init__(self, channels: int, classes: int = 80) -> None:
        super().__init__()
        self.box = nn.Sequential(unit(channels, 64), unit(64, 64), nn.Conv2d(64, 4, 1))
        self.score = nn.Sequential(unit(channels, classes), unit(classes, classes), nn.Conv2d(classes, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.box(x), self.score(x).sigmoid()], 1)


class Yolo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 16, 3, 2), unit(16, 32, 3, 2), Stage(32, 32, 1, True))
        self.fine = nn.Sequential(unit(32, 64, 3, 2), Stage(64, 64, 2, True))
        self.middle = nn.Sequential(unit(64, 128, 3, 2), Stage(128, 128, 2, True))
        self.coarse = nn.Sequential(unit(128, 256, 3, 2), Stage(256, 256, 1, True), PooledPyramid(256))
        self.up = nn.Upsample(scale_factor=2)
        self.up_middle, self.up_fine = Stage(384, 128, 1), Stage(192, 64, 1)
        self.to_middle, self.down_middle = unit(64, 64, 3, 2), Stage(192, 128, 1)
        self.to_coarse, self.down_coarse = unit(128, 128, 3, 2), Stage(384, 256, 1)
        self.heads = nn.ModuleList(Head(channels) for channels in (64, 128, 256))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fine = self.fine(self.stem(x))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.up_middle(torch.cat([self.up(coarse), middle], 1))
        fine = self.up_fine(torch.cat([self.up(middle), fine], 1))
        middle = self.down_middle(torch.cat([self.to_middle(fine), middle], 1))
        coarse = self.down_coarse(torch.cat([self.to_coarse(middle), coarse], 1))
        return tuple(head(grid) for head, grid in zip(self.heads, (fine, middle, coarse), strict=True))


def yolo() -> nn.Module:
    return Yolo()
