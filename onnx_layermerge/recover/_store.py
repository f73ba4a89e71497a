"""New weights for a convolution that is already in a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["put_weights"]


def put_weights(graph: ir.Graph, node: ir.Node, weight: np.ndarray, bias: np.ndarray, how: str) -> None:
    """Let ``node``, a Conv, read new initializers named after its output and ``how``, in the type of its old weights.

    One without a bias gets one.
    """
    old = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    dtype = np.dtype(np.float32) if old is None else old.dtype.numpy()
    name = f"{node.outputs[0].name}.{how}"
    while any(key.startswith(f"{name}.") for key in graph.initializers):
        name += "'"  # a model that was compressed before has such names already
    node.resize_inputs(3)
    for index, (suffix, array) in enumerate((("weight", weight), ("bias", bias)), start=1):
        label = f"{name}.{suffix}"
        value = ir.Value(name=label, const_value=ir.tensor(np.ascontiguousarray(array.astype(dtype)), name=label))
        value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(dtype)), ir.Shape(array.shape)
        graph.register_initializer(value)
        node.replace_input_with(index, value)
