"""Where a candidate's output is judged: behind the skip-add and in front of the activation that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates._candidate import Candidate
from onnx_layermerge.graph import Network, cell_after, computed_inputs

__all__ = ["Site", "site_of"]


@dataclass(frozen=True)
class Site:
    """Value names around a replacement convolution.

    ``value`` = convolution + ``skip`` (None: nothing is added) is what the original had there; below ``low`` and above
    ``high`` the activation behind it is flat (−∞, ∞ where it is not, or none follows).
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
    if cell is not None and (gated := _gate(network.order[cell.start : cell.stop])) is not None:
        return Site(region.entry, region.exit, value, skip, *gated)
    # Bounds may come one by one: ReLU6 as Max and Min.
    while cell is not None and cell.stop - cell.start == 1:
        lower, upper = _bounds(network.order[cell.start])
        if lower == -np.inf and upper == np.inf:
            break
        low, high = max(low, lower), min(high, upper)
        cell = cell_after(network, network.values[cell.exit])
    return Site(region.entry, region.exit, value, skip, low, high)


def _gate(nodes: Sequence[ir.Node]) -> tuple[float, float] | None:
    """Where HardSwish = x · HardSigmoid(x), in the usual spellings, and HardSigmoid are flat; None for others.

    HardSigmoid(x) = clip(α·x + β, 0, 1), flat below −β/α and above (1 − β)/α.
    """
    kinds, first = tuple(node.op_type for node in nodes), nodes[0]
    if kinds == ("HardSwish",):
        return -3.0, np.inf
    if kinds in (("HardSigmoid",), ("HardSigmoid", "Mul")):
        alpha, beta = first.attributes.get_float("alpha", 0.2), first.attributes.get_float("beta", 0.5)
        if alpha <= 0 or (len(nodes) == 2 and len(computed_inputs(nodes[1])) < 2):
            return None
        return -beta / alpha, np.inf if len(nodes) == 2 else (1 - beta) / alpha
    if kinds not in (("Add", "Clip", "Mul", "Div"), ("Add", "Clip", "Div", "Mul")):
        return None
    shift = [v.const_value.numpy() for v in first.inputs if v is not None and v.const_value is not None]
    product, quotient = sorted(nodes[2:], key=lambda node: node.op_type, reverse=True)
    divisor = quotient.inputs[1]
    gated = len(computed_inputs(product)) == 2 and divisor is not None and divisor.const_value is not None
    if not gated or len(shift) != 1 or shift[0].size != 1:
        return None
    return (-float(shift[0].item()), np.inf) if _bounds(nodes[1])[0] == 0 else None


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
