"""Which of a model's constants a training may move, and which are not its to learn.

Learned is a float initializer that only ever stands where a layer keeps what it learned:

1. as weight or bias of a convolution or a matrix product, scale or shift of a norm, slope of a PRelu, rows of a table;
2. as the larger than a single number that is added, multiplied, … to a value *behind* such a layer (biases and scales
   that an exporter spelled out; in front of the first layer such constants are the input's own range, and the
   frequencies of a time embedding);
3. in front of either, through nodes that only move values about (an exporter's Transpose of a weight).

Not learned are bounds of a Clip, exponents, scales of a Resize, statistics of a norm, masks that hold infinities.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_layermerge.recover.training._store import is_float

__all__ = ["learned"]

_PRODUCTS = {"MatMul": (0, 1), "Einsum": tuple(range(16))}
_LAYERS = {
    **_PRODUCTS,
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "Gather": (0,),
}
_JOINS = frozenset(("Add", "Sub", "Mul", "Div", "Sum"))
_MOVES = frozenset(("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Expand"))


def learned(model: ir.Model) -> list[str]:
    """Names of the initializers of ``model``'s main graph that are weights, in the graph's own order."""
    computed: set[ir.Value] = {value for value in model.graph.inputs if not value.is_initializer()}
    behind: set[ir.Value] = set()
    for node in model.graph:
        if any(value in computed for value in node.inputs):
            computed.update(node.outputs)
        if any(value in behind for value in node.inputs) or _is_layer(node, computed):
            behind.update(node.outputs)
    found = []
    for name, value in model.graph.initializers.items():
        held = value.const_value
        if held is None or not is_float(held.dtype) or not held.size or not _taught(value, computed, behind):
            continue
        # A weight is finite; a mask need not be.
        if np.isfinite(held.numpy().astype(np.float32, copy=False)).all():
            found.append(str(name))
    return found


def _is_layer(node: ir.Node, computed: set[ir.Value]) -> bool:
    """Whether it has a weight and something computed that meets it."""
    places = _LAYERS.get(node.op_type, ())
    weights = [node.inputs[place] for place in places if place < len(node.inputs)]
    constant = any(value is not None and value not in computed for value in weights)
    return constant and any(value in computed for value in node.inputs)


def _taught(value: ir.Value, computed: set[ir.Value], behind: set[ir.Value]) -> bool:
    """Whether all uses of a constant are those of a weight."""
    uses = value.uses()
    if not uses or value.is_graph_output():
        return False
    for node, place in uses:
        if node.domain not in ("", "ai.onnx"):
            return False
        if place in _LAYERS.get(node.op_type, ()) and any(other in computed for other in node.inputs):
            continue
        if node.op_type in _JOINS and any(other in behind for other in node.inputs) and _size(value) > 1:
            continue
        moved = node.op_type in _MOVES and place == 0 and node.outputs[0] not in computed
        if not (moved and _taught(node.outputs[0], computed, behind)):
            return False
    return True


def _size(value: ir.Value) -> int:
    """Elements; 2 stands for what is not known."""
    if value.const_value is not None:
        return int(value.const_value.size)
    if value.shape is not None and all(isinstance(dim, int) for dim in value.shape):
        return int(np.prod([int(dim) for dim in value.shape]))  # type: ignore[arg-type]
    return 2
