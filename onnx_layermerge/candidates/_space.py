"""What a region does to channels and space, or why it is not a convolution-like map."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_layermerge.graph import Conv, Network, Region
from onnx_layermerge.merge import Geometry

__all__ = ["Space", "geometry_of", "space_of"]


@dataclass(frozen=True)
class Space:
    """C_in, C_out and the geometry of entry → exit; ``channelwise`` when every convolution inside is depthwise;
    ``linear`` when nothing but convolutions and additions lies inside."""

    channels_in: int
    channels_out: int
    geometry: Geometry
    channelwise: bool
    linear: bool


def geometry_of(conv: Conv) -> Geometry:
    """A convolution's geometry, dilation expanded into the kernel."""
    rank = len(conv.kernel)
    kernel = tuple(d * (k - 1) + 1 for k, d in zip(conv.kernel, conv.dilation, strict=True))
    return Geometry(kernel, conv.stride, conv.pads[:rank], conv.pads[rank:])


def space_of(network: Network, region: Region) -> Space | str:
    """Follow the geometry through the region; a string is the reason for refusing it."""
    first = network.convs[region.convs[0]]
    rank = len(first.kernel)
    entry_channels = first.channels_in
    state = {region.entry: (Geometry.identity(rank), entry_channels)}
    channelwise, linear = True, True
    for position in range(region.start, region.stop):
        node = network.order[position]
        sources = [state[str(v.name)] for v in node.inputs if v is not None and str(v.name) in state]
        if position in network.convs:
            conv = network.convs[position]
            geometry, channels = sources[0]
            if len(conv.kernel) != rank:
                return "changes the number of spatial dimensions"
            if channels != conv.channels_in:
                return f"reads {conv.channels_in} channels where {channels} arrive"
            channelwise &= conv.groups == conv.channels_in == conv.channels_out
            result = (geometry.then(geometry_of(conv)), conv.channels_out)
        elif node.op_type == "Add":
            (left, channels), (right, others) = sources
            if channels != others:
                return "adds values of different widths (broadcast)"
            if not left.same_grid(right):
                return "adds branches that lie on different grids"
            result = (left.union(right), channels)
        else:
            linear = False
            result = sources[0]
        state[str(node.outputs[0].name)] = result
    geometry, channels = state[region.exit]
    return Space(entry_channels, channels, geometry, channelwise, linear)
