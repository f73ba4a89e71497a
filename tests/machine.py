"""A device whose clock moves only when a model runs on it: times follow from the model alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_layermerge.flow import _compress, _latencies, _plan, _profile, _verify
from onnx_layermerge.latency import DeviceKey, Instant, compare, fill
from onnx_layermerge.verify import _speed

_SECONDS_A_NODE = 2e-4
_SECONDS_A_WEIGHT = 1e-5


class Machine:
    """Backend and clock in one: every node costs a little, every weight of a convolution a little more."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.built = 0
        self.open_now = 0

    def clock(self) -> Instant:
        return Instant(self.now_s, self.now_s)

    def describe(self) -> DeviceKey:
        return DeviceKey("fake", "1", "machine", 1, "fp32")

    def cost_s(self, model: bytes) -> float:
        proto = onnx.load_from_string(model)
        sizes = {tensor.name: int(np.prod(tensor.dims, initial=1)) for tensor in proto.graph.initializer}
        weights = sum(sizes.get(node.input[1], 0) for node in proto.graph.node if node.op_type == "Conv")
        return len(proto.graph.node) * _SECONDS_A_NODE + weights * _SECONDS_A_WEIGHT

    def build(self, model: bytes, shapes: Mapping[str, tuple[int, ...]]) -> _Runnable:
        seconds = self.cost_s(model)
        self.built += 1
        self.open_now += 1
        return _Runnable(self, seconds)


class _Runnable:
    def __init__(self, machine: Machine, seconds: float) -> None:
        self.machine, self.seconds, self.closed = machine, seconds, False

    def run(self) -> None:
        self.machine.now_s += self.seconds

    def outputs(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return []

    def close(self) -> None:
        self.machine.open_now -= not self.closed
        self.closed = True


def install(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Every command of the flow runs on the machine that is returned."""
    machine = Machine()
    for module in (_compress, _plan, _profile, _verify):
        monkeypatch.setattr(module, "open_backend", lambda name, device, precision="fp32", engines=None: machine)
    replaced: list[tuple[Any, str, Any]] = [
        (_latencies, "fill", partial(fill, clock=machine.clock)),
        (_latencies, "compare", partial(compare, clock=machine.clock)),
        (_speed, "compare", partial(compare, clock=machine.clock)),
    ]
    for module, name, function in replaced:
        monkeypatch.setattr(module, name, function)
    return machine
