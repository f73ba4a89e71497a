"""Activations as one thing, however many nodes an exporter wrote them with.

A *cell* is the smallest stretch of the line, without a convolution, that turns one computed value into another of the
same shape and type: ``Relu``; SiLU as Sigmoid·Mul; HardSwish as Add·Clip·Mul·Div; a GroupNormalization as
Reshape·InstanceNormalization·Reshape.  It is kept whole or removed whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnx_layermerge.graph._line import Line
from onnx_layermerge.graph._operators import (
    ACTIVATIONS,
    JOINS,
    closed_reason,
    computed_inputs,
    dims_of,
    keeps_shape,
    same_shape,
)

__all__ = ["Cell", "find_cells"]

# Longer stretches are no activation; the bound also keeps the search linear.
_MOST_NODES = 64
_NOT_INSIDE = frozenset(("Conv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool", "Resize", "Upsample", "Concat"))

# Only for the eyes of a reader: the usual spellings of activations that older opsets lack.
_SPELLINGS = {
    ("Sigmoid", "Mul"): "SiLU",
    ("HardSigmoid", "Mul"): "HardSwish",
    ("Add", "Clip", "Mul", "Div"): "HardSwish",
    ("Add", "Clip", "Div", "Mul"): "HardSwish",
    ("Softplus", "Tanh", "Mul"): "Mish",
    ("Div", "Erf", "Add", "Mul", "Mul"): "Gelu",
    ("Relu", "Abs", "Sub", "Mul", "Add"): "PRelu",
}


@dataclass(frozen=True)
class Cell:
    """``order[start:stop]`` turns the value ``entry`` into ``exit`` of the same shape and type.

    ``elementwise``: every output element depends on the same element of the entry only.
    """

    start: int
    stop: int
    entry: str
    exit: str
    op_types: tuple[str, ...]
    elementwise: bool

    @property
    def label(self) -> str:
        """A name for a person."""
        return _SPELLINGS.get(self.op_types, "·".join(self.op_types))


def find_cells(network: Line) -> dict[int, Cell]:
    """All cells by the position of their first node; none overlap."""
    found: dict[int, Cell] = {}
    position = 0
    while position < len(network.order):
        cell = _cell_at(network, position)
        if cell is not None:
            found[position] = cell
        position = cell.stop if cell is not None else position + 1
    return found


def _cell_at(network: Line, start: int) -> Cell | None:
    computed = network.computed[start]
    if len(computed) != 1:
        return None
    entry = computed[0]
    if entry.dtype is not None and not entry.dtype.is_floating_point():
        return None  # arithmetic on sizes
    read_at = network.users(entry)
    inside: set[ir.Value] = {entry}
    last_use: dict[ir.Value, int] = {}
    closures: list[int] = []
    end = start
    for position in range(start, min(start + _MOST_NODES, len(network.order))):
        node = network.order[position]
        open_ = node.op_type not in _NOT_INSIDE and closed_reason(network, position) is None
        if not open_ or any(value not in inside for value in network.computed[position]):
            break
        end = position + 1
        for value in node.outputs:
            users = network.users(value)
            inside.add(value)
            if users:
                last_use[value] = users[-1]
        last_use = {value: last for value, last in last_use.items() if last > position}
        out = node.outputs[0]
        # A comparison keeps the shape, but what it ends in are truth values.
        same_type = out.dtype is None or out.dtype == entry.dtype
        if list(last_use) == [out] and same_type and _of_shape(entry, out):
            closures.append(end)
            if read_at[-1] <= position:
                break
    # A stretch that ends before its own entry is read for the last time is only part of the function.
    stops = [stop for stop in closures if not any(stop <= user < end for user in read_at)]
    if not stops:
        return None
    return _cell(network, start, _with_scale(network, start, stops[0]), entry)


def _of_shape(entry: ir.Value, out: ir.Value) -> bool:
    """Known to be of the entry's shape: both are written down, or nothing on the way could change it."""
    if same_shape(entry, out):
        return True
    kept, waiting = {entry}, [out]
    while waiting:
        value = waiting.pop()
        if value in kept:
            continue
        node = value.producer()
        if node is None:
            return False
        if not keeps_shape(node):
            constants = [dims_of(v) for v in node.inputs if v is not None and v.const_value is not None]
            if node.op_type not in JOINS or any(prod(dims) != 1 for dims in constants):
                return False
        kept.add(value)
        waiting += computed_inputs(node)
    return True


def _with_scale(network: Line, start: int, stop: int) -> int:
    """x·clip(x + 3)/6 and ½·x·(1 + erf(…)): the number behind belongs to the function."""
    while stop - start > 1 and stop < len(network.order):
        node, value = network.order[stop], network.order[stop - 1].outputs[0]
        scale = node.op_type in ("Mul", "Div") and computed_inputs(node) == [value] and keeps_shape(node)
        numbers = [dims_of(v) for v in node.inputs if v is not None and v.const_value is not None]
        if not scale or network.users(value) != [stop] or any(prod(dims) != 1 for dims in numbers):
            break
        stop += 1
    return stop


def _cell(network: Line, start: int, stop: int, entry: ir.Value) -> Cell:
    nodes = network.order[start:stop]
    elementwise = all(
        node.op_type == "BatchNormalization"
        or (len(node.outputs) == 1 and node.op_type in JOINS | ACTIVATIONS)
        for node in nodes
    )
    exit = str(nodes[-1].outputs[0].name)
    return Cell(start, stop, str(entry.name), exit, tuple(node.op_type for node in nodes), elementwise)
