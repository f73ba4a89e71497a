"""Rewrite rules for what stands around a convolution; each changes the main graph in place and says whether it did.

With weights W [C, C_in/groups, *kernel], bias B [C] and per-channel constants a, b [C]

    a·(W∗x + B) + b = (a·W)∗x + (a·B + b),

so a convolution takes up whatever scales and shifts its channels: BatchNormalization, where a = γ/√(σ² + ε) and
b = β − a·μ, and Mul, Add, Sub, Div with constants.  A whole row of them is worked out in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = [
    "cancel_pairs",
    "constant",
    "fold_affine",
    "fold_pads",
    "integers",
    "is_op",
    "new_initializer",
    "remove_dropout",
    "spell_out_pads",
]

Affine = tuple[np.ndarray, np.ndarray]
"""Scale and shift, float64 [C] each."""


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
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads ``value``, in the same graph; None when more is done with it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = next(iter(uses)).node
    producer = value.producer()
    return reader if producer is not None and reader.graph is producer.graph else None


def _bypass(node: ir.Node, source: ir.Value) -> bool:
    """Let ``source`` stand for the node's output and remove the node; False when a graph output forbids it."""
    output = node.outputs[0]
    if any(other.uses() or other.is_graph_output() for other in node.outputs[1:]):
        return False
    name = output.name
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not node.graph or source.is_graph_output():
            return False
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        output.name, source.name = f"{name}.replaced", name
    else:
        output.replace_all_uses_with(source)
    if source.shape is None:
        source.shape = output.shape
    graph = node.graph
    if graph is not None:
        graph.remove(node, safe=True)
    return True


def remove_dropout(model: ir.Model) -> bool:
    """Dropout is the identity outside of training, which up to opset 11 it cannot be in."""
    changed = False
    for node in tuple(model.graph):
        if not is_op(node, "Dropout") or node.inputs[0] is None:
            continue
        training = node.inputs[2] if len(node.inputs) > 2 else None
        if training is not None:
            flag = constant(training)
            if flag is None or flag.any():
                continue
        changed |= _bypass(node, node.inputs[0])
    return changed


def cancel_pairs(model: ir.Model) -> bool:
    """Neighbours that only move axes about:

    1. Squeeze and Unsqueeze of the same axes, in either order, are nothing;
    2. a Reshape to constant sizes does not care how its input was reshaped before;
    3. a Reshape to the sizes that are there already is nothing.
    """
    changed = False
    for node in tuple(model.graph):
        if is_op(node, "Squeeze", "Unsqueeze"):
            before = node.inputs[0].producer() if node.inputs[0] is not None else None
            opposite = "Unsqueeze" if node.op_type == "Squeeze" else "Squeeze"
            if before is not None and is_op(before, opposite) and before.inputs[0] is not None:
                axes = _axes(before)
                if axes is not None and axes == _axes(node):  # case 1
                    changed |= _bypass(node, before.inputs[0])
        elif is_op(node, "Reshape"):
            changed |= _simplify_reshape(node)
    return changed


def _axes(node: ir.Node) -> list[int] | None:
    """Squeezed or inserted axes, counted from the front of the larger shape."""
    axes = integers(node, "axes", 1)
    if axes is None or all(axis >= 0 for axis in axes):
        return None if axes is None else sorted(axes)
    larger = node.inputs[0] if node.op_type == "Squeeze" else node.outputs[0]
    if larger is None or larger.shape is None:
        return None
    return sorted(axis % len(larger.shape) for axis in axes)


