"""Pooling nodes and constant scales as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._operators import computed_inputs

__all__ = ["Pool", "pool_of", "scale_of"]


@dataclass(frozen=True)
class Pool:
    """A window that slides over the image; ``mean`` when it averages over all taps alike, padding included."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    mean: bool


def pool_of(node: ir.Node) -> Pool | None:
    """The window of a MaxPool, AveragePool or LpPool; None where its grid depends on the input's size."""
    if node.op_type not in ("MaxPool", "AveragePool", "LpPool"):
        return None
    attributes = node.attributes
    if "ceil_mode" in attributes and attributes["ceil_mode"].as_int():
        return None
    if "auto_pad" in attributes and attributes["auto_pad"].as_string() not in ("NOTSET", "VALID"):
        return None
    kernel = tuple(attributes["kernel_shape"].as_ints())
    ones = (1,) * len(kernel)
    stride = tuple(attributes["strides"].as_ints()) if "strides" in attributes else ones
    dilation = tuple(attributes["dilations"].as_ints()) if "dilations" in attributes else ones
    pads = tuple(attributes["pads"].as_ints()) if "pads" in attributes else (0,) * (2 * len(kernel))
    counted = "count_include_pad" in attributes and bool(attributes["count_include_pad"].as_int())
    return Pool(kernel, stride, dilation, pads, node.op_type == "AveragePool" and (counted or not any(pads)))


def scale_of(node: ir.Node, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(a, c) [channels] in float64 when the node computes a·x + c per channel with constants; else None."""
    computed = computed_inputs(node)
    if len(computed) != 1 or computed[0].shape is None:
        return None
    rank = len(computed[0].shape)
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "BatchNormalization":
        if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
            return None  # statistics of the batch, not the constants
        given = [value.const_value.numpy().astype(np.float64) for value in node.inputs[1:5] if _constant(value)]  # type: ignore[union-attr]
        if len(given) != 4 or any(array.shape != (channels,) for array in given):
            return None
        gamma, beta, mean, variance = given
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale
    if node.op_type == "Identity":
        return ones, zeros
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is computed[0]
    other = node.inputs[1 if first else 0]
    if not _constant(other):
        return None
    number = _per_channel(other.const_value.numpy(), rank, channels)  # type: ignore[union-attr]
    if number is None:
        return None
    if node.op_type == "Add":
        return ones, number
    if node.op_type == "Sub":
        return (ones, -number) if first else (-ones, number)
    if node.op_type == "Mul":
        return number, zeros
    return (1.0 / number, zeros) if first and np.all(number) else None


def _constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _per_channel(array: np.ndarray, rank: int, channels: int) -> np.ndarray | None:
    """[channels] in float64 when the constant broadcasts along all axes but the channels'."""
    if array.size == 1 and array.ndim <= rank:
        return np.full(channels, float(array.reshape(())))
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or shape[1] != channels or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return array.reshape(-1).astype(np.float64)
