"""Unmerged: the nodes that a merge is the sum of, so that each of its convolutions can be trained on its own.

The merged convolution reads zeros around its entry, and nothing is cut off inside the block.  So one Pad puts the whole
padding in front of the block, and the convolutions behind it have none.  A value inside then reaches beyond the border
of what it stands for, by a positions in front and b behind.  A convolution of kernel k, stride s and pads p, q reads

    s·t + u − p,    0 ≤ u < k,

so with the first (a − p) mod s and the last (b − q) mod s positions cut off, it gives out what it stands for with

    a' = ⌊(a − p) / s⌋,    b' = ⌊(b − q) / s⌋

more.  Branches that meet are cut to the smaller a and b; an activation, or a convolution that is not kept, is left out.
With a, b = the merged convolution's own pads at the entry every difference is at least 0, and 0 is what is left at the
exit: both follow from how series and parallel kernels put their pads together (``merge/_geometry.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates._candidate import Candidate
from onnx_layermerge.candidates._compose import Walk
from onnx_layermerge.candidates._space import geometry_of, window_of
from onnx_layermerge.graph import Network, Pool
from onnx_layermerge.merge import Geometry

__all__ = ["Separate", "separate"]

# From these on what an operator does is told by inputs instead of attributes.
_PAD_BY_INPUTS, _SLICE_BY_INPUTS = 11, 10
_WINDOW = ("kernel_shape", "strides", "dilations", "ceil_mode")


@dataclass(frozen=True, eq=False)
class Separate:
    """Append-ready ``nodes`` and their last ``value``; ``sources`` names for each of the graph's initializers that they
    read the network's own."""

    nodes: tuple[ir.Node, ...]
    value: ir.Value
    sources: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Wide:
    """A value in the graph, and how many positions it has beyond what it stands for, in front and behind."""

    value: ir.Value
    begin: tuple[int, ...]
    end: tuple[int, ...]


def separate(network: Network, candidate: Candidate, graph: ir.Graph, source: ir.Value, name: str) -> Separate:
    """The nodes of a merge that is not merged, reading ``source``, not yet placed in ``graph``.

    Weights become initializers of ``graph`` under the names that they have in the network, or are those initializers
    where they are there with the same numbers.  ``name`` is what the nodes are called after.

    Raises:
        ValueError: the candidate is no merge, or the algebra has no rule for a node inside.
    """
    if candidate.recipe != "merge":
        raise ValueError(f"{candidate.key} is no merge")
    geometry = candidate.stage.geometry
    made = _Nodes(network, graph, name)
    start = made.padded(source, geometry)
    found = Walk(network, candidate.region, candidate.keep, made).result(start, candidate.stage.channels_in)
    if found is None:
        raise ValueError(f"no rule for a node between {candidate.region.entry} and {candidate.region.exit}")
    value = made.cut(found[0], (0,) * geometry.ndim, (0,) * geometry.ndim).value
    if value is source:  # nothing is left but a name
        value = made.node("Identity", [source])
    return Separate(tuple(made.nodes), value, made.sources)


