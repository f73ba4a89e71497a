"""``Network`` → every block, and what could stand for it: nothing, one convolution, or a slimmer series of them.

One kind of replacement a file, all with the same face: a function ``(network, region, space) → candidates``.  A new
kind is one more file and one more line in ``KINDS``.  Nothing here is measured; what is legal is decided by the
graph alone, what is worth it by ``latency/`` and ``importance/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from onnx_layermerge.candidates._candidate import MAX_UNKNOWNS, Candidate, Recipe, Stage, conv_from, cost_macs
from onnx_layermerge.candidates._drop import drops
from onnx_layermerge.candidates._fitted import fitted
from onnx_layermerge.candidates._merged import lossless, merge_of, merged, subsets
from onnx_layermerge.candidates._site import Site, site_of
from onnx_layermerge.candidates._space import Space, geometry_of, space_of
from onnx_layermerge.candidates._width import widths
from onnx_layermerge.graph import Network, Refusal, Region, regions

__all__ = [
    "KINDS",
    "MAX_UNKNOWNS",
    "METHODS",
    "Candidate",
    "Recipe",
    "Site",
    "Space",
    "Stage",
    "conv_from",
    "cost_macs",
    "enumerate_candidates",
    "geometry_of",
    "merge_of",
    "site_of",
    "space_of",
]

Kind = Callable[[Network, Region, Space], Iterable[Candidate]]

KINDS: dict[str, Kind] = {
    "drop": drops,
    "fit": fitted,
    "merge": lossless,
    "merge-subset": subsets,
    "merge-all": merged,
    "width": widths,
}

# What each --method may choose from; a lossy algebraic merge never beats the fitted convolution of the same shape,
# so only the paper's own method lists it.
METHODS: dict[str, tuple[str, ...]] = {
    "olm": ("drop", "merge", "fit", "width"),
    "drop": ("drop",),
    "layermerge": ("merge-all", "merge-subset"),
}


def enumerate_candidates(
    network: Network, *, kinds: Sequence[str], max_convs: int = 12
) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """All candidates of the named ``kinds``, without repeats, and the stretches refused with their reason."""
    found: dict[str, Candidate] = {}
    refusals: dict[str, Refusal] = {}
    for region in regions(network, max_convs=max_convs):
        space = space_of(network, region)
        if isinstance(space, str):
            node = network.order[region.stop - 1]
            refusals.setdefault(str(node.name), Refusal(str(node.name), node.op_type, space))
            continue
        for kind in kinds:
            for candidate in KINDS[kind](network, region, space):
                found.setdefault(candidate.key, candidate)
    return tuple(found.values()), tuple(refusals.values())
