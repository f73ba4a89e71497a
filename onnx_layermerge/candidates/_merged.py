"""Merged: the region's convolutions composed by algebra, activations inside it removed.

``lossless`` lists only regions without an activation inside, ``merged`` all, ``subsets`` the paper's choice of which
convolutions to keep for each kernel size (largest ΣL1 norm; arXiv 2406.12837, §3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnx_layermerge.candidates._candidate import Candidate, Stage, name_of
from onnx_layermerge.candidates._space import Space, geometry_of
from onnx_layermerge.graph import Network, Region
from onnx_layermerge.merge import AffineConv, Geometry, MergedConv, keep_subset

__all__ = ["lossless", "merge_of", "merged", "subsets"]

# The algebra of longer stretches only makes kernels that no device likes.
MAX_KERNEL = 13


def _candidate(network: Network, region: Region, keep: Sequence[bool], geometry: Geometry, space: Space) -> Candidate:
    channelwise = space.channelwise and space.channels_in == space.channels_out
    kept = "".join("1" if flag else "0" for flag in keep)
    stage = Stage(space.channels_in, space.channels_out, geometry, space.channels_in if channelwise else 1)
    key = f"merge {'x'.join(map(str, geometry.kernel))} {name_of(network, region)} [{kept}]"
    return Candidate(key, region, "merge", (stage,), tuple(keep))


def merged(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """All convolutions kept; a region of one convolution has nothing to merge."""
    if len(region.convs) > 1 and max(space.geometry.kernel) <= MAX_KERNEL:
        yield _candidate(network, region, (True,) * len(region.convs), space.geometry, space)


def lossless(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """Only regions without an activation inside: the merge is exact, or exact but for the border."""
    if space.linear:
        yield from merged(network, region, space)


def subsets(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """For each smaller kernel size, the paper's subset of convolutions."""
    convs = [network.convs[position] for position in region.convs]
    square = all(len(set(geometry_of(conv).kernel)) == 1 for conv in convs)
    if len(convs) < 2 or not square or any(s != 1 for conv in convs[:-1] for s in conv.stride):
        return
    growth = [geometry_of(conv).kernel[0] - 1 for conv in convs]
    norm = [float(np.abs(conv.weight).sum()) for conv in convs]
    reducible = [_reducible(network, position) for position in region.convs]
    for total, keep in sorted(keep_subset(growth, norm, reducible).items()):
        if all(keep) or not any(keep) or total + 1 > MAX_KERNEL:
            continue
        affine = _geometry(network, region, keep)
        if affine is not None:
            yield _candidate(network, region, keep, affine, space)


def _reducible(network: Network, position: int) -> bool:
    """The identity could stand for this convolution: same width, same grid."""
    conv = network.convs[position]
    geometry = geometry_of(conv)
    return conv.channels_in == conv.channels_out and geometry.same_grid(Geometry.identity(len(geometry.kernel)))


def _geometry(network: Network, region: Region, keep: Sequence[bool]) -> Geometry | None:
    """Geometry of the subset; None when its branches no longer lie on one grid."""
    kept = dict(zip(region.convs, keep, strict=True))
    state: dict[str, Geometry] = {region.entry: Geometry.identity(len(network.convs[region.convs[0]].kernel))}
    for position in range(region.start, region.stop):
        node = network.order[position]
        sources = [state[str(v.name)] for v in node.inputs if v is not None and str(v.name) in state]
        result = sources[0]
        if kept.get(position):
            result = result.then(geometry_of(network.convs[position]))
        elif len(sources) == 2:
            if not result.same_grid(sources[1]):
                return None
            result = result.union(sources[1])
        state[str(node.outputs[0].name)] = result
    return state[region.exit]


def merge_of(network: Network, candidate: Candidate) -> MergedConv:
    """The merged convolution with its certificate: composition along the region, sums at its additions.

    An activation that lies inside, or a convolution that is not kept, makes the certificate lossy.
    """
    region = candidate.region
    kept = dict(zip(region.convs, candidate.keep, strict=True))
    rank = len(network.convs[region.convs[0]].kernel)
    state = {region.entry: MergedConv.of(AffineConv.dirac(candidate.stage.channels_in, rank))}
    for position in range(region.start, region.stop):
        node = network.order[position]
        sources = [state[str(v.name)] for v in node.inputs if v is not None and str(v.name) in state]
        result = sources[0]
        if kept.get(position):
            conv = network.convs[position]
            result = result.then(
                MergedConv.of(
                    AffineConv.from_conv(conv.weight, conv.bias, conv.stride, conv.dilation, conv.pads, conv.groups)
                )
            )
        elif position in kept:
            result = result.lossy("a convolution was removed")
        elif len(sources) == 2:
            result = result.plus(sources[1])
        elif node.op_type != "Add":
            result = result.lossy("an activation was removed")
        state[str(node.outputs[0].name)] = result
    return state[region.exit]
