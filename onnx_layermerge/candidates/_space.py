"""What a region does to channels and space, or why it is not a convolution-like map.

Every value inside is followed as one of three: on a *grid*, with the geometry of entry → value; *whole*, computed from
the whole image and without a grid of its own (what a squeeze-excite multiplies with); or *loose*, rearranged in a way
that is not followed.  A loose value is on a grid again where its static size is that of a grid met before in the same
region: an attention or a GroupNormalization that reshapes and reshapes back, a U-Net's inner level that comes back up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import onnx_ir as ir

from onnx_layermerge.graph import JOINS, Conv, Network, Pool, Region, keeps_shape, pool_of, scale_of
from onnx_layermerge.merge import Geometry

__all__ = ["Follower", "Space", "geometry_of", "space_of", "window_of"]

_WHOLE = frozenset(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
_REDUCE = frozenset(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2"))


@dataclass(frozen=True)
class Space:
    """C_in, C_out and the geometry of entry → exit; ``channelwise`` when every convolution inside is depthwise;
    ``linear`` when algebra can follow all that lies inside: convolutions, sums, scales, averages, concatenations."""

    channels_in: int
    channels_out: int
    geometry: Geometry
    channelwise: bool
    linear: bool


class _Grid(NamedTuple):  # made at every step, which a tuple is quick at
    geometry: Geometry
    channels: int


_State = _Grid | Literal["whole", "loose"]
_Size = tuple[int | str, ...]


def geometry_of(conv: Conv) -> Geometry:
    """A convolution's geometry, dilation expanded into the kernel."""
    return _expanded(conv.kernel, conv.stride, conv.dilation, conv.pads)


def window_of(pool: Pool) -> Geometry:
    """A pool's geometry, dilation expanded."""
    return _expanded(pool.kernel, pool.stride, pool.dilation, pool.pads)


# A network repeats the same few geometries.
@lru_cache(maxsize=4096)
def _expanded(
    kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], pads: tuple[int, ...]
) -> Geometry:
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    return Geometry(reach, stride, pads[: len(kernel)], pads[len(kernel) :])


@lru_cache(maxsize=4096)
def _then(first: Geometry, second: Geometry | None) -> Geometry:
    return first if second is None else first.then(second)


@lru_cache(maxsize=4096)
def _union(one: Geometry, two: Geometry) -> Geometry:
    return one.union(two)


def space_of(network: Network, region: Region) -> Space | str:
    """Follow the geometry through the region; a string is the reason for refusing it."""
    return Follower(network).space_of(region)


