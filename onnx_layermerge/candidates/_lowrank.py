"""Low rank: a convolution to r channels, a 1×1 from there to all of them, and no activation between.

    W = S F,    W [C_out, D],   F [r, D] the first convolution,   S [C_out, r] the second,   D = C_in·∏kernel

costs r·(D + C_out) in place of D·C_out.  W of rank r comes from a reduced-rank regression (``fit/``), near the
region's own weights where it is one convolution.  Every split of W is the same map; here both sides get the square
roots of its singular values, W = (U√Σ)(√ΣVᵀ), so that neither leaves the range of a half-precision number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_layermerge.candidates._candidate import MAX_UNKNOWNS, TILE, Candidate, Stage, conv_from, name_of
from onnx_layermerge.candidates._judged import judged_at
from onnx_layermerge.candidates._kind import Fitted, Job, Weights
from onnx_layermerge.candidates._space import Space
from onnx_layermerge.graph import Network, Region, Series
from onnx_layermerge.merge import Geometry

__all__ = ["LOW_RANK"]

# Shares of the multiplications that a pair takes, about: of the convolution that it splits, and of a stretch of two;
# never more than ``MOST``.
SHARES = (3 / 4, 1 / 2, 1 / 4)
STRETCH_SHARES = (1 / 2, 1 / 4)
MOST = 3 / 4
# The kernel for a stretch, or its own where that is smaller.
KERNEL = 3


def low_rank(network: Network, region: Region, space: Space) -> Iterator[Candidate]:
    """Up to three ranks for a dense convolution, up to two for a stretch of two of them.

    Longer stretches, and those that hold a depthwise convolution and so have few multiplications to save, are better
    served by fewer channels or by one convolution (docs/adr/0014).
    """
    dense = _dense(network, region, space)
    if dense is None or dense.unknowns > MAX_UNKNOWNS:
        return
    alone = len(region.convs) == 1
    # Where nothing inside changes the grid, weights count multiplications; else the stretch's are at least these.
    replaced = sum(network.convs[position].weight.size for position in region.convs)
    most = min(dense.unknowns * dense.channels_out, replaced)
    kernel = "x".join(map(str, dense.geometry.kernel))
    for rank in _ranks(most, dense.unknowns + dense.channels_out, SHARES if alone else STRETCH_SHARES):
        first = Stage(dense.channels_in, rank, dense.geometry)
        second = Stage(rank, dense.channels_out, Geometry.identity(len(dense.geometry.kernel)))
        key = f"low-rank {kernel} r{rank} {name_of(network, region)}"
        yield Candidate(key, region, "low-rank", (first, second))


def _dense(network: Network, region: Region, space: Space) -> Stage | None:
    """The convolution that a pair would stand for."""
    convs = [network.convs[position] for position in region.convs]
    if len(convs) > 2 or any(conv.groups > 1 for conv in convs):
        return None
    geometry: Geometry | None = space.geometry
    if len(convs) == 2:
        geometry = space.geometry.with_kernel(tuple(min(KERNEL, k) for k in space.geometry.kernel))
    elif region.stop - region.start > 1 or any(d != 1 for d in convs[0].dilation):
        return None
    return None if geometry is None else Stage(space.channels_in, space.channels_out, geometry)


def _ranks(replaced: int, each: int, shares: tuple[float, ...]) -> list[int]:
    """Multiples of a tile for which ``rank · each`` is about one of the ``shares`` of ``replaced``."""
    most = int(MOST * replaced / each / TILE)
    tiles = (min(round(share * replaced / each / TILE), most) for share in shares)
    return list(dict.fromkeys(TILE * number for number in tiles if number > 0))


def _job(network: Network, candidate: Candidate) -> Job:
    """The whole convolution, of the pair's rank; near the weights of the one that it splits."""
    first, last = candidate.stages
    region = candidate.region
    prior = None
    if len(region.convs) == 1:
        weight = network.convs[region.convs[0]].weight
        prior = weight.reshape(len(weight), -1)
    dense = Stage(first.channels_in, last.channels_out, first.geometry)
    return Job(candidate.key, region.entry, dense, judged_at(network, candidate), prior=prior, rank=last.channels_in)


def _series(network: Network, candidate: Candidate, fit: Weights) -> Series:
    dtype = network.convs[candidate.region.convs[0]].weight.dtype
    first, last = candidate.stages
    outer, inner = factors(fit.weight, last.channels_in)
    return (
        (conv_from(first, inner, np.zeros(first.channels_out), dtype), None),
        (conv_from(last, outer, fit.bias, dtype), None),
    )


def factors(weight: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """``weight`` W [O, D] of rank ``rank`` or less as S [O, rank] · F [rank, D], equal norms for each component."""
    # Through WWᵀ, which is smaller than W: what that costs in precision is less than the model's dtype can hold.
    _, vectors = np.linalg.eigh(weight @ weight.T)
    outer = vectors[:, ::-1][:, :rank]
    inner = outer.T @ weight
    scale = np.sqrt(np.linalg.norm(inner, axis=1))
    return outer * scale, inner / np.where(scale > 0, scale, 1.0)[:, None]


LOW_RANK = Fitted(low_rank, _job, _series)
