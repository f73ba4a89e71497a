"""Where a candidate's output is judged: behind the skip-add and in front of the activation that follow it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates._candidate import Candidate
from onnx_layermerge.graph import Network, cell_after

__all__ = ["Site", "site_of"]


@dataclass(frozen=True)
class Site:
    """Value names around a replacement convolution.

    ``value`` = convolution + ``skip`` (None: nothing is added) is what the original had there; ``low``, ``high`` bound
    the Relu or Clip behind it (−∞, ∞ when none follows).
    """

    entry: str
    exit: str
    value: str
    skip: str | None
    low: float
    high: float


def site_of(network: Network, candidate: Candidate) -> Site:
    """The site of a fitted or merged convolution."""
    region = candidate.region
    value, skip = region.exit, None
    users = network.users(network.values[value])
    if len(users) == 1 and users[0] < len(network.order):
        node = network.order[users[0]]
        others = [v for v in node.inputs if v is not None and v.name != value and v.const_value is None]
        if node.op_type == "Add" and len(others) == 1 and _same_rank(network.values[value], others[0]):
            value, skip = str(node.outputs[0].name), str(others[0].name)
    cell = cell_after(network, network.values[value])
    low, high = -np.inf, np.inf
    # Bounds may come one by one: ReLU6 as Max and Min.
    while cell is not None and cell.stop - cell.start == 1:
        lower, upper = _bounds(network.order[cell.start])
        if lower == -np.inf and upper == np.inf:
            break
        low, high = max(low, lower), min(high, upper)
        cell = cell_after(network, network.values[cell.exit])
    return Site(region.entry, region.exit, value, skip, low, high)


def _same_rank(left: ir.Value, right: ir.Value) -> bool:
    return left.shape is None or right.shape is None or len(left.shape) == len(right.shape)


def _bounds(node: ir.Node) -> tuple[float, float]:
    """Interval outside of which the activation is flat."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type in ("Max", "Min"):
        numbers = [v.const_value.numpy() for v in node.inputs if v is not None and v.const_value is not None]
        if not numbers or any(number.size != 1 for number in numbers):
            return -np.inf, np.inf
        one = [float(number.item()) for number in numbers]
        return (max(one), np.inf) if node.op_type == "Max" else (-np.inf, min(one))
    if node.op_type != "Clip":
        return -np.inf, np.inf
    bounds = [-np.inf, np.inf]
    for index, name in enumerate(("min", "max")):
        if name in node.attributes:
            bounds[index] = node.attributes[name].as_float()
        elif len(node.inputs) > index + 1 and (value := node.inputs[index + 1]) is not None:
            tensor = ir.convenience.get_const_tensor(value)
            if tensor is None:
                return -np.inf, np.inf
            bounds[index] = float(tensor.numpy().item())
    return bounds[0], bounds[1]
