"""Train ResNet-20 on 4,000 MNIST images and export it: how `resnet20.onnx` beside this file was made.

    python examples/mnist/train.py          # needs torch 2.13.0 and onnx; one core, about ten minutes

The network is the CIFAR ResNet-20 (He et al. 2016, section 4.2) on one input channel: a 3x3 stem, three stages of
three basic blocks with 16, 32 and 64 channels, global mean, one linear layer. Where a stage halves the image the
shortcut is a 1x1 convolution with stride 2, which makes 1 + 18 + 2 = 21 convolutions.

The seed is fixed and the algorithms are deterministic, so one machine and one torch build give one file; other
processors round differently and end at a slightly different network.
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

from data import load  # type: ignore[import-not-found, unused-ignore]  # the module beside this script

HERE = Path(__file__).resolve().parent
console = Console(stderr=True, highlight=False, soft_wrap=True)


class BasicBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)); images (N, C, H, W)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """(N, 1, 28, 28) grey values in [0, 1] -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        c_in = 16
        for c_out, first_stride in ((16, 1), (32, 2), (64, 2)):
            for k in range(3):
                blocks.append(BasicBlock(c_in, c_out, first_stride if k == 0 else 1))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.blocks(F.relu(self.bn(self.stem(x)))).mean(dim=(2, 3)))
        return y


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 12 degrees, scale by up to 10 % and shift by up to 2 pixels, each image on its own."""
    n = len(x)

    def uniform(bound: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * bound

    angle, scale = uniform(math.radians(12)), 1 + uniform(0.1)
    shift_x, shift_y = uniform(2 / 14), uniform(2 / 14)  # grid units: 14 pixels are 1
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images (N, 1, 28, 28) whose largest logit is at the label (N,)."""
    model.eval()
    found = torch.cat([model(part).argmax(1) for part in torch.split(x, 250)])
    return int((found == y).sum()) / len(y)


def train(epochs: int, batch: int, peak_lr: float, seed: int) -> nn.Module:
    """SGD with Nesterov momentum; the learning rate climbs for a fifth of the run, then falls to zero."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    train_x, train_y, test_x, test_y = (torch.from_numpy(np.array(a)) for a in load())
    model = ResNet20()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=peak_lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = math.ceil(len(train_x) / batch)
    start = time.monotonic()
    if epochs:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for chosen in torch.split(torch.randperm(len(train_x), generator=generator), batch):
            optimizer.zero_grad()
            logits = model(augment(train_x[chosen], generator))
            loss = F.cross_entropy(logits, train_y[chosen], label_smoothing=0.05)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        spent_s = time.monotonic() - start
        left_s = spent_s / (epoch + 1) * (epochs - epoch - 1)
        console.print(
            f"epoch {epoch + 1}/{epochs}  loss {total / len(train_x):.4f}  {spent_s:.0f} s, {left_s:.0f} s left"
        )
    # The held-out images are looked at once, at the end: nothing is chosen by them.
    console.print(
        f"held out: {accuracy(model, test_x, test_y):.2%}  train: {accuracy(model, train_x, train_y):.2%}"
    )
    return model


def export(model: nn.Module, path: Path) -> None:
    """Write one ONNX file, "image" (batch, 1, 28, 28) -> "logits" (batch, 10); whole or not at all."""
    model.eval()
    handle, name = tempfile.mkstemp(suffix=".onnx", dir=path.parent)
    os.close(handle)
    try:
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 28, 28),),
            name,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    console.print(f"wrote {path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peak-lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "resnet20.onnx")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums over threads would come in another order each time
    torch.use_deterministic_algorithms(True)
    export(train(options.epochs, options.batch, options.peak_lr, options.seed), options.out)


if __name__ == "__main__":
    main()
