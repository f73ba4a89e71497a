"""A model in the shapes and types that it is deployed in, for runtimes that take both from the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency.backends.tensorrt import cast

__all__ = ["deployed", "one_convolution"]

Array = npt.NDArray[Any]
_HALVES = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}


def deployed(model: bytes, feeds: Mapping[str, Array], precision: str) -> bytes:
    """ONNX bytes whose inputs have the shapes of ``feeds`` and whose tensors have the types of the precision.

    With fixed sizes, what computes shapes is folded instead of being left to the CPU.

    Raises:
        ModelError: the model's own weights are in another type, and nothing is cast up.
    """
    proto = onnx.load_from_string(model)
    held = sorted({_HALVES[weight.data_type] for weight in proto.graph.initializer if weight.data_type in _HALVES})
    if held and held != [precision]:
        raise ModelError(f"This model holds weights in {held[0]} and is not cast to {precision}; give a float32 model.")
    for value in proto.graph.input:
        if value.name in feeds:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in feeds[value.name].shape:
                shape.dim.add().dim_value = size
    return cast(proto.SerializeToString(deterministic=True), precision)


def one_convolution(precision: str) -> bytes:
    """The smallest model that needs what every other needs."""
    shape = [1, 8, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "probe",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return cast(proto.SerializeToString(), precision)
