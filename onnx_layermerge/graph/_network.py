"""The frozen picture of a model that every later room works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnx_layermerge.graph._cells import Cell, find_cells
from onnx_layermerge.graph._operators import computed_inputs

if TYPE_CHECKING:
    from onnx_layermerge.graph._bfloat16 import Widened
    from onnx_layermerge.graph._convs import Conv

__all__ = ["Chain", "InputInfo", "Layer", "Network", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """Why a node (or a stretch that ends at it) is left alone."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class InputInfo:
    """A model input; ``shape`` holds ints, symbolic names, or None; axis 0 counts samples."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Layer:
    """A convolution with what follows it at once: the paper's σ∘f, skip-add included."""

    node: str
    position: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    channels_in: int
    channels_out: int
    activation: str
    skip_add: bool


@dataclass(frozen=True)
class Chain:
    """Layers that hang together without a barrier between them."""

    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """A model whose nodes lie on a line: a region of the graph that has one way in and one way out is an interval.

    ``order`` is a depth-first topological order, so the nodes of a branch are neighbours; ``position`` inverts it.
    """

    model: ir.Model
    order: tuple[ir.Node, ...]
    inputs: tuple[InputInfo, ...]
    outputs: tuple[str, ...]
    steps: tuple[str, ...] = ()
    source: str = ""
    digest: str = ""
    convs: dict[int, Conv] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    widened: Widened | None = None

    @cached_property
    def position(self) -> dict[ir.Node, int]:
        return {node: index for index, node in enumerate(self.order)}

    @cached_property
    def values(self) -> dict[str, ir.Value]:
        """Every named value of the main graph."""
        return dict(ir.convenience.create_value_mapping(self.model.graph, include_subgraphs=False))

    @cached_property
    def cells(self) -> dict[int, Cell]:
        """Activations and norms by the position of their first node."""
        return find_cells(self)

    @cached_property
    def in_cells(self) -> dict[int, Cell]:
        """The cell that each of its nodes belongs to."""
        return {position: cell for cell in self.cells.values() for position in range(cell.start, cell.stop)}

    @cached_property
    def remembered(self) -> dict[object, Any]:
        """What was worked out about the network once, by a key that only the function that did it uses."""
        return {}

    @cached_property
    def computed(self) -> tuple[list[ir.Value], ...]:
        """What each node of ``order`` reads that is not constant, each value once."""
        return tuple(computed_inputs(node) for node in self.order)

    @cached_property
    def _users(self) -> dict[ir.Value, list[int]]:
        return {}

    def users(self, value: ir.Value) -> list[int]:
        """Positions that read ``value``; len(order) stands for the graph's output and for nested graphs."""
        known = self._users.get(value)
        if known is None:
            outside = len(self.order)
            found = {self.position.get(use.node, outside) for use in value.uses()}
            if value.is_graph_output():
                found.add(outside)
            known = self._users[value] = sorted(found)
        return known

    def live_at(self, stop: int) -> list[str]:
        """Names of the computed values that nodes at ``stop`` or later still read, in order of appearance."""
        live = []
        for node in self.order[:stop]:
            for value in node.outputs:
                if any(user >= stop for user in self.users(value)):
                    live.append(str(value.name))
        return live

    def cost_macs(self, start: int, stop: int, shapes: dict[str, tuple[int, ...]]) -> int:
        """Multiply-accumulates of the convolutions in ``order[start:stop]`` for the traced ``shapes``."""
        total = 0
        for index in range(start, stop):
            if index in self.convs:
                shape = shapes[str(self.order[index].outputs[0].name)]
                total += int(np.prod(shape[2:])) * shape[0] * int(self.convs[index].weight.size)
        return total
