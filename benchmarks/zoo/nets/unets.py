"""Nets that go down and up again: U-Net with transposed convolutions or Resize, and the denoiser of DDPM for 32×32."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_norm


def double(c_in: int, c_out: int) -> nn.Module:
    return nn.Sequential(conv_norm(c_in, c_out), conv_norm(c_out, c_out))


class UNet(nn.Module):
    """Four levels; what comes up is put beside what went down."""

    def __init__(self, wide: int, resize: bool, classes: int = 2) -> None:
        super().__init__()
        widths = [wide << level for level in range(5)]
        self.enter, self.pool = double(3, wide), nn.MaxPool2d(2)
        self.down = nn.ModuleList(double(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for wider, narrower in zip(widths[:0:-1], widths[-2::-1], strict=True):
            smooth = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            by_resize = nn.Sequential(smooth, nn.Conv2d(wider, narrower, 1))
            self.up.append(by_resize if resize else nn.ConvTranspose2d(wider, narrower, 2, 2))
            self.join.append(double(wider, narrower))
        self.leave = nn.Conv2d(wide, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        passed = [self.enter(x)]
        for level in self.down:
            passed.append(level(self.pool(passed[-1])))
        x = passed.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([passed.pop(), up(x)], 1))
        return self.leave(x)


def unet() -> nn.Module:
    return UNet(64, resize=False)


def unet_resize() -> nn.Module:
    return UNet(32, resize=True)


class TimedBlock(nn.Module):
    """GroupNorm, SiLU, 3×3, the time added, GroupNorm, SiLU, 3×3, skip; attention behind where it is asked for."""

    def __init__(self, c_in: int, c_out: int, time: int, attends: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time, c_out)
        self.norm2, self.conv2 = nn.GroupNorm(32, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.attend = Attention(c_out) if attends else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.attend(self.skip(x) + self.conv2(F.silu(self.norm2(y))))


class Attention(nn.Module):
    """One head over all places of the image, 1×1 convolutions for query, key, value and the way out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.query, self.key, self.value, self.leave = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        y = self.norm(x)
        query, key, value = (f(y).reshape(-1, channels, height * width) for f in (self.query, self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key * channels**-0.5, -1)
        mixed = (value @ weights.transpose(1, 2)).reshape(-1, channels, height, width)
        return x + self.leave(mixed)


class Ddpm(nn.Module):
    """Channels 128·(1, 2, 2, 2), two blocks a level going down and three going up, attention at 16×16."""

    def __init__(self, wide: int = 128) -> None:
        super().__init__()
        self.wide, time = wide, 4 * wide
        self.time = nn.Sequential(nn.Linear(wide, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(3, wide, 3, padding=1)
        widths, passed, c_in = [wide * times for times in (1, 2, 2, 2)], [wide], wide
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, c_out in enumerate(widths):
            for _ in range(2):
                self.down.append(TimedBlock(c_in, c_out, time, attends=level == 1))
                c_in = c_out
                passed.append(c_in)
            if level < 3:
                # Padded at the end only, as the original's.
                self.shrink.append(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(c_in, c_in, 3, 2)))
                passed.append(c_in)
        self.middle1, self.middle2 = TimedBlock(c_in, c_in, time, True), TimedBlock(c_in, c_in, time, False)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, c_out in reversed(list(enumerate(widths))):
            for _ in range(3):
                self.up.append(TimedBlock(c_in + passed.pop(), c_out, time, attends=level == 1))
                c_in = c_out
            if level:
                self.grow.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_in, 3, padding=1)))
        self.leave = nn.Sequential(nn.GroupNorm(32, c_in), nn.SiLU(), nn.Conv2d(c_in, 3, 3, padding=1))

    def forward(self, image: Tensor, timestep: Tensor) -> Tensor:
        half = self.wide // 2
        rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000) / (half - 1)))
        angles = timestep.float()[:, None] * rates[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        passed = [self.enter(image)]
        for number, block in enumerate(self.down):
            passed.append(block(passed[-1], time))
            if number % 2 and number // 2 < len(self.shrink):
                passed.append(self.shrink[number // 2](passed[-1]))
        x = self.middle2(self.middle1(passed[-1], time), time)
        for number, block in enumerate(self.up):
            x = block(torch.cat([x, passed.pop()], 1), time)
            if number % 3 == 2 and number // 3 < len(self.grow):
                x = self.grow[number // 3](x)
        return self.leave(x)


def ddpm() -> nn.Module:
    return Ddpm()
