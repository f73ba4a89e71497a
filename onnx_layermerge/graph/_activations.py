"""An elementwise activation ↔ plain data, so that it can be put elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["Activation", "activation_of", "activation_value"]


@dataclass(frozen=True, eq=False)
class Activation:
    """One node of one computed value: its operator, attributes and constant inputs (None: left out)."""

    op_type: str
    attributes: Mapping[str, ir.Attr]
    constants: tuple[np.ndarray | None, ...] = ()

    @property
    def channelwise(self) -> bool:
        """Some constant differs from channel to channel (PRelu's slopes)."""
        return any(constant is not None and constant.size > 1 for constant in self.constants)


def activation_of(node: ir.Node) -> Activation | None:
    """The node as data; None when an input behind the first is computed at run time."""
    constants: list[np.ndarray | None] = []
    for value in node.inputs[1:]:
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if value is not None and tensor is None:
            return None
        constants.append(tensor.numpy() if tensor is not None else None)
    return Activation(node.op_type, dict(node.attributes), tuple(constants))


def activation_value(graph: ir.Graph, source: ir.Value, activation: Activation, name: str) -> tuple[ir.Node, ir.Value]:
    """Append-ready node that applies the activation to ``source``; its constants become initializers."""
    inputs: list[ir.Value | None] = [source]
    for index, array in enumerate(activation.constants, start=1):
        if array is None:
            inputs.append(None)
            continue
        label = f"{name}.{index}"
        value = ir.Value(name=label, const_value=ir.tensor(array, name=label))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape(array.shape)
        graph.register_initializer(value)
        inputs.append(value)
    node = ir.Node("", activation.op_type, inputs, list(activation.attributes.values()), name=name)
    return node, node.outputs[0]
