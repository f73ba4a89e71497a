"""Fitted: one convolution whose kernel size is chosen freely and whose weights come from least squares."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod

from onnx_layermerge.candidates._candidate import MAX_UNKNOWNS, Candidate, Stage, conv_from, name_of
from onnx_layermerge.candidates._judged import judged_at
from onnx_layermerge.candidates._kind import Fitted, Job, Weights
from onnx_layermerge.candidates._space import Space
from onnx_layermerge.graph import Network, Region, Series

__all__ = ["FIT"]

KERNELS = (1, 3, 5, 7)


def fitted(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """Dense for every region, depthwise where the widths agree; kernels up to the region's own.

    A region that holds a single convolution is only worth a smaller kernel or fewer weights.
    """
    single = network.convs[region.convs[0]].weight.size if len(region.convs) == 1 else None
    name = name_of(network, region)
    for kind, stages in _choices(space, single):
        yield Candidate(f"fit {kind} {name}", region, "fit", stages)


# A network repeats the same few spaces.
@lru_cache(maxsize=4096)
def _choices(space: Space, most_weights: int | None) -> tuple[tuple[str, tuple[Stage, ...]], ...]:
    """What a region of this space may become, in words and as stages; ``most_weights``: of a single convolution."""
    own = space.geometry.kernel
    sizes = sorted({tuple(min(k, limit) for limit in own) for k in KERNELS} | ({own} if max(own) <= 7 else set()))
    found = []
    for kernel in sizes:
        geometry = space.geometry.with_kernel(kernel)
        if geometry is None:
            continue
        for groups in _groups(space):
            stage = Stage(space.channels_in, space.channels_out, geometry, groups)
            if stage.unknowns > MAX_UNKNOWNS:
                continue
            if most_weights is not None and prod(stage.weight_shape) >= most_weights:
                continue
            kind = f"{'x'.join(map(str, kernel))}{' depthwise' if groups > 1 else ''}"
            found.append((kind, (stage,)))
    return tuple(found)


def _groups(space: Space) -> tuple[int, ...]:
    channelwise = space.channels_in == space.channels_out and space.channels_in > 1
    if space.channelwise and channelwise:
        return (space.channels_in,)
    return (1, space.channels_in) if channelwise else (1,)


def _job(network: Network, candidate: Candidate) -> Job:
    return Job(candidate.key, candidate.region.entry, candidate.stage, judged_at(network, candidate))


def _series(network: Network, candidate: Candidate, fit: Weights) -> Series:
    dtype = network.convs[candidate.region.convs[0]].weight.dtype
    return ((conv_from(candidate.stage, fit.weight, fit.bias, dtype), None),)


FIT = Fitted(fitted, _job, _series)
