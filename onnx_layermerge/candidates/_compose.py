"""Follow a region with the algebra: series at convolutions, scales and averages, parallel at sums and concatenations.

An activation or a norm inside counts as removed: its entry goes on in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from onnx_layermerge.candidates._space import Space, geometry_of, window_of
from onnx_layermerge.graph import Network, Pool, Region, computed_inputs, pool_of, scale_of
from onnx_layermerge.merge import AffineConv, Geometry, MergedConv

__all__ = ["Walk", "averages", "geometry_through", "growth_through", "merge_through"]

V = TypeVar("V")


class _Algebra(Protocol[V]):
    """What can be done with the map entry → value; each raises ValueError where branches do not fit.

    ``position`` is that of the node in the network's order.
    """

    def conv(self, value: V, position: int) -> V: ...
    def removed(self, value: V, what: str) -> V: ...
    def scale(self, value: V, scale: np.ndarray, shift: np.ndarray, position: int) -> V: ...
    def average(self, value: V, pool: Pool, channels: int, position: int) -> V: ...
    def plus(self, one: V, two: V) -> V: ...
    def beside(self, one: V, two: V) -> V: ...


@dataclass(frozen=True)
class Walk(Generic[V]):
    """The value of every output along the region; None where the algebra has no rule."""

    network: Network
    region: Region
    keep: Sequence[bool]
    algebra: _Algebra[V]

    def result(self, start: V, channels: int) -> tuple[V, int] | None:
        """The exit's value and its channels."""
        network, region = self.network, self.region
        kept = dict(zip(region.convs, self.keep, strict=True))
        state: dict[str, tuple[V, int]] = {region.entry: (start, channels)}
        position = region.start
        while position < region.stop:
            node, after = network.order[position], position + 1
            names = [str(value.name) for value in computed_inputs(node)]
            if any(name not in state for name in names) or not names:
                return None
            sources = [state[name] for name in names]
            cell = network.cells.get(position)
            found: tuple[V, int] | None
            if position in kept:
                conv, (value, _) = network.convs[position], sources[0]
                removed = not kept[position]
                step = self.algebra.removed(value, "convolution") if removed else self.algebra.conv(value, position)
                found = step, conv.channels_out
            else:
                found = self._linear(position, sources)
                if found is None and cell is not None and cell.stop <= region.stop:
                    value, width = state[cell.entry]
                    found, after = (self.algebra.removed(value, "activation"), width), cell.stop
            if found is None:
                return None
            state[str(network.order[after - 1].outputs[0].name)] = found
            position = after
        return state[region.exit]

    def _linear(self, position: int, sources: list[tuple[V, int]]) -> tuple[V, int] | None:
        node = self.network.order[position]
        cell = self.network.in_cells.get(position)
        if cell is not None and cell.stop - cell.start > 1:
            return None
        value, channels = sources[0]
        scale, pool = scale_of(node, channels), pool_of(node)
        if scale is not None:
            return self.algebra.scale(value, *scale, position), channels
        if pool is not None and pool.mean:
            return self.algebra.average(value, pool, channels, position), channels
        present = [given for given in node.inputs if given is not None]
        if len(sources) < 2 or len(present) != len(sources) or node.op_type not in ("Add", "Sum", "Concat"):
            return None
        joined = node.op_type == "Concat"
        if joined and node.attributes["axis"].as_int() not in (1, 1 - len(node.outputs[0].shape or ())):
            return None
        for other, width in sources[1:]:
            if not joined and width != channels:
                return None  # a broadcast
            value = self.algebra.beside(value, other) if joined else self.algebra.plus(value, other)
            channels = channels + width if joined else channels
        return value, channels