class Follower:
    """Follows region after region; those that only continue the one before cost no more than their new nodes."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._path: _Path | None = None
        # Asked of every node once for each region that begins before it.
        self._nodes: dict[int, _Node] = {}
        self._types: dict[int, ir.DataType] = {}

    def space_of(self, region: Region) -> Space | str:
        """As :func:`space_of`."""
        path = self._path
        if path is None or path.start != region.start or path.position > region.stop or path.entry != region.entry:
            path = self._path = self._begin(region)
        while path.position < region.stop and path.refused is None:
            self._step(path)
        if path.refused is not None:
            return path.refused
        last = path.states[self._network.values[region.exit]]
        if not isinstance(last, _Grid) or last.channels < 1:
            return "does not come back to the image grid"
        entry, exit = self._network.values[region.entry], self._network.values[region.exit]
        if not self._is_of_type(entry, region.convs[0]) or not self._is_of_type(exit, region.convs[0]):
            return "changes the element type"
        return Space(path.channels, last.channels, last.geometry, path.channelwise, path.linear)

    def _is_of_type(self, value: ir.Value, conv: int) -> bool:
        """Whether the value is, or may be, of the type of that convolution's weights."""
        weight = self._types.get(conv)
        if weight is None:
            weight = self._types[conv] = ir.DataType.from_numpy(self._network.convs[conv].weight.dtype)
        return value.dtype is None or value.dtype == weight

    def _begin(self, region: Region) -> _Path:
        entry = self._network.values[region.entry]
        rank = len(self._network.convs[region.convs[0]].kernel)
        channels = _entry_channels(self._network, region, entry)
        path = _Path(region.start, region.entry, rank, channels or 0, region.start)
        if channels is None:
            path.refused = "the width of what it reads is not known"
        path.states[entry] = _Grid(Geometry.identity(rank), path.channels)
        _register(path.grids, _size(entry, rank), Geometry.identity(rank))
        return path

    def _step(self, path: _Path) -> None:
        network, position, rank = self._network, path.position, path.rank
        known = self._nodes.get(position)
        if known is None:
            known = self._nodes[position] = _node(network, position)
        sources = [path.states.get(value, "whole") for value in known.computed]
        found = _after(network, position, known, sources, rank)
        if isinstance(found, str) and found not in ("whole", "loose"):
            path.refused = found
            return
        if known.conv:
            path.channelwise &= known.channelwise
        else:
            path.channelwise &= known.node.op_type != "Concat"
            path.linear &= isinstance(found, _Grid) and known.is_linear(found.channels)
        outputs = known.outputs(rank)
        for value, size, width in outputs:
            state = cast(_State, found)
            if len(outputs) > 1 and isinstance(state, _Grid):
                state = _Grid(state.geometry, width or 0)
            if isinstance(state, _Grid) and width not in (None, state.channels):
                state = "loose"  # a constant or a value without a grid broadcasts it
            if state == "loose" and size is not None and size in path.grids and width:
                state = _Grid(path.grids[size], width)
            if isinstance(state, _Grid):
                _register(path.grids, size, state.geometry)
            path.states[value] = state
        path.position += 1


@dataclass(eq=False)
class _Path:
    """How far a line of regions with one start has been followed."""

    start: int
    entry: str
    rank: int
    channels: int
    position: int
    states: dict[ir.Value, _State] = field(default_factory=dict)
    grids: dict[_Size, Geometry] = field(default_factory=dict)
    channelwise: bool = True
    linear: bool = True
    refused: str | None = None


@dataclass(eq=False)
class _Node:
    """What is asked of a node again and again."""

    node: ir.Node
    conv: bool
    computed: list[ir.Value]
    keeps_shape: bool
    channelwise: bool
    pool: Pool | None
    window: Geometry | None
    behind: dict[int, tuple[Geometry, Geometry]] = field(default_factory=dict)
    made: dict[int, list[tuple[ir.Value, _Size | None, int | None]]] = field(default_factory=dict)
    linear: dict[int, bool] = field(default_factory=dict)

    def after(self, first: Geometry) -> Geometry:
        """``first`` and then the node's own window; by which it is, as a hash of one takes longer than all else."""
        found = self.behind.get(id(first))
        if found is None:
            found = self.behind[id(first)] = first, _then(first, self.window)  # held, so that no other gets its id
        return found[1]

    def is_linear(self, channels: int) -> bool:
        """Whether the algebra has a rule for it (a Split or a broadcast has none)."""
        if channels not in self.linear:
            sums = self.node.op_type in ("Add", "Sum", "Concat") and len(self.computed) > 1
            mean = self.pool is not None and self.pool.mean
            self.linear[channels] = sums or mean or scale_of(self.node, channels) is not None
        return self.linear[channels]

    def outputs(self, rank: int) -> list[tuple[ir.Value, _Size | None, int | None]]:
        """Each with its spatial size, as one of ``rank`` axes, and its width."""
        if rank not in self.made:
            self.made[rank] = [(value, _size(value, rank), _width(value)) for value in self.node.outputs]
        return self.made[rank]


def _node(network: Network, position: int) -> _Node:
    node, conv = network.order[position], network.convs.get(position)
    pool = pool_of(node)
    window = geometry_of(conv) if conv is not None else None if pool is None else window_of(pool)
    alone = conv is not None and conv.groups == conv.channels_in == conv.channels_out
    return _Node(node, conv is not None, network.computed[position], keeps_shape(node), alone, pool, window)


