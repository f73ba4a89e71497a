"""A device in another process whose builder takes that process with it; its clock moves only when a model runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_layermerge.latency import DeviceKey, Instant
from onnx_layermerge.latency.backends import Reopen

_SECONDS_A_NODE = 2e-4
_SECONDS_A_WEIGHT = 1e-5


class Crashing:
    """Crashes over whole networks of fewer than ``least`` convolutions, or of all where that is infinite.

    What it was given to build is in ``log``: process id, whether it is a whole network, its convolutions.
    """

    def __init__(self, log: str, least: str) -> None:
        self.log, self.least = Path(log), float(least)
        self.reopen = Reopen("tests.flow.crashing:Crashing", (log, least))
        self.now_s = 0.0

    def clock(self) -> Instant:
        return Instant(self.now_s, self.now_s)

    def describe(self) -> DeviceKey:
        return DeviceKey("crashing", "1", "machine", 1, "fp32")

    def build(self, model: bytes, shapes: Mapping[str, tuple[int, ...]]) -> _Runnable:
        graph = onnx.load_from_string(model).graph
        convs = [node for node in graph.node if node.op_type == "Conv"]
        whole = any(node.op_type in ("Gemm", "MatMul") for node in graph.node)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {'whole' if whole else 'block'} {len(convs)}\n")
        if whole and len(convs) < self.least:
            os.abort()
        sizes = {tensor.name: int(np.prod(tensor.dims, initial=1)) for tensor in graph.initializer}
        weights = sum(sizes.get(node.input[1], 0) for node in convs)
        return _Runnable(self, len(graph.node) * _SECONDS_A_NODE + weights * _SECONDS_A_WEIGHT)


class _Runnable:
    def __init__(self, machine: Crashing, seconds: float) -> None:
        self.machine, self.seconds = machine, seconds

    def run(self) -> None:
        self.machine.now_s += self.seconds

    def outputs(self, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        return []

    def close(self) -> None:
        return None
