"""A Conv node ↔ plain arrays: the one place that knows the operator's attributes and their defaults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["Conv", "conv_of", "conv_value"]


@dataclass(frozen=True, eq=False)
class Conv:
    """One convolution as arrays.

    ``weight`` is [C_out, C_in/groups, *kernel], ``bias`` [C_out] or None, both in the model's dtype;
    ``pads`` in ONNX order (all begins, then all ends).
    """

    weight: np.ndarray
    bias: np.ndarray | None
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int

    @property
    def channels_in(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    @property
    def channels_out(self) -> int:
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.weight.shape[2:])


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return tuple(attribute.as_ints()) if attribute is not None else default


def conv_of(node: ir.Node) -> Conv | str:
    """The arrays of a Conv node, or the reason why it has to stay as it is."""
    weight = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    if weight is None:
        return "its weights are computed at run time"
    array = weight.numpy()
    if array.dtype not in (np.float32, np.float64, np.float16):
        return f"weights of type {array.dtype} are not supported"
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        tensor = ir.convenience.get_const_tensor(node.inputs[2])
        if tensor is None:
            return "its bias is computed at run time"
        bias = tensor.numpy()
    rank = array.ndim - 2
    auto_pad = node.attributes.get("auto_pad")
    mode = auto_pad.as_string() if auto_pad is not None else "NOTSET"
    if mode.startswith("SAME"):
        return "auto_pad SAME over an input of unknown size"
    pads = (0,) * (2 * rank) if mode == "VALID" else _ints(node, "pads", (0,) * (2 * rank))
    group = node.attributes.get("group")
    return Conv(
        weight=array,
        bias=bias,
        stride=_ints(node, "strides", (1,) * rank),
        dilation=_ints(node, "dilations", (1,) * rank),
        pads=pads,
        groups=group.as_int() if group is not None else 1,
    )


def conv_value(graph: ir.Graph, source: ir.Value, conv: Conv, name: str) -> tuple[ir.Node, ir.Value]:
    """Append-ready Conv node reading ``source``; its weights become initializers ``name.weight`` / ``name.bias``."""
    inputs = [source]
    for suffix, array in (("weight", conv.weight), ("bias", conv.bias)):
        if array is None:
            continue
        label = f"{name}.{suffix}"
        value = ir.Value(name=label, const_value=ir.tensor(np.ascontiguousarray(array), name=label))
        value.type = ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
        value.shape = ir.Shape(array.shape)
        graph.register_initializer(value)
        inputs.append(value)
    node = ir.node(
        "Conv",
        inputs,
        attributes={
            "kernel_shape": list(conv.kernel),
            "strides": list(conv.stride),
            "dilations": list(conv.dilation),
            "pads": list(conv.pads),
            "group": conv.groups,
        },
        name=name,
    )
    return node, node.outputs[0]
