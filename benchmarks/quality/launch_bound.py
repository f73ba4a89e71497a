"""A synthetic device on which launches cost more than arithmetic, as on a GPU at batch 1.  Nothing here is measured.

    t(node) = LAUNCH_S + max(2 · MACs / FLOPS, bytes / BANDWIDTH)

for every node that would be a kernel of its own.  Free, as inference engines fuse them behind a convolution: an
activation, and an Add of two values of which one is a convolution's that nobody else reads.  Shape arithmetic and
constants run on the host.  A model's time is the sum; the clock moves by it and by nothing else.

    python benchmarks/quality/launch_bound.py MODEL.onnx [-o TABLE.json]

fills a latency table with this device's times for every candidate block of a model, through the same calls that
`olm profile` makes, so that `olm plan MODEL.onnx --profile TABLE.json --from-table ""` plans with it.  The device's
name begins with "synthetic" wherever it is shown.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import shape_inference

from onnx_layermerge.graph import Packed
from onnx_layermerge.latency import DeviceKey, Instant

__all__ = ["BANDWIDTH", "FLOPS", "LAUNCH_S", "LaunchBound", "seconds_of"]

LAUNCH_S = 6e-6
FLOPS = 10e12  # sustained, of a device with about twice that on paper
BANDWIDTH = 400e9

_HOST = frozenset(("Constant", "Shape", "Slice", "Gather", "Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape"))
_FUSED = frozenset(("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSwish", "HardSigmoid", "Max", "Min", "Add"))


class LaunchBound:
    """Backend and clock in one; see the head of this file."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def clock(self) -> Instant:
        """The device's own seconds."""
        return Instant(self._now_s, self._now_s)

    def describe(self) -> DeviceKey:
        words = f"synthetic: {LAUNCH_S * 1e6:g} us a launch, {FLOPS / 1e12:g} TFLOP/s, {BANDWIDTH / 1e9:g} GB/s"
        return DeviceKey("synthetic", "1", words, 0, "fp32")

    def build(self, model: bytes | Packed, shapes: Mapping[str, tuple[int, ...]]) -> _Runnable:
        proto = onnx.load_from_string(model if isinstance(model, bytes) else model.data)
        return _Runnable(self, seconds_of(proto, shapes))

    def spend(self, seconds: float) -> None:
        self._now_s += seconds


class _Runnable:
    def __init__(self, device: LaunchBound, seconds: float) -> None:
        self._device, self._seconds = device, seconds

    def run(self) -> None:
        self._device.spend(self._seconds)

    def outputs(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        raise NotImplementedError("a synthetic device computes nothing")

    def close(self) -> None:
        """Nothing is held."""


def seconds_of(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """The model's time by the formula, for inputs of these shapes."""
    bound = onnx.ModelProto()
    bound.CopyFrom(proto)
    for value in bound.graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, shapes[value.name], strict=True):
                dim.dim_value = size
    del bound.graph.value_info[:]
    graph = shape_inference.infer_shapes(bound, data_prop=True).graph
    sizes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes.setdefault(value.name, tuple(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim))
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    behind_conv: set[str] = set()
    total = 0.0
    for node in graph.node:
        fused = node.op_type in _FUSED and any(n in behind_conv and readers[n] == 1 for n in node.input)
        if node.op_type == "Conv" or fused:
            behind_conv.add(node.output[0])
        if node.op_type in _HOST or fused:
            continue
        total += LAUNCH_S + max(2 * _macs(node, sizes) / FLOPS, _bytes(node, sizes) / BANDWIDTH)
    return total


def _macs(node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> float:
    out = math.prod(sizes.get(node.output[0], (1,)))
    if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in sizes:
        weight = sizes[node.input[1]]
        # Per output value a convolution reads one filter, a matrix product one row of what it sums over.
        if node.op_type == "Conv":
            return float(out * math.prod(weight[1:]))
        return float(out * sizes.get(node.input[0], (1,))[-1])
    return float(out)


def _bytes(node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> float:
    return 4.0 * sum(math.prod(sizes.get(name, (0,))) for name in (*node.input, *node.output) if name)


def main() -> int:
    from rich.console import Console

    from onnx_layermerge.flow._latencies import latencies
    from onnx_layermerge.flow._prepare import prepare
    from onnx_layermerge.latency import LatencyTable

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("launch_bound.json"))
    options: Any = parser.parse_args()
    with LatencyTable.open(options.output) as table:
        for method in ("olm", "layermerge"):
            timed = latencies(prepare(options.model, method=method), LaunchBound(), table)
    Console(highlight=False).print(
        f"{options.output}: {len(timed.savings_s)} blocks on {LaunchBound().describe().text()}", soft_wrap=True
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
