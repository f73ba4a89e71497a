"""Merged: the region's convolutions composed by algebra, activations inside it removed.

``lossless`` lists only regions without an activation inside, ``merged`` all, ``subsets`` the paper's choice of which
convolutions to keep for each kernel size (largest ΣL1 norm; arXiv 2406.12837, §3), the others being the identity:

    k = 1 + Σ (k_l − 1)·Π strides before l,    over the kept convolutions l.

Where none is kept and nothing else lies inside, no convolution is left at all; a skip inside makes it one of kernel 1.
Branches with kernels of their own do not add up: there the sum only tells subsets apart, and of those that come out at
one kernel the largest norm stays, as in the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnx_layermerge.candidates._candidate import Candidate, Stage, conv_from, name_of
from onnx_layermerge.candidates._compose import averages, geometry_through, growth_through, merge_through
from onnx_layermerge.candidates._kind import Given
from onnx_layermerge.candidates._space import Space, geometry_of
from onnx_layermerge.graph import Network, Region, Series
from onnx_layermerge.merge import Geometry, MergedConv, keep_subset

__all__ = ["MERGE", "MERGE_ALL", "MERGE_SUBSET", "merge_of"]

# Larger ones hardly ever compute less than what they stand for (docs/adr/0020).
MAX_KERNEL = 13


def _candidate(network: Network, region: Region, keep: Sequence[bool], geometry: Geometry, space: Space) -> Candidate:
    channelwise = space.channels_in == space.channels_out and _channelwise(network, region, keep)
    kept = "".join("1" if flag else "0" for flag in keep)
    stage = Stage(space.channels_in, space.channels_out, geometry, space.channels_in if channelwise else 1)
    key = f"merge {'x'.join(map(str, geometry.kernel))} {name_of(network, region)} [{kept}]"
    return Candidate(key, region, "merge", (stage,), tuple(keep))


def _channelwise(network: Network, region: Region, keep: Sequence[bool]) -> bool:
    """Whether what is kept mixes no channels."""
    convs = [network.convs[position] for position, kept in zip(region.convs, keep, strict=True) if kept]
    if any(not conv.groups == conv.channels_in == conv.channels_out for conv in convs):
        return False
    return all(node.op_type != "Concat" for node in network.order[region.start : region.stop])


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
    """For each kernel size but the whole region's, the paper's subset of convolutions."""
    growths = growth_through(network, region, space)
    if growths is None:
        return
    # Sums of these numbers are equal where the sums of growths are, in every dimension.
    base = 1 + sum(map(max, growths))
    growth = [sum(each * base**dim for dim, each in enumerate(sizes)) for sizes in growths]
    norm = [_norm(network, position) for position in region.convs]
    reducible = [_reducible(network, position) for position in region.convs]
    best: dict[tuple[int, ...], tuple[float, tuple[bool, ...], Geometry]] = {}
    for keep in keep_subset(growth, norm, reducible).values():
        geometry = geometry_through(network, region, keep, space)
        if geometry is None or max(geometry.kernel) > MAX_KERNEL:
            continue
        kept = sum(each for each, flag in zip(norm, keep, strict=True) if flag)
        if geometry.kernel not in best or (kept, sum(keep)) > (best[geometry.kernel][0], sum(best[geometry.kernel][1])):
            best[geometry.kernel] = kept, keep, geometry
    for _, keep, geometry in best.values():
        if all(keep):
            continue
        candidate = _candidate(network, region, keep, geometry, space)
        if not any(keep) and _is_identity(network, candidate):
            yield Candidate(f"identity {name_of(network, region)}", region, "identity")
        elif len(keep) > 1:
            yield candidate


def _norm(network: Network, position: int) -> float:
    """‖W‖₁; asked of one convolution for every region that holds it."""
    key = (_norm, position)
    if key not in network.remembered:
        network.remembered[key] = float(np.abs(network.convs[position].weight).sum())
    found: float = network.remembered[key]
    return found


def _reducible(network: Network, position: int) -> bool:
    """The identity could stand for this convolution: same width, same grid."""
    conv = network.convs[position]
    geometry = geometry_of(conv)
    return conv.channels_in == conv.channels_out and geometry.same_grid(Geometry.identity(len(geometry.kernel)))


def _is_identity(network: Network, candidate: Candidate) -> bool:
    """Whether the merge gives back what it reads."""
    conv = merge_of(network, candidate).conv
    same = conv.geometry == Geometry.identity(conv.geometry.ndim) and conv.groups == conv.in_channels
    return same and bool((conv.weight == 1).all()) and not conv.bias.any()


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
