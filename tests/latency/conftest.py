"""A machine made of numbers: a clock that moves only when a fake model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency import BlockSpec, DeviceKey, Instant, Measurement, Ratio

Cost = Callable[[int, int], float]  # (copies, run number of the machine) -> seconds


class Machine:
    """Fake clock and backend in one. A "model" is the text ``name copies``."""

    def __init__(self, costs: Mapping[str, Cost]) -> None:
        self.costs = dict(costs)
        self.now_s = 0.0
        self.runs: list[str] = []
        self.built: list[str] = []
        self.open_now: list[str] = []
        self.most_open = 0

    def clock(self) -> Instant:
        return Instant(self.now_s, 2 * self.now_s)

    def describe(self) -> DeviceKey:
        return DeviceKey("fake", "1", "machine", 1, "fp32")

    def build(self, model: bytes, shapes: Mapping[str, tuple[int, ...]]) -> FakeRunnable:
        text = model.decode()
        if "unbuildable" in text:
            raise ModelError(f"cannot build {text}")
        assert shapes == {"x": (int(text.split()[1]), 3)}
        self.built.append(text)
        self.open_now.append(text)
        self.most_open = max(self.most_open, len(self.open_now))
        return FakeRunnable(self, text)

    def block(self, name: str) -> BlockSpec:
        return BlockSpec(
            key=f"key-{name}",
            label=name,
            build=lambda copies: f"{name} {copies}".encode(),
            shapes=lambda copies: {"x": (copies, 3)},
        )

    def runnable(self, name: str) -> FakeRunnable:
        return self.build(f"{name} 1".encode(), {"x": (1, 3)})


class FakeRunnable:
    def __init__(self, machine: Machine, text: str) -> None:
        self.machine, self.text = machine, text

    def run(self) -> None:
        assert self.text in self.machine.open_now, "run after close"
        name, copies = self.text.split()
        self.machine.now_s += self.machine.costs[name](int(copies), len(self.machine.runs))
        self.machine.runs.append(self.text)

    def outputs(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return []

    def close(self) -> None:
        self.machine.open_now.remove(self.text)


def noisy(per_copy_s: float, fixed_s: float = 0.0, *, noise: float = 0.01, seed: int = 0) -> Cost:
    """fixed + copies x cost, times 1 + a symmetric relative noise drawn by run number."""
    draws = np.random.default_rng(seed).uniform(-noise, noise, 100_003)
    return lambda copies, run: (fixed_s + copies * per_copy_s) * (1 + float(draws[run % len(draws)]))


@pytest.fixture
def machine() -> Callable[[Mapping[str, Cost]], Machine]:
    return Machine


@pytest.fixture
def noise() -> Callable[..., Cost]:
    return noisy


@pytest.fixture
def measurement() -> Callable[..., Measurement]:
    def make(seconds: float = 1.5e-3) -> Measurement:
        return Measurement(
            seconds, seconds * 0.99, seconds * 1.01, seconds * 1.1, seconds * 1.2, seconds * 1.3,
            20, 1, "precise", seconds * 0.01,
        )  # fmt: skip

    return make


@pytest.fixture
def ratio() -> Ratio:
    return Ratio(1.5, 1.48, 1.52, 3e-3, 2e-3, 1.49, 40, "cap")


@pytest.fixture
def devices() -> Sequence[DeviceKey]:
    return (
        DeviceKey("onnxruntime", "1.32.0", "CPU (family 6, avx2)", 1, "fp32"),
        DeviceKey("tensorrt", "10.9", "GPU 8.9", 0, "fp16", driver="570.1"),
    )
