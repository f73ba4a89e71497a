"""Train a small denoiser of digits and export it: how `ddpm.onnx` beside this file was made.

    python examples/ddpm/train.py          # needs torch 2.13.0 and onnx; one core, about twenty minutes

The network is a U-Net (Ronneberger et al. 2015) as in DDPM (Ho et al. 2020): 28x28, 14x14 and 7x7 pixels with 16, 32
and 64 channels, two residual blocks on each level down and up, nearest-neighbour upsampling with a convolution behind
it, skip connections by Concat, no attention. It predicts the noise ε in x_t. Smaller than usual, and in two places
unlike the original, both so that a convolution is a convolution at inference: BatchNorm in place of GroupNorm (it folds
into the weights) and ReLU in place of SiLU. The time is added once to the input of each level's residual blocks, not
inside each of them.

Loss: mean squared error of the noise over random timesteps (equation 14 of DDPM). Adam; the exported weights are an
exponential mean over the last steps, with BatchNorm's statistics taken anew under them.

The seed is fixed and the algorithms are deterministic, so one machine and one torch build give one file.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data import ALPHA_BAR, STEPS, images, judging  # type: ignore[import-not-found, unused-ignore]  # beside this script

HERE = Path(__file__).resolve().parent
console = Console(stderr=True, highlight=False, soft_wrap=True)
WIDTHS = (16, 32, 64)
TIME = 64
WAVES = 32


def conv_norm(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out))


class Residual(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + x); images (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm(channels, channels), conv_norm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + x)


class Level(nn.Module):
    """relu(x + time), then residual blocks; the time (N, TIME) becomes one number a channel."""

    def __init__(self, channels: int, blocks: int = 2) -> None:
        super().__init__()
        self.time = nn.Linear(TIME, channels)
        self.blocks = nn.Sequential(*(Residual(channels) for _ in range(blocks)))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y: Tensor = self.blocks(F.relu(x + self.time(time)[:, :, None, None]))
        return y


class Denoiser(nn.Module):
    """x (N, 1, 28, 28) float32 and t (N,) int64 -> eps (N, 1, 28, 28) float32."""

    rates: Tensor

    def __init__(self) -> None:
        super().__init__()
        low, middle, high = WIDTHS
        self.register_buffer("rates", torch.exp(torch.arange(WAVES // 2) * (-math.log(10000) / (WAVES // 2 - 1))))
        self.time = nn.Sequential(nn.Linear(WAVES, TIME), nn.ReLU(), nn.Linear(TIME, TIME), nn.ReLU())
        self.enter = conv_norm(1, low)
        self.down1, self.shrink1 = Level(low), conv_norm(low, middle, 2)
        self.down2, self.shrink2 = Level(middle), conv_norm(middle, high, 2)
        self.bottom = Level(high)
        self.grow2, self.join2, self.up2 = conv_norm(high, middle), conv_norm(2 * middle, middle), Level(middle)
        self.grow1, self.join1, self.up1 = conv_norm(middle, low), conv_norm(2 * low, low), Level(low)
        self.leave = nn.Conv2d(low, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.rates[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        fine = self.down1(self.enter(x), time)
        coarse = self.down2(self.shrink1(fine), time)
        y = self.bottom(self.shrink2(coarse), time)
        y = F.relu(self.grow2(F.interpolate(y, scale_factor=2.0)))
        y = self.up2(self.join2(torch.cat([y, coarse], 1)), time)
        y = F.relu(self.grow1(F.interpolate(y, scale_factor=2.0)))
        y = self.up1(self.join1(torch.cat([y, fine], 1)), time)
        eps: Tensor = self.leave(y)
        return eps


def noisy(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(x_t, t, ε) for a batch of images (N, 1, 28, 28), with random timesteps and noise."""
    t = torch.randint(STEPS, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    alpha_bar = torch.from_numpy(ALPHA_BAR)[t].float()[:, None, None, None]
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise, t, noise


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    """Mean squared error of the noise on held-out images that nothing else looks at."""
    model.eval()
    found, noise = judging()
    x, t, wanted = (torch.from_numpy(np.asarray(a)) for a in (found["x"], found["t"], noise))
    eps = torch.cat([model(*part) for part in zip(x.split(250), t.split(250), strict=True)])
    return float(F.mse_loss(eps, wanted))


@torch.no_grad()
def take_statistics(model: nn.Module, clean: Tensor, generator: torch.Generator, batch: int) -> None:
    """BatchNorm's means and variances anew, as plain means over the noised images: those of the mean weights."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    for part in clean.split(batch):
        x, t, _ = noisy(part, generator)
        model(x, t)


def train(steps: int, batch: int, peak_lr: float, decay: float, seed: int) -> nn.Module:
    """Adam; the learning rate climbs for a twentieth of the run, then falls to zero on a cosine."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    clean = torch.from_numpy(images()[0])
    # Channels last is nearly twice as fast here on one core.
    model = Denoiser().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    optimizer = torch.optim.Adam(model.parameters(), lr=peak_lr)
    start = time.monotonic()
    total = 0.0
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * min((step + 1) / (0.05 * steps), (1 + math.cos(math.pi * done)) / 2)
        if len(order) < batch:
            order = torch.randperm(len(clean), generator=generator)
        chosen, order = order[:batch], order[batch:]
        x, t, noise = noisy(clean[chosen], generator)
        model.train()
        optimizer.zero_grad()
        loss = F.mse_loss(model(x.contiguous(memory_format=torch.channels_last), t), noise)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        mean.update_parameters(model)
        total += loss.item()
        if (step + 1) % 200 == 0:
            spent_s = time.monotonic() - start
            left_s = spent_s / (step + 1) * (steps - step - 1)
            console.print(f"step {step + 1}/{steps}  loss {total / 200:.4f}  {spent_s:.0f} s, {left_s:.0f} s left")
            total = 0.0
    averaged: nn.Module = mean.module
    take_statistics(averaged, clean, generator, 250)
    # The held-out images are looked at once, at the end: nothing is chosen by them.
    console.print(f"held-out loss {held_out_loss(averaged):.4f}")
    return averaged


def export(model: nn.Module, path: Path) -> None:
    """Write one ONNX file, "x" and "t" -> "eps", whole or not at all."""
    model.eval()
    handle, name = tempfile.mkstemp(suffix=".onnx", dir=path.parent)
    os.close(handle)
    try:
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64)),
            name,
            dynamo=False,
            opset_version=17,
            input_names=["x", "t"],
            output_names=["eps"],
            dynamic_axes={"x": {0: "batch"}, "t": {0: "batch"}, "eps": {0: "batch"}},
        )
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    console.print(f"wrote {path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "ddpm.onnx")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums over threads would come in another order each time
    torch.use_deterministic_algorithms(True)
    model = train(options.steps, options.batch, options.peak_lr, options.decay, options.seed)
    export(model, options.out)


if __name__ == "__main__":
    main()