def _simplify_reshape(node: ir.Node) -> bool:
    source = node.inputs[0]
    if source is None:
        return False
    changed = False
    sizes = constant(node.inputs[1])
    while sizes is not None and 0 not in sizes and _only_reader(source) is node:
        before = source.producer()
        moves_nothing = is_op(before, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
        if before is None or before.inputs[0] is None or not moves_nothing:
            break
        source = before.inputs[0]
        node.replace_input_with(0, source)  # case 2
        changed = True
    if _same_sizes(source.shape, node.outputs[0].shape):
        return _bypass(node, source) or changed  # case 3
    return changed


def _same_sizes(shape: ir.Shape | None, other: ir.Shape | None) -> bool:
    """Whether shapes of equally many elements are the same: all sizes are known and agree, but for one axis at most."""
    if shape is None or other is None or len(shape) != len(other):
        return False
    known = [isinstance(a, int) and isinstance(b, int) for a, b in zip(shape, other, strict=True)]
    agree = all(a == b and a != 0 for a, b, both in zip(shape, other, known, strict=True) if both)
    return agree and known.count(False) <= 1


def spell_out_pads(model: ir.Model) -> bool:
    """``auto_pad`` SAME as numbers, wherever they do not depend on a size that is unknown.

    A kernel of reach k = d(κ − 1) + 1 with stride s needs max(0, (⌈H/s⌉ − 1)·s + k − H) zeros, whatever H if s = 1.
    """
    changed = False
    for node in tuple(model.graph):
        mode = node.attributes.get_string("auto_pad", "NOTSET") if is_op(node, "Conv") else None
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            continue
        weight = node.inputs[1]
        source = node.inputs[0]
        if weight is None or weight.shape is None or not weight.shape.is_static():
            continue
        kernel = tuple(weight.shape.numpy())[2:]
        strides = node.attributes.get_ints("strides", (1,) * len(kernel)) or ()
        dilations = node.attributes.get_ints("dilations", (1,) * len(kernel)) or ()
        sizes = source.shape[2:] if source is not None and source.shape is not None else (None,) * len(kernel)
        totals = []
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            reach = dilation * (width - 1) + 1
            if stride == 1:
                totals.append(reach - 1)
            elif isinstance(size, int):
                totals.append(max(0, (-(-size // stride) - 1) * stride + reach - size))
        if len(totals) != len(kernel):
            continue
        less = [total // 2 for total in totals]
        more = [total - part for total, part in zip(totals, less, strict=True)]
        node.attributes.pop("auto_pad")
        node.attributes.add(ir.AttrInt64s("pads", less + more if mode == "SAME_UPPER" else more + less))
        changed = True
    return changed


def fold_pads(model: ir.Model) -> bool:
    """Zeros that a Pad puts around the image, put there by the convolution that reads it."""
    changed = False
    for conv in tuple(model.graph):
        if not is_op(conv, "Conv") or conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        while (source := conv.inputs[0]) is not None and is_op(pad := source.producer(), "Pad") and pad is not None:
            if conv.inputs[1] is None or conv.inputs[1].shape is None:
                break
            rank = len(conv.inputs[1].shape)
            added = _zeros_added(pad, rank)
            if added is None:
                break
            own = conv.attributes.get_ints("pads", (0,) * len(added)) or ()
            if conv.attributes.get_string("auto_pad", "NOTSET") == "VALID":
                own = (0,) * len(added)
            conv.attributes.pop("auto_pad", None)
            conv.attributes.add(ir.AttrInt64s("pads", [a + b for a, b in zip(own, added, strict=True)]))
            conv.replace_input_with(0, pad.inputs[0])
            changed = True
    return changed


def _zeros_added(pad: ir.Node, rank: int) -> list[int] | None:
    """Spatial pads, begins then ends; None when the Pad does anything but surround the image with zeros."""
    pads = integers(pad, "pads", 1)
    if pads is None or pad.attributes.get_string("mode", "constant") != "constant":
        return None
    filled: np.ndarray | None = np.array(pad.attributes.get_float("value", 0.0))
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        filled = constant(pad.inputs[2])
    if filled is None or np.any(filled != 0):
        return None
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        named = constant(pad.inputs[3])
        if named is None:
            return None
        axes = [int(axis) % rank for axis in named.reshape(-1)]
    if len(pads) != 2 * len(axes):
        return None
    whole = np.zeros((2, rank), np.int64)
    whole[:, axes] = np.reshape(pads, (2, -1))
    if whole[:, :2].any() or (whole < 0).any():
        return None
    return [int(entry) for entry in whole[:, 2:].reshape(-1)]


def fold_affine(model: ir.Model) -> bool:
    """Scales and shifts behind a convolution go into its weights; shared weights are copied first."""
    changed = False
    for node in tuple(model.graph):
        if is_op(node, "Conv"):
            changed |= _absorb(model.graph, node)
    return changed


def _absorb(graph: ir.Graph, conv: ir.Node) -> bool:
    weight = conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if weight is None or weight.const_value is None or (bias is not None and bias.const_value is None):
        return False
    channels, rank = int(weight.const_value.shape[0]), len(weight.const_value.shape)  # type: ignore[arg-type]
    scale, shift = np.ones(channels), np.zeros(channels)
    nodes: list[ir.Node] = []
    value = conv.outputs[0]
    with np.errstate(all="ignore"):  # what does not come out finite is left alone below
        while (reader := _only_reader(value)) is not None:
            found = _affine(reader, value, channels, rank)
            if found is None:
                break
            scale, shift = scale * found[0], shift * found[0] + found[1]
            nodes.append(reader)
            value = reader.outputs[0]
        if not nodes:
            return False
        plain = weight.const_value.numpy()
        scaled = (plain.astype(np.float64) * scale.reshape(-1, *(1,) * (rank - 1))).astype(plain.dtype)
        old = np.zeros(channels) if bias is None else _values(bias)
        moved = (old * scale + shift).astype(plain.dtype)
    if not (np.isfinite(scaled.astype(np.float64)).all() and np.isfinite(moved.astype(np.float64)).all()):
        return False
    if (scale != 1).any():
        conv.replace_input_with(1, _instead(graph, weight, scaled, f"{conv.name}.weight"))
    if bias is not None:
        conv.replace_input_with(2, _instead(graph, bias, moved, f"{conv.name}.bias"))
    elif moved.any():
        conv.resize_inputs(3)
        conv.replace_input_with(2, new_initializer(graph, f"{conv.name}.bias", moved))
    own, last = conv.outputs[0], nodes[-1].outputs[0]
    name = last.name
    last.replace_all_uses_with(own, replace_graph_outputs=True)
    own.shape, own.type = last.shape or own.shape, last.type or own.type
    graph.remove(reversed(nodes), safe=True)
    last.name, own.name = f"{name}.replaced", name
    return True


def _values(bias: ir.Value) -> np.ndarray:
    """A bias as float64 [C]."""
    array = constant(bias)
    return np.zeros(1) if array is None else array.astype(np.float64).reshape(-1)


def _instead(graph: ir.Graph, value: ir.Value, array: np.ndarray, name: str) -> ir.Value:
    """The constant with new values: itself where nobody else reads it, a new one of ``name`` otherwise."""
    if len(value.uses()) > 1 or value.is_graph_output() or not value.is_initializer():
        return new_initializer(graph, name, array)
    value.const_value = ir.tensor(array, name=value.name)
    return value


def _affine(node: ir.Node, value: ir.Value, channels: int, rank: int) -> Affine | None:
    """What the node does to each channel of ``value`` ([N, C, …] of ``rank``), if it is no more than a scale and
    a shift."""
    if is_op(node, "BatchNormalization"):
        return _batch_norm(node, value)
    if not is_op(node, "Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    left = node.inputs[0] is value
    array = constant(node.inputs[1 if left else 0])
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[1] not in (1, channels) or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    other = np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))
    one, none = np.ones(channels), np.zeros(channels)
    if node.op_type == "Add":
        return one, other
    if node.op_type == "Sub":
        return (one, -other) if left else (-one, other)
    if node.op_type == "Mul":
        return other, none
    return (1 / other, none) if left else None


def _batch_norm(node: ir.Node, value: ir.Value) -> Affine | None:
    trained = node.attributes.get_int("training_mode", 0) or not node.attributes.get_int("spatial", 1)
    read = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    arrays = [constant(each) for each in node.inputs[1:5]]
    if trained or read or node.inputs[0] is not value or len(arrays) != 4:
        return None
    gamma, beta, mean, variance = (None if array is None else array.astype(np.float64) for array in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    scale = gamma / np.sqrt(variance + np.float64(1e-5 if epsilon is None else epsilon))
    return scale, beta - mean * scale
