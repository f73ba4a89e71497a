"""Small networks with something to save in them, on disk with their samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests import zoo


def blocks(net: zoo.Net, value: str, count: int = 2, wide: int = 6, hidden: int = 16) -> str:
    """Residual blocks whose branches are scaled down, as they are in trained networks."""
    for number in range(count):
        inner = net.relu(net.conv(value, f"a{number}", hidden), f"h{number}")
        branch = net.conv(inner, f"b{number}", wide)
        net.weights[f"b{number}.w"] *= np.float32(0.3)
        value = net.relu(net.add(branch, value, f"s{number}"), f"r{number}")
    return net.classifier(value)


def residual_net(shape: Sequence[zoo.Dim] = ("batch", 4, 6, 6)) -> tuple[zoo.Net, str]:
    net = zoo.Net(seed=11)
    stem = net.relu(net.conv(net.input("image", shape), "stem", 6), "r")
    return net, blocks(net, stem)


def long_net() -> tuple[zoo.Net, str]:
    """Enough blocks that some stay as they are."""
    net = zoo.Net(seed=11)
    stem = net.relu(net.conv(net.input("image", ("batch", 4, 6, 6)), "stem", 6), "r")
    return net, blocks(net, stem, count=4)


def two_inputs() -> tuple[zoo.Net, str]:
    net = zoo.Net(seed=12)
    left = net.conv(net.input("left", ("batch", 3, 6, 6)), "stem.left", 6)
    right = net.conv(net.input("right", ("batch", 2, 6, 6)), "stem.right", 6, 1)
    return net, blocks(net, net.relu(net.add(left, right, "joined"), "r"), 1)


def samples(net: zoo.Net, count: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal((count, *dims[1:])).astype(np.float32)  # type: ignore[arg-type]
        for name, dims in net.inputs.items()
    }


def save(make: Callable[[], tuple[zoo.Net, str]], folder: Path) -> tuple[zoo.Net, Path]:
    net, output = make()
    return net, net.save(folder / "in.onnx", output)
