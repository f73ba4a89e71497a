"""Rewrite rules for what a convolution takes up; each changes the main graph in place and says whether it did.

With weights W [C, C_in/groups, *kernel], bias B [C] and per-channel constants a, b [C]

    a·(W∗x + B) + b = (a·W)∗x + (a·B + b),

so a convolution takes up whatever scales and shifts its channels: BatchNormalization, where a = γ/√(σ² + ε) and
b = β − a·μ, and Mul, Add, Sub, Div with constants.  A whole row of them is worked out in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._constants import constant, integers, is_op, new_initializer, only_reader

__all__ = ["fold_affine", "fold_pads", "spell_out_pads"]

Affine = tuple[np.ndarray, np.ndarray]
"""Scale and shift, float64 [C] each."""

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_AFFINE = ("BatchNormalization", *_ARITHMETIC)


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
    if not is_op(only_reader(conv.outputs[0]), *_AFFINE):
        return False
    channels, rank = int(weight.const_value.shape[0]), len(weight.const_value.shape)  # type: ignore[arg-type]
    scale, shift = np.ones(channels), np.zeros(channels)
    nodes: list[ir.Node] = []
    value = conv.outputs[0]
    with np.errstate(all="ignore"):  # what does not come out finite is left alone below
        while (reader := only_reader(value)) is not None:
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
    value.const_value = ir.Tensor(array, name=value.name)
    return value


def _affine(node: ir.Node, value: ir.Value, channels: int, rank: int) -> Affine | None:
    """What the node does to each channel of ``value`` ([N, C, …] of ``rank``), if it is no more than a scale and
    a shift."""
    if is_op(node, "BatchNormalization"):
        return _batch_norm(node, value)
    if not is_op(node, *_ARITHMETIC) or len(node.inputs) != 2:
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
