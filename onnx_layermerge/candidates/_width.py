"""Width: the same convolutions with fewer channels between them.

A *hidden* value is written by one dense convolution and read, behind activations and convolutions in groups only, by
one dense convolution.  Its channels can be thinned out without anyone else noticing: which ones stay is decided by
elimination (``fit/``), the reading convolution is fitted again to make up for the rest.

With u channels in and out of each group (1 where it is depthwise; of several convolutions the least common multiple),
channels u·g … u·(g + 1) − 1 read and write nothing but each other from end to end.  They stay or go together, and what
is left is the same map without those that went.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm

import onnx_ir as ir

from onnx_layermerge.candidates._candidate import MAX_UNKNOWNS, TILE, Candidate, Stage, conv_from, name_of
from onnx_layermerge.candidates._judged import judged_at
from onnx_layermerge.candidates._kind import Fitted, Job, Weights
from onnx_layermerge.candidates._space import Space, geometry_of
from onnx_layermerge.graph import Activation, Conv, Network, Region, Series, activation_of

__all__ = ["WIDTH"]

EIGHTHS = (7, 6, 5, 4, 3, 2)


def widths(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """Up to six widths for a region that is writer → what keeps groups apart → reader and nothing else."""
    path = _path(network, region)
    if path is None:
        return
    writer, reader = network.convs[region.convs[0]], network.convs[region.convs[-1]]
    full = writer.channels_out
    unit = _unit(network, region)
    tile = lcm(TILE, unit)
    hidden = str(network.order[region.convs[-1]].inputs[0].name)  # type: ignore[union-attr]
    seen: set[int] = set()
    for eighths in EIGHTHS:
        width = max(tile, round(full * eighths / 8 / tile) * tile)
        if width >= full or width in seen:
            continue
        seen.add(width)
        stages = []
        for number, (position, activation) in enumerate(path):
            conv = network.convs[position]
            first, last = number == 0, number == len(path) - 1
            stages.append(
                Stage(
                    channels_in=conv.channels_in if first else width,
                    channels_out=conv.channels_out if last else width,
                    geometry=geometry_of(conv),
                    groups=1 if first or last else width * conv.groups // full,
                    activation=activation,
                )
            )
        if reader.channels_in * stages[-1].unknowns // width > MAX_UNKNOWNS:
            return
        yield Candidate(
            key=f"width {width}/{full} {name_of(network, region)}",
            region=region,
            recipe="width",
            stages=tuple(stages),
            hidden=hidden,
        )


def _path(network: Network, region: Region) -> list[tuple[int, int | None]] | None:
    """(convolution, activation behind it) along the region if it is one path of the wanted form."""
    path: list[tuple[int, int | None]] = []
    value: ir.Value = network.values[region.entry]
    position = region.start
    while position < region.stop:
        cell = network.cells.get(position)
        if position in network.convs:
            between = len(path) > 1 and not _apart(network, path[-1][0])
            if network.order[position].inputs[0] is not value or between:
                return None
            path.append((position, None))
            position += 1
        elif cell is not None and cell.entry == value.name and path and path[-1][1] is None:
            activation = activation_of(network, position)
            if activation is None or activation.channelwise:
                return None
            path[-1] = (path[-1][0], position)
            position = cell.stop
        else:
            return None
        value = network.order[position - 1].outputs[0]
    if len(path) < 2 or path[-1][0] != region.stop - 1:
        return None
    convs = [network.convs[position] for position, _ in path]
    dense = convs[0].groups == 1 and convs[-1].groups == 1
    plain = all(d == 1 for c in convs for d in c.dilation)
    return path if dense and plain else None


def _apart(network: Network, position: int) -> bool:
    """Whether its groups are those of what it reads and of what it writes."""
    conv = network.convs[position]
    return conv.groups > 1 and conv.channels_in == conv.channels_out


def _unit(network: Network, region: Region) -> int:
    """Channels of the hidden value that stay or go together."""
    inner = (network.convs[position] for position in region.convs[1:-1])
    return lcm(*(conv.channels_in // conv.groups for conv in inner))


def _job(network: Network, candidate: Candidate) -> Job:
    """The reader on some of the hidden channels, near the weights that read them before."""
    reader, last = network.convs[candidate.region.convs[-1]], candidate.stage
    stage = Stage(reader.channels_in, last.channels_out, last.geometry)
    prior = reader.weight.reshape(len(reader.weight), -1)
    site, unit = judged_at(network, candidate), _unit(network, candidate.region)
    return Job(candidate.key, candidate.hidden, stage, site, last.channels_in, prior, unit=unit)


def _series(network: Network, candidate: Candidate, fit: Weights) -> Series:
    """The region's own convolutions with the kept channels only, the last one as fitted."""
    dtype = network.convs[candidate.region.convs[0]].weight.dtype
    series: list[tuple[Conv, Activation | None]] = []
    for stage, position in zip(candidate.stages[:-1], candidate.region.convs[:-1], strict=True):
        conv = network.convs[position]
        bias = None if conv.bias is None else conv.bias[fit.kept]
        activation = None if stage.activation is None else activation_of(network, stage.activation)
        series.append((conv_from(stage, conv.weight[fit.kept], bias, dtype), activation))
    series.append((conv_from(candidate.stage, fit.weight, fit.bias, dtype), None))
    return tuple(series)


WIDTH = Fitted(widths, _job, _series)
