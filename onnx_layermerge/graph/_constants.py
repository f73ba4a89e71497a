"""What the folding asks of nodes and constants, whichever way the opset spells them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["constant", "integers", "is_op", "new_initializer", "only_reader"]


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of the standard domain."""
    return node is not None and node.op_type in op_types and node.domain in ("", "ai.onnx")


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The values of a constant; None when it is computed, or not there."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def integers(node: ir.Node, name: str, index: int) -> list[int] | None:
    """A list that older opsets keep in attribute ``name`` and newer ones in input ``index``; None: not constant."""
    if name in node.attributes:
        return list(node.attributes[name].as_ints())
    array = constant(node.inputs[index]) if len(node.inputs) > index else None
    return None if array is None else [int(entry) for entry in array.reshape(-1)]


def new_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A constant of the graph under ``name``, or that with primes behind it where it is taken."""
    while name in graph.initializers:
        name += "'"
    tensor = ir.Tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads ``value``, in the same graph; None when more is done with it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = next(iter(uses)).node
    producer = value.producer()
    return reader if producer is not None and reader.graph is producer.graph else None
