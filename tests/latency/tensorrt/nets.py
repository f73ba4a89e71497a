"""Small networks to build, and the ways to spoil them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.zoo import Net


def residual(dtype: Any = np.float32, channels: int = 16) -> bytes:
    """Two convolutions, an activation behind each, and a skip-add."""
    net = Net(dtype=dtype)
    x = net.input("x", (1, channels, 14, 14))
    y = net.relu(net.conv(x, "conv1"), "relu1")
    z = net.relu(net.add(net.conv(y, "conv2"), x, "add"), "relu2")
    return _bytes(net.proto(z))


def conv(shape: tuple[int | str, ...] = (1, 16, 8, 8), dtype: Any = np.float32) -> onnx.ModelProto:
    net = Net(dtype=dtype)
    return net.proto(net.relu(net.conv(net.input("x", shape), "conv1"), "relu1"))


def _bytes(proto: onnx.ModelProto) -> bytes:
    return bytes(proto.SerializeToString())


def _unknown(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Frobnicate"


def _channels(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8


def _missing(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nowhere"


def _mixed(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def _no_output(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


def spoiled() -> dict[str, tuple[bytes, str]]:
    """Name → (model, what the error must say)."""
    found = {
        "empty bytes": (b"", "was given an empty model"),
        "garbage bytes": (b"not a model" * 9, r"cannot parse.*no ONNX model.*\[MODEL_DESERIALIZE_FAILED"),
        "float64": (_bytes(conv(dtype=np.float64)), "no float64, which 'x' is"),
        "dynamic dimension": (
            _bytes(conv(("N", 16, 8, 8))),
            r"Input 'x' has the dynamic shape \(-1, 16, 8, 8\); say its shape with --shapes",
        ),
    }  # fmt: skip
    for name, spoil, words in (
        ("unknown op", _unknown, r"node 'conv1' \(Frobnicate\): there is no such operator \[INVALID_NODE"),
        ("wrong channels", _channels, r"node 'conv1' \(Conv\): its weights do not fit the channels of its input"),
        ("missing tensor", _missing, r"node 'conv1' \(Conv\): it reads a tensor that nothing makes \[INVALID_GRAPH"),
        ("mixed types", _mixed, r"node 'conv1' \(Conv\): it mixes types, so cast the model"),
        ("missing output", _output, r"cannot parse this model \[INTERNAL_ERROR: Trying to access"),
        ("no output", _no_output, "found no output"),
    ):
        proto = conv()
        spoil(proto)
        found[name] = (_bytes(proto), words)
    return found