@dataclass(eq=False)
class _Nodes:
    """The algebra of ``Walk`` that writes nodes down."""

    network: Network
    graph: ir.Graph
    name: str
    nodes: list[ir.Node] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def conv(self, value: _Wide, position: int) -> _Wide:
        conv, given = self.network.convs[position], self.network.order[position]
        constants = [self._weight(each) for each in given.inputs[1:] if each is not None]
        rank = len(conv.kernel)
        attributes = {
            "kernel_shape": list(conv.kernel),
            "strides": list(conv.stride),
            "dilations": list(conv.dilation),
            "pads": [0] * (2 * rank),
            "group": conv.groups,
        }
        trimmed, begin, end = self._ahead_of(value, geometry_of(conv))
        return _Wide(self.node("Conv", [trimmed, *constants], attributes, str(given.name)), begin, end)

    def removed(self, value: _Wide, what: str) -> _Wide:
        return value

    def scale(self, value: _Wide, scale: np.ndarray, shift: np.ndarray, position: int) -> _Wide:
        given = self.network.order[position]
        if given.op_type == "Identity":
            return value
        inputs = [
            None if each is None else value.value if each.const_value is None else self._weight(each)
            for each in given.inputs
        ]
        attributes = {key: attribute.value for key, attribute in given.attributes.items()}
        made = self.node(given.op_type, inputs, attributes, str(given.name))
        return _Wide(made, value.begin, value.end)

    def average(self, value: _Wide, pool: Pool, channels: int, position: int) -> _Wide:
        given = self.network.order[position]
        attributes = {key: given.attributes[key].value for key in _WINDOW if key in given.attributes}
        trimmed, begin, end = self._ahead_of(value, window_of(pool))
        return _Wide(self.node("AveragePool", [trimmed], attributes, str(given.name)), begin, end)

    def plus(self, one: _Wide, two: _Wide) -> _Wide:
        one, two = self._level(one, two)
        return _Wide(self.node("Add", [one.value, two.value]), one.begin, one.end)

    def beside(self, one: _Wide, two: _Wide) -> _Wide:
        one, two = self._level(one, two)
        return _Wide(self.node("Concat", [one.value, two.value], {"axis": 1}), one.begin, one.end)

    def padded(self, source: ir.Value, geometry: Geometry) -> _Wide:
        """``source`` with the padding of the whole block around it."""
        begin, end = geometry.pad_begin, geometry.pad_end
        if not any(begin + end):
            return _Wide(source, begin, end)
        pads = [0, 0, *begin, 0, 0, *end]
        if self._opset >= _PAD_BY_INPUTS:
            value = self.node("Pad", [source, self._numbers("pads", pads)])
        else:
            value = self.node("Pad", [source], {"pads": pads})
        return _Wide(value, begin, end)

    def cut(self, value: _Wide, begin: Sequence[int], end: Sequence[int]) -> _Wide:
        """``value`` with no more than ``begin`` and ``end`` positions beyond the border.

        Raises:
            ValueError: it has fewer.
        """
        front = [have - want for have, want in zip(value.begin, begin, strict=True)]
        back = [have - want for have, want in zip(value.end, end, strict=True)]
        if min((*front, *back)) < 0:
            raise ValueError(f"a value of {self.name} does not reach far enough beyond the border")
        if not any((*front, *back)):
            return value
        axes = [axis for axis, sizes in enumerate(zip(front, back, strict=True)) if any(sizes)]
        starts = [front[axis] for axis in axes]
        ends = [-back[axis] or np.iinfo(np.int64).max for axis in axes]
        words = {"starts": starts, "ends": [int(stop) for stop in ends], "axes": [axis + 2 for axis in axes]}
        if self._opset >= _SLICE_BY_INPUTS:
            made = self.node("Slice", [value.value, *(self._numbers(word, given) for word, given in words.items())])
        else:
            made = self.node("Slice", [value.value], words)
        return _Wide(made, tuple(begin), tuple(end))

    def _ahead_of(self, value: _Wide, window: Geometry) -> tuple[ir.Value, tuple[int, ...], tuple[int, ...]]:
        """``value`` as ``window`` is to read it without padding, and how far beyond the border its result reaches."""
        dims = range(window.ndim)
        begin = tuple((value.begin[d] - window.pad_begin[d]) // window.stride[d] for d in dims)
        end = tuple((value.end[d] - window.pad_end[d]) // window.stride[d] for d in dims)
        wanted = [
            tuple(pads[d] + window.stride[d] * more[d] for d in dims)
            for pads, more in ((window.pad_begin, begin), (window.pad_end, end))
        ]
        return self.cut(value, *wanted).value, begin, end

    def _level(self, one: _Wide, two: _Wide) -> tuple[_Wide, _Wide]:
        begin, end = tuple(map(min, one.begin, two.begin)), tuple(map(min, one.end, two.end))
        return self.cut(one, begin, end), self.cut(two, begin, end)

    @property
    def _opset(self) -> int:
        return self.graph.opset_imports.get("", 1)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object] | None = None,
        label: str = "",
    ) -> ir.Value:
        """The first value of one more node; ``label`` is what its like in the network is called."""
        name = f"{self.name}.{label or op_type}.{len(self.nodes)}"
        node = ir.node(op_type, inputs, attributes=dict(attributes or {}), name=name)  # type: ignore[arg-type]
        self.nodes.append(node)
        return node.outputs[0]

    def _numbers(self, what: str, numbers: Sequence[int]) -> ir.Value:
        return self._registered(f"{self.name}.{what}.{len(self.nodes)}", np.array(numbers, np.int64))

    def _weight(self, given: ir.Value) -> ir.Value:
        """The network's constant as an initializer of the graph."""
        tensor = ir.convenience.get_const_tensor(given)
        if tensor is None:
            raise ValueError(f"'{given.name}' is computed at run time")
        name = str(given.name)
        held = self._held(name, tensor) or self._registered(name, tensor)
        self.sources[str(held.name)] = name
        return held

    def _held(self, name: str, tensor: ir.TensorProtocol) -> ir.Value | None:
        """The graph's own, or the copy that another merge made: what merges share has to stay one for the training."""
        first = name
        while (found := self.graph.initializers.get(name)) is not None:
            theirs = name != first and name in self.network.model.graph.initializers
            if not theirs and _equal(found.const_value, tensor):
                return found
            name += "'"
        return None

    def _registered(self, name: str, tensor: np.ndarray | ir.TensorProtocol) -> ir.Value:
        while name in self.graph.initializers:
            name += "'"
        const = ir.tensor(tensor, name=name) if isinstance(tensor, np.ndarray) else tensor
        value = ir.Value(name=name, const_value=const, type=ir.TensorType(const.dtype))
        value.shape = ir.Shape(const.numpy().shape)
        self.graph.register_initializer(value)
        return value


def _equal(one: ir.TensorProtocol | None, two: ir.TensorProtocol) -> bool:
    if one is None or one.dtype != two.dtype or tuple(one.shape) != tuple(two.shape):
        return False
    return one is two or one.numpy().tobytes() == two.numpy().tobytes()
