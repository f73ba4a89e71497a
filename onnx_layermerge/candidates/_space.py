"""What a region does to channels and space, or why it is not a convolution-like map.

Every value inside is followed as one of three: on a *grid*, with the geometry of entry → value; *whole*, computed from
the whole image and without a grid of its own (what a squeeze-excite multiplies with); or *loose*, rearranged in a way
that is not followed.  A loose value is on a grid again where its static size is that of a grid met before in the same
region: an attention or a GroupNormalization that reshapes and reshapes back, a U-Net's inner level that comes back up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import onnx_ir as ir

from onnx_layermerge.graph import JOINS, Conv, Network, Region, computed_inputs, keeps_shape, pool_of, scale_of
from onnx_layermerge.merge import Geometry

__all__ = ["Space", "geometry_of", "space_of"]

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


@dataclass(frozen=True)
class _Grid:
    geometry: Geometry
    channels: int


_State = _Grid | Literal["whole", "loose"]
_Size = tuple[int | str, ...]


def geometry_of(conv: Conv) -> Geometry:
    """A convolution's geometry, dilation expanded into the kernel."""
    rank = len(conv.kernel)
    kernel = tuple(d * (k - 1) + 1 for k, d in zip(conv.kernel, conv.dilation, strict=True))
    return Geometry(kernel, conv.stride, conv.pads[:rank], conv.pads[rank:])


def space_of(network: Network, region: Region) -> Space | str:
    """Follow the geometry through the region; a string is the reason for refusing it."""
    rank = len(network.convs[region.convs[0]].kernel)
    entry = network.values[region.entry]
    channels = _entry_channels(network, region, entry)
    if channels is None:
        return "the width of what it reads is not known"
    states: dict[ir.Value, _State] = {entry: _Grid(Geometry.identity(rank), channels)}
    grids: dict[_Size, Geometry] = {}
    _register(grids, entry, Geometry.identity(rank), rank)
    channelwise, linear = True, True
    for position in range(region.start, region.stop):
        node = network.order[position]
        sources = [states.get(value, "whole") for value in computed_inputs(node)]
        found = _after(network, position, node, sources, rank)
        if isinstance(found, str) and found not in ("whole", "loose"):
            return found
        if position in network.convs:
            conv = network.convs[position]
            channelwise &= conv.groups == conv.channels_in == conv.channels_out
        else:
            channelwise &= node.op_type != "Concat"
            linear &= isinstance(found, _Grid) and _is_linear(node, found.channels)
        for value in node.outputs:
            state = cast(_State, found)
            if len(node.outputs) > 1 and isinstance(state, _Grid):
                state = _Grid(state.geometry, _width(value) or 0)
            size, width = _size(value, rank), _width(value)
            if state == "loose" and size is not None and size in grids and width:
                state = _Grid(grids[size], width)
            if isinstance(state, _Grid):
                _register(grids, value, state.geometry, rank)
            states[value] = state
    last = states[network.values[region.exit]]
    if not isinstance(last, _Grid) or last.channels < 1:
        return "does not come back to the image grid"
    return Space(channels, last.channels, last.geometry, channelwise, linear)


def _register(grids: dict[_Size, Geometry], value: ir.Value, geometry: Geometry, rank: int) -> None:
    """Of the values of one size the widest view stands for all; images of one pixel are no grid to come back to."""
    size = _size(value, rank)
    if size is not None and size != (1,) * rank:
        known = grids.get(size, geometry)
        grids[size] = known.union(geometry) if known.same_grid(geometry) else known


def _after(network: Network, position: int, node: ir.Node, sources: list[_State], rank: int) -> _State | str:
    """The state of the node's output, or the reason why the region is none."""
    if position in network.convs:
        return _after_conv(network.convs[position], sources[0], rank)
    if not sources:
        return "loose"
    grids = [source for source in sources if isinstance(source, _Grid)]
    if all(source == "whole" for source in sources):
        return "whole"
    if len(sources) == 1 and grids:
        return _after_one(node, grids[0], rank)
    if not grids or "loose" in sources:
        return "loose"
    if node.op_type in JOINS:
        return _joined(node, grids)
    if node.op_type == "Concat" and len(grids) == len(sources) and node.attributes["axis"].as_int() in (1, -1 - rank):
        if len(grids) != len([value for value in node.inputs if value is not None]):
            return "loose"
        geometry = grids[0].geometry
        for grid in grids[1:]:
            if not geometry.same_grid(grid.geometry):
                return "joins branches that lie on different grids"
            geometry = geometry.union(grid.geometry)
        return _Grid(geometry, sum(grid.channels for grid in grids))
    return "loose"


def _after_conv(conv: Conv, source: _State, rank: int) -> _State | str:
    if len(conv.kernel) != rank:
        return "changes the number of spatial dimensions"
    if not isinstance(source, _Grid):
        return source
    if source.channels != conv.channels_in:
        return f"reads {conv.channels_in} channels where {source.channels} arrive"
    return _Grid(source.geometry.then(geometry_of(conv)), conv.channels_out)


def _after_one(node: ir.Node, source: _Grid, rank: int) -> _State:
    if keeps_shape(node):
        return source
    if node.op_type in _WHOLE:
        return "whole"
    pool = pool_of(node)
    if pool is not None and len(pool.kernel) == rank:
        kernel = tuple(d * (k - 1) + 1 for k, d in zip(pool.kernel, pool.dilation, strict=True))
        return _Grid(
            source.geometry.then(Geometry(kernel, pool.stride, pool.pads[:rank], pool.pads[rank:])), source.channels
        )
    if node.op_type in _REDUCE and (_size(node.outputs[0], rank) == (1,) * rank):
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
        geometry = geometry.union(grid.geometry)
    return _Grid(geometry, channels)


def _verb(node: ir.Node) -> str:
    return "adds" if node.op_type in ("Add", "Sum") else "joins"


def _is_linear(node: ir.Node, channels: int) -> bool:
    """Whether the algebra has a rule for it (a Split or a broadcast has none)."""
    if node.op_type in ("Add", "Concat"):
        return len(computed_inputs(node)) > 1 or scale_of(node, channels) is not None
    pool = pool_of(node)
    return scale_of(node, channels) is not None or (pool is not None and pool.mean)


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