@dataclass(frozen=True)
class _Geometries:
    network: Network

    def conv(self, value: Geometry, position: int) -> Geometry:
        return value.then(geometry_of(self.network.convs[position]))

    def removed(self, value: Geometry, what: str) -> Geometry:
        return value

    def scale(self, value: Geometry, scale: np.ndarray, shift: np.ndarray, position: int) -> Geometry:
        return value

    def average(self, value: Geometry, pool: Pool, channels: int, position: int) -> Geometry:
        return value.then(window_of(pool))

    def plus(self, one: Geometry, two: Geometry) -> Geometry:
        return one.union(two)

    beside = plus


@dataclass(frozen=True)
class _Growths(_Geometries):
    """Notes besides by how much each convolution lets the kernel grow."""

    found: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def conv(self, value: Geometry, position: int) -> Geometry:
        kernel = geometry_of(self.network.convs[position]).kernel
        self.found[position] = tuple((k - 1) * stride for k, stride in zip(kernel, value.stride, strict=True))
        return super().conv(value, position)


@dataclass(frozen=True)
class _Convs:
    network: Network

    def conv(self, value: MergedConv, position: int) -> MergedConv:
        conv = self.network.convs[position]
        given = AffineConv.from_conv(conv.weight, conv.bias, conv.stride, conv.dilation, conv.pads, conv.groups)
        return value.then(MergedConv.of(given))

    def removed(self, value: MergedConv, what: str) -> MergedConv:
        return value.lossy(f"{'an' if what[0] in 'aeiou' else 'a'} {what} was removed")

    def scale(self, value: MergedConv, scale: np.ndarray, shift: np.ndarray, position: int) -> MergedConv:
        return value.then(MergedConv.of(AffineConv.diagonal(scale, shift, value.conv.geometry.ndim)))

    def average(self, value: MergedConv, pool: Pool, channels: int, position: int) -> MergedConv:
        return value.then(MergedConv.of(AffineConv.average(channels, window_of(pool), pool.dilation)))

    def plus(self, one: MergedConv, two: MergedConv) -> MergedConv:
        return one.plus(two)

    def beside(self, one: MergedConv, two: MergedConv) -> MergedConv:
        return one.beside(two)


def averages(network: Network, region: Region) -> int:
    """How many pooling averages of the region are convolutions in other words."""
    pools = [pool_of(node) for node in network.order[region.start : region.stop]]
    return sum(pool is not None and pool.mean for pool in pools)


def geometry_through(network: Network, region: Region, keep: Sequence[bool], space: Space) -> Geometry | None:
    """Geometry of the kept convolutions; None where the algebra ends, or leaves the grid or the width of ``space``."""
    rank = len(network.convs[region.convs[0]].kernel)
    walk = Walk(network, region, keep, _Geometries(network))
    try:
        found = walk.result(Geometry.identity(rank), space.channels_in)
    except ValueError:  # two branches that a removed convolution would leave on different grids
        return None
    if found is None or found[1] != space.channels_out or not found[0].same_grid(space.geometry):
        return None
    return found[0]


def growth_through(network: Network, region: Region, space: Space) -> list[tuple[int, ...]] | None:
    """(k − 1)·Π strides before, a number a dimension, for every convolution of the region; None where the algebra ends.

    Strides are those of convolutions that are always kept, and of averages: they do not hang on what else is.
    """
    rank = len(network.convs[region.convs[0]].kernel)
    growths = _Growths(network)
    try:
        found = Walk(network, region, (True,) * len(region.convs), growths).result(
            Geometry.identity(rank), space.channels_in
        )
    except ValueError:  # branches that the algebra does not put on one grid
        return None
    return None if found is None else [growths.found[position] for position in region.convs]


def merge_through(network: Network, region: Region, keep: Sequence[bool], channels: int) -> MergedConv:
    """The kept convolutions as one.

    Raises:
        ValueError: the algebra has no rule for a node inside.
    """
    rank = len(network.convs[region.convs[0]].kernel)
    start = MergedConv.of(AffineConv.dirac(channels, rank))
    found = Walk(network, region, keep, _Convs(network)).result(start, channels)
    if found is None:
        raise ValueError(f"no rule for a node between {region.entry} and {region.exit}")
    return found[0]
