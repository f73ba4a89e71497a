"""An elementwise activation, of one node or several, ↔ plain data, so that it can be put elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._network import Network

__all__ = ["Activation", "Step", "activation_nodes", "activation_of"]


@dataclass(frozen=True, eq=False)
class Step:
    """One operator; an input is a constant, the number of an earlier value (0: the source, n: step n), or left out."""

    op_type: str
    attributes: Mapping[str, ir.Attr]
    inputs: tuple[np.ndarray | int | None, ...]


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of one value, in steps; the last one is its result."""

    steps: tuple[Step, ...]
    label: str

    @property
    def channelwise(self) -> bool:
        """Some constant differs from channel to channel (PRelu's slopes)."""
        return any(isinstance(given, np.ndarray) and given.size > 1 for step in self.steps for given in step.inputs)


def activation_of(network: Network, position: int) -> Activation | None:
    """The cell that starts at ``position``; None when there is none or it is not elementwise."""
    key = (activation_of, position)
    if key not in network.remembered:
        network.remembered[key] = _read(network, position)
    found: Activation | None = network.remembered[key]
    return found


def _read(network: Network, position: int) -> Activation | None:
    cell = network.cells.get(position)
    if cell is None or not cell.elementwise:
        return None
    numbers = {cell.entry: 0}
    steps = []
    for number, node in enumerate(network.order[cell.start : cell.stop], start=1):
        inputs: list[np.ndarray | int | None] = []
        for value in node.inputs:
            if value is None:
                inputs.append(None)
            elif value.const_value is not None:
                inputs.append(value.const_value.numpy())
            else:
                inputs.append(numbers[str(value.name)])
        steps.append(Step(node.op_type, dict(node.attributes), tuple(inputs)))
        numbers[str(node.outputs[0].name)] = number
    return Activation(tuple(steps), cell.label)


def activation_nodes(
    graph: ir.Graph, source: ir.Value, activation: Activation, name: str
) -> tuple[list[ir.Node], ir.Value]:
    """Append-ready nodes that apply the activation to ``source``, and its result; constants become initializers."""
    values = [source]
    nodes = []
    for number, step in enumerate(activation.steps):
        label = name if len(activation.steps) == 1 else f"{name}.{number}.{step.op_type}"
        inputs: list[ir.Value | None] = []
        for index, given in enumerate(step.inputs):
            if given is None or isinstance(given, int):
                inputs.append(None if given is None else values[given])
                continue
            tensor = ir.tensor(given, name=f"{label}.{index}")
            value = ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype))
            value.shape = ir.Shape(given.shape)
            graph.register_initializer(value)
            inputs.append(value)
        node = ir.Node("", step.op_type, inputs, list(step.attributes.values()), name=label)
        nodes.append(node)
        values.append(node.outputs[0])
    return nodes, values[-1]
