"""Other than pictures, and other than BatchNorm: signals (1-D), video (3-D), ConvNeXt-Tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_norm, head


class SignalBlock(nn.Module):
    """Two long 1-D convolutions; the shortcut pools and, where the width changes, is a 1×1."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        first = conv_norm(c_in, c_out, 17, rank=1)
        self.body = nn.Sequential(first, conv_norm(c_out, c_out, 17, stride, act=None, rank=1))
        self.skip = nn.Sequential(nn.MaxPool1d(stride), nn.Conv1d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def ecg() -> nn.Module:
    """Twelve leads in, six findings out."""
    layers: list[nn.Module] = [conv_norm(12, 64, 17, rank=1)]
    widths = (64, 128, 196, 256, 320)
    layers += [SignalBlock(a, b, 4) for a, b in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*layers, head(320, 6, rank=1))


class VideoBlock(nn.Module):
    """Space (1×3×3) and time (3×1×1) in turn, twice, with a skip."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        space, time = (1, 3, 3), (3, 1, 1)
        self.body = nn.Sequential(
            conv_norm(c_in, c_out, space, (1, stride, stride), rank=3),
            conv_norm(c_out, c_out, time, (stride, 1, 1), rank=3),
            conv_norm(c_out, c_out, space, rank=3),
            conv_norm(c_out, c_out, time, act=None, rank=3),
        )
        same = stride == 1 and c_in == c_out
        self.down = nn.Identity() if same else conv_norm(c_in, c_out, 1, stride, act=None, rank=3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.down(x))


def video() -> nn.Module:
    blocks = (VideoBlock(64, 64, 1), VideoBlock(64, 128, 2), VideoBlock(128, 256, 2))
    return nn.Sequential(conv_norm(3, 64, (3, 7, 7), (1, 2, 2), rank=3), *blocks, head(256, 400, rank=3))


class LayerNormOfChannels(nn.LayerNorm):
    """LayerNorm over the channels of a picture, which have to be last for it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    """Depthwise 7×7, LayerNorm, up and down by linear layers over channels-last, scaled, plus the input."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(wide, wide, 7, padding=3, groups=wide), nn.LayerNorm(wide, eps=1e-6)
        self.up, self.down = nn.Linear(wide, 4 * wide), nn.Linear(4 * wide, wide)
        self.scale = nn.Parameter(torch.linspace(0.1, 0.5, wide))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext_tiny() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), LayerNormOfChannels(96, eps=1e-6)]
    wide = 96
    for stage, depth in enumerate((3, 3, 9, 3)):
        if stage:
            layers += [LayerNormOfChannels(wide, eps=1e-6), nn.Conv2d(wide, 2 * wide, 2, 2)]
            wide *= 2
        layers += [NextBlock(wide) for _ in range(depth)]
    classifier = nn.Sequential(nn.LayerNorm(wide, eps=1e-6), nn.Linear(wide, 1000))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