def _register(grids: dict[_Size, Geometry], size: _Size | None, geometry: Geometry) -> None:
    """Of the values of one size the widest view stands for all; images of one pixel are no grid to come back to."""
    if size is None or size == (1,) * len(size):
        return
    known = grids.get(size)
    if known is None:
        grids[size] = geometry
    elif known is not geometry and known != geometry and known.same_grid(geometry):
        grids[size] = _union(known, geometry)


def _after(network: Network, position: int, known: _Node, sources: list[_State], rank: int) -> _State | str:
    """The state of the node's output, or the reason why the region is none."""
    if known.conv:
        return _after_conv(network.convs[position], known, sources[0], rank)
    if not sources:
        return "loose"
    if len(sources) == 1 and isinstance(sources[0], _Grid):
        return _after_one(known, sources[0], rank)
    grids = [source for source in sources if isinstance(source, _Grid)]
    if not grids:
        return "whole" if "loose" not in sources else "loose"
    if "loose" in sources:
        return "loose"
    node = known.node
    if node.op_type in JOINS:
        return _joined(node, grids)
    whole = len(grids) == len(sources) == sum(value is not None for value in node.inputs)
    if node.op_type != "Concat" or not whole or node.attributes["axis"].as_int() not in (1, -1 - rank):
        return "loose"
    geometry = grids[0].geometry
    for grid in grids[1:]:
        if not geometry.same_grid(grid.geometry):
            return "joins branches that lie on different grids"
        geometry = _union(geometry, grid.geometry)
    return _Grid(geometry, sum(grid.channels for grid in grids))


def _after_conv(conv: Conv, known: _Node, source: _State, rank: int) -> _State | str:
    if len(conv.kernel) != rank:
        return "changes the number of spatial dimensions"
    if not isinstance(source, _Grid):
        return source
    if source.channels != conv.channels_in:
        return f"reads {conv.channels_in} channels where {source.channels} arrive"
    return _Grid(known.after(source.geometry), conv.channels_out)


def _after_one(known: _Node, source: _Grid, rank: int) -> _State:
    if known.keeps_shape:
        return source
    node, pool = known.node, known.pool
    if node.op_type in _WHOLE:
        return "whole"
    if pool is not None and len(pool.kernel) == rank:
        return _Grid(known.after(source.geometry), source.channels)
    if node.op_type in _REDUCE and known.outputs(rank)[0][1] == (1,) * rank:
        return "whole"
    if node.op_type == "Split" and "axis" in node.attributes and node.attributes["axis"].as_int() in (1, -1 - rank):
        return source
    return "loose"


def _joined(node: ir.Node, grids: list[_Grid]) -> _State | str:
    """Elementwise, values without a grid broadcast over the others."""
    geometry, channels = grids[0].geometry, grids[0].channels
    for grid in grids[1:]:
        if grid.channels != channels:
            return f"{_verb(node)} values of different widths (broadcast)"
        if not geometry.same_grid(grid.geometry):
            return f"{_verb(node)} branches that lie on different grids"
        geometry = _union(geometry, grid.geometry)
    return _Grid(geometry, channels)


def _verb(node: ir.Node) -> str:
    return "adds" if node.op_type in ("Add", "Sum") else "joins"


def _entry_channels(network: Network, region: Region, entry: ir.Value) -> int | None:
    for position in region.convs:
        if network.order[position].inputs[0] is entry:
            return network.convs[position].channels_in
    width = _width(entry)
    if width is None and all(keeps_shape(node) for node in network.order[region.start : region.convs[0]]):
        return network.convs[region.convs[0]].channels_in
    return width


def _width(value: ir.Value) -> int | None:
    if value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return None
    return value.shape[1]


def _size(value: ir.Value, rank: int) -> _Size | None:
    """Spatial sizes, numbers or names, when all are known."""
    if value.shape is None or len(value.shape) != rank + 2:
        return None
    dims = [dim if isinstance(dim, int) else dim.value for dim in list(value.shape)[2:]]
    return None if None in dims else tuple(dims)  # type: ignore[arg-type]
