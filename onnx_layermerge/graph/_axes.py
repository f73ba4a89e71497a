"""What becomes of an operator when its inputs come with their axes in another order.

Axis i of what it used to read is axis p[i] of what it reads now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._constants import constant, integers, is_op

__all__ = ["Moved", "Perm", "moved"]

Perm = tuple[int, ...]

_ELEMENTWISE = frozenset(
    (
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
        *("Gelu", "Mish", "Softplus", "Softsign", "ThresholdedRelu", "Swish", "Abs", "Neg", "Exp", "Log", "Erf"),
        *("Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Identity", "Cast", "Not", "Add", "Sub", "Mul"),
        *("Div", "Pow", "Min", "Max", "Sum", "Mean", "Where", "Equal", "Greater", "Less", "And", "Or"),
    )
)
_REDUCE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare")


@dataclass(frozen=True)
class Moved:
    """``perm`` of the outputs (None: they come out as before), and the attributes and constant inputs to set."""

    perm: Perm | None
    attributes: tuple[ir.Attr, ...] = ()
    constants: dict[int, np.ndarray] = field(default_factory=dict)


def moved(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    """The operator over inputs in another order (those ``carried``, all by ``perm``); None when it cannot be."""
    if is_op(node, *_ELEMENTWISE):
        return _elementwise(node, perm, carried)
    if not is_op(node, *_RULES) or any(
        value is not None and not there and constant(value) is None
        for value, there in zip(node.inputs, carried, strict=True)
    ):
        return None
    return _RULES[node.op_type](node, perm, carried, opset)


def _elementwise(node: ir.Node, perm: Perm, carried: Sequence[bool]) -> Moved | None:
    constants = {}
    for index, (value, there) in enumerate(zip(node.inputs, carried, strict=True)):
        if value is None or there:
            continue
        array = constant(value)
        if array is None:
            if value.shape is None or len(value.shape):
                return None
        elif array.size == 1 and array.ndim <= len(perm):
            continue
        elif array.ndim > len(perm):
            return None
        else:
            constants[index] = _turned(array, perm)
    return Moved(perm, constants=constants)


def _turned(array: np.ndarray, perm: Perm) -> np.ndarray:
    whole = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return whole.transpose(np.argsort(perm))


def _concat(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    arrays = {i: constant(v) for i, (v, there) in enumerate(zip(node.inputs, carried, strict=True)) if not there}
    constants = {i: _turned(array, perm) for i, array in arrays.items() if array is not None}
    return Moved(perm, _axis(node, perm, None), constants)


def _along_axis(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    if not carried[0] or (node.op_type != "Split" and opset < 13):
        return None  # before opset 13, Softmax flattened everything from its axis on
    return Moved(perm, _axis(node, perm, 0 if node.op_type == "Split" else -1))


def _axis(node: ir.Node, perm: Perm, default: int | None) -> tuple[ir.Attr, ...]:
    axis = node.attributes.get_int("axis", default)
    return (ir.AttrInt64("axis", perm[int(axis or 0)]),)


def _pad(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    pads = integers(node, "pads", 1)
    if pads is None:
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = integers(node, "", 3)
        return None if axes is None else Moved(perm, constants={3: _places(axes, perm)})
    turned = np.array(pads, np.int64).reshape(2, -1)[:, np.argsort(perm)].reshape(-1)
    return _list(node, perm, "pads", 1, turned)


def _slice(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    starts, axes = integers(node, "starts", 1), integers(node, "axes", 3)
    if starts is None or (axes is None and len(node.inputs) > 3 and node.inputs[3] is not None):
        return None
    places = _places(list(range(len(starts))) if axes is None else axes, perm)
    like = constant(node.inputs[1]) if opset >= 10 else None  # all of its lists are of one type
    return _list(node, perm, "axes", 3, places if like is None else places.astype(like.dtype), opset >= 10)


def _reduce(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    axes = integers(node, "axes", 1)
    if not axes:
        return None
    after = perm if node.attributes.get_int("keepdims", 1) else _left_over(axes, perm)
    return _list(node, after, "axes", 1, _places(axes, perm))


def _squeeze(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    axes = integers(node, "axes", 1)
    return None if not axes else _list(node, _left_over(axes, perm), "axes", 1, _places(axes, perm))


def _resize(node: ir.Node, perm: Perm, carried: Sequence[bool], opset: int) -> Moved | None:
    if opset < 11 or "axes" in node.attributes:
        return None
    constants = {}
    order = np.argsort(perm)
    for index in range(1, len(node.inputs)):
        array = constant(node.inputs[index])
        if array is not None and array.size:
            constants[index] = array.reshape(-1, len(perm))[:, order].reshape(array.shape)
    return Moved(perm, constants=constants)


def _places(axes: Sequence[int], perm: Perm) -> np.ndarray:
    return np.array([perm[axis] for axis in axes], np.int64)


def _left_over(axes: Sequence[int], perm: Perm) -> Perm | None:
    """Order of the axes that are left when ``axes`` (of the original) are gone; None: as before."""
    gone = {axis % len(perm) for axis in axes}
    left = [place for axis, place in enumerate(perm) if axis not in gone]
    order = tuple(sorted(left).index(place) for place in left)
    return None if order == tuple(range(len(order))) else order


def _list(
    node: ir.Node, perm: Perm | None, name: str, index: int, entries: np.ndarray, as_input: bool | None = None
) -> Moved:
    """Set a list where the node's opset keeps it."""
    inside = name not in node.attributes if as_input is None else as_input
    if inside:
        return Moved(perm, constants={index: entries})
    return Moved(perm, (ir.AttrInt64s(name, [int(entry) for entry in entries]),))


_RULES: dict[str, Callable[[ir.Node, Perm, Sequence[bool], int], Moved | None]] = {
    "Concat": _concat,
    "Split": _along_axis,
    "Softmax": _along_axis,
    "LogSoftmax": _along_axis,
    "Pad": _pad,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Resize": _resize,
    **dict.fromkeys(_REDUCE, _reduce),
}
