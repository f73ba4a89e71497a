"""Blocks to check the timing harness with: one convolution and its activation, or a chain of eight of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_layermerge.latency import BlockSpec

__all__ = ["CHAIN", "SHAPES", "Shape", "chain_spec", "chainable"]

CHAIN = 8


class Shape(NamedTuple):
    """A convolution: channels in and out, kernel, height = width of its input, stride, groups, batch."""

    ins: int
    outs: int
    kernel: int
    size: int
    stride: int = 1
    groups: int = 1
    batch: int = 1

    def label(self) -> str:
        kind = "depthwise" if self.groups > 1 else "dense"
        end = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.batch}×{self.ins}→{self.outs} {self.kernel}×{self.kernel}{end} {kind} at {self.size}"


# Small and large, deep and shallow, dense and depthwise, with stride and without, one image and a batch.
SHAPES = (
    Shape(64, 64, 3, 56), Shape(128, 128, 3, 28), Shape(96, 96, 5, 28, groups=96), Shape(32, 192, 1, 28),
    Shape(256, 256, 3, 14), Shape(512, 512, 3, 7), Shape(64, 64, 7, 56), Shape(128, 128, 9, 28),
    Shape(192, 192, 3, 14, groups=192), Shape(144, 144, 3, 56, groups=144), Shape(192, 64, 1, 14),
    Shape(64, 256, 1, 56), Shape(64, 128, 3, 56, stride=2), Shape(3, 32, 3, 224, stride=2),
    Shape(3, 64, 7, 224, stride=2), Shape(240, 240, 5, 28, stride=2, groups=240), Shape(64, 64, 3, 56, batch=8),
    Shape(96, 24, 1, 56, batch=8), Shape(256, 256, 3, 14, batch=32), Shape(384, 384, 3, 14, groups=384, batch=32),
)  # fmt: skip


def chainable(shape: Shape) -> bool:
    """Whether what comes out can go in again."""
    return shape.ins == shape.outs and shape.stride == 1


def chain_spec(shape: Shape, length: int = 1) -> BlockSpec:
    """``length`` convolutions with their activations in series, as one block; copies stand side by side."""
    name = f"{shape.label()}, {length} in series" if length > 1 else shape.label()
    return BlockSpec(
        key=name,
        label=name,
        build=lambda copies: _model(shape, length, copies),
        shapes=lambda copies: {f"c{n}/x": (shape.batch, shape.ins, shape.size, shape.size) for n in range(copies)},
    )


def _model(shape: Shape, length: int, copies: int) -> bytes:
    rng = np.random.default_rng(0)
    fan_in = shape.ins // shape.groups * shape.kernel**2
    nodes, weights, inputs, outputs = [], [], [], []
    size = (shape.size + 2 * (shape.kernel // 2) - shape.kernel) // shape.stride + 1
    for copy in range(copies):
        value = f"c{copy}/x"
        inputs.append(_value(value, (shape.batch, shape.ins, shape.size, shape.size)))
        for index in range(length):
            name = f"c{copy}/{index}"
            weight = rng.standard_normal((shape.outs, shape.ins // shape.groups, shape.kernel, shape.kernel))
            weights.append(numpy_helper.from_array((weight * (2 / fan_in) ** 0.5).astype(np.float32), f"{name}.weight"))
            weights.append(numpy_helper.from_array(np.full(shape.outs, 0.01, np.float32), f"{name}.bias"))
            nodes.append(
                helper.make_node(
                    "Conv", [value, f"{name}.weight", f"{name}.bias"], [f"{name}.conv"], f"{name}.conv",
                    kernel_shape=[shape.kernel] * 2, pads=[shape.kernel // 2] * 4, strides=[shape.stride] * 2,
                    group=shape.groups,
                )
            )  # fmt: skip
            nodes.append(helper.make_node("Relu", [f"{name}.conv"], [f"{name}.relu"], f"{name}.relu"))
            value = f"{name}.relu"
        outputs.append(_value(value, (shape.batch, shape.outs, size, size)))
    graph = helper.make_graph(nodes, "blocks", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
