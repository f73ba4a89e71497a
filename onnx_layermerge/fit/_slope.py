"""An elementwise activation and its derivative on arrays.

Relu and Clip are computed here; of any other, onnxruntime gives the values and a central difference the derivative,
which is as exact as weights that are found by small steps need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_layermerge.graph import Activation, Network, Session, activation_nodes, model_of

__all__ = ["Elementwise", "elementwise"]

Array = npt.NDArray[np.float32]
# Half the distance of the two points; its square is the error of the slope, rounding over it the noise.
STEP = np.float32(1e-2)


@dataclass(frozen=True, eq=False)
class Elementwise:
    """``value`` and ``slope`` of arrays of any shape, float32."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def elementwise(network: Network, activation: Activation) -> Elementwise:
    """The activation as functions of arrays; it must be the same for all channels, and its constants scalars."""
    bounds = _bounds(activation)
    if bounds is not None:
        low, high = (np.float32(bound) for bound in bounds)
        return Elementwise(
            lambda x: np.clip(x, low, high), lambda x: ((x > low) & (x < high)).astype(np.float32)
        )
    session = _session(network, activation)

    def value(x: Array) -> Array:
        found: Array = session.run({"x": x.reshape(1, -1)})["y"].reshape(x.shape).astype(np.float32, copy=False)
        return found

    return Elementwise(value, lambda x: (value(x + STEP) - value(x - STEP)) / (2 * STEP))


def _bounds(activation: Activation) -> tuple[float, float] | None:
    """Of a Relu, or a Clip with constant bounds."""
    if len(activation.steps) != 1:
        return None
    step = activation.steps[0]
    if step.op_type == "Relu":
        return 0.0, np.inf
    if step.op_type != "Clip":
        return None
    bounds = [-np.inf, np.inf]
    for index, name in enumerate(("min", "max")):
        given = step.inputs[1 + index] if len(step.inputs) > 1 + index else None
        if name in step.attributes:
            bounds[index] = step.attributes[name].as_float()
        elif isinstance(given, np.ndarray):
            bounds[index] = float(given.item())
        elif given is not None:
            return None
    return bounds[0], bounds[1]


def _session(network: Network, activation: Activation) -> Session:
    """One row of any length in, one out, in float32 whatever the model computes in."""
    steps = tuple(replace(step, inputs=tuple(_single(given) for given in step.inputs)) for step in activation.steps)
    row = ir.TensorType(ir.DataType.FLOAT)
    entry = ir.Value(name="x", type=row, shape=ir.Shape([1, None]))
    opsets = dict(network.model.graph.opset_imports)
    graph = ir.Graph([entry], [], nodes=[], name="activation", opset_imports=opsets)
    nodes, value = activation_nodes(graph, entry, replace(activation, steps=steps), "activation")
    value.name, value.type, value.shape = "y", row, ir.Shape([1, None])
    graph.extend(nodes)
    graph.outputs.append(value)
    return Session(model_of(graph, network.model))


def _single(given: np.ndarray | int | None) -> np.ndarray | int | None:
    floats = isinstance(given, np.ndarray) and given.dtype.kind == "f"
    return given.astype(np.float32) if floats and isinstance(given, np.ndarray) else given
