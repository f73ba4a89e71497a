"""Merged: the region's convolutions composed by algebra, activations inside it removed.

``lossless`` lists only regions without an activation inside, ``merged`` all, ``subsets`` the paper's choice of which
convolutions to keep for each kernel size (largest ΣL1 norm; arXiv 2406.12837, §3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnx_layermerge.candidates._candidate import Candidate, Stage, conv_from, name_of
from onnx_layermerge.candidates._compose import averages, geometry_through, merge_through
from onnx_layermerge.candidates._kind import Given
from onnx_layermerge.candidates._space import Space, geometry_of
from onnx_layermerge.graph import Network, Region, Series
from onnx_layermerge.merge import Geometry, MergedConv, keep_subset

__all__ = ["MERGE", "MERGE_ALL", "MERGE_SUBSET", "merge_of"]

# The algebra of longer stretches only makes kernels that no device likes.
MAX_KERNEL = 13


def _candidate(network: Network, region: Region, keep: Sequence[bool], geometry: Geometry, space: Space) -> Candidate:
    channelwise = space.channelwise and space.channels_in == space.channels_out
    kept = "".join("1" if flag else "0" for flag in keep)
    stage = Stage(space.channels_in, space.channels_out, geometry, space.channels_in if channelwise else 1)
    key = f"merge {'x'.join(map(str, geometry.kernel))} {name_of(network, region)} [{kept}]"
    return Candidate(key, region, "merge", (stage,), tuple(keep))


def merged(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """All convolutions kept; a region of one convolution, and no pooling average, has nothing to merge."""
    if len(region.convs) + averages(network, region) < 2:
        return
    keep = (True,) * len(region.convs)
    geometry = geometry_through(network, region, keep, space)
    if geometry is not None and max(geometry.kernel) <= MAX_KERNEL:
        yield _candidate(network, region, keep, geometry, space)


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
        geometry = geometry_through(network, region, keep, space)
        if geometry is not None:
            yield _candidate(network, region, keep, geometry, space)


def _reducible(network: Network, position: int) -> bool:
    """The identity could stand for this convolution: same width, same grid."""
    conv = network.convs[position]
    geometry = geometry_of(conv)
    return conv.channels_in == conv.channels_out and geometry.same_grid(Geometry.identity(len(geometry.kernel)))


def merge_of(network: Network, candidate: Candidate) -> MergedConv:
    """The merged convolution with its certificate: composition along the region, sums at its additions.

    An activation that lies inside, or a convolution that is not kept, makes the certificate lossy.
    """
    return merge_through(network, candidate.region, candidate.keep, candidate.stage.channels_in)


def _series(network: Network, candidate: Candidate) -> Series:
    dtype = network.convs[candidate.region.convs[0]].weight.dtype
    affine = merge_of(network, candidate).conv
    if affine.groups != candidate.stage.groups:
        affine = affine.dense()
    return ((conv_from(candidate.stage, affine.weight, affine.bias, dtype), None),)


MERGE, MERGE_ALL, MERGE_SUBSET = (Given(propose, _series) for propose in (lossless, merged, subsets))
