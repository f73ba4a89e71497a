"""``Network`` → every block, and what could stand for it: nothing, one convolution, or a slimmer series of them.

One kind of replacement a file, all with the same face (``_kind.py``).  A new kind is one more file and one more line
in ``KINDS``; docs/adding-a-candidate.md goes through it.  Nothing here is measured; what is legal is decided by the
graph alone, what is worth it by ``latency/`` and ``importance/``.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_layermerge.candidates._candidate import MAX_UNKNOWNS, Candidate, Stage, conv_from, cost_macs
from onnx_layermerge.candidates._drop import DROP
from onnx_layermerge.candidates._fitted import FIT
from onnx_layermerge.candidates._identity import IDENTITY
from onnx_layermerge.candidates._kind import Fitted, Given, Job, Kind, Weights
from onnx_layermerge.candidates._lowrank import LOW_RANK
from onnx_layermerge.candidates._merged import MERGE, MERGE_ALL, MERGE_SUBSET, merge_of
from onnx_layermerge.candidates._site import Site, site_of
from onnx_layermerge.candidates._space import Follower, Space, geometry_of, space_of
from onnx_layermerge.candidates._unmerged import Separate, separate
from onnx_layermerge.candidates._width import WIDTH
from onnx_layermerge.graph import Network, Refusal, Region, regions, without_collector

__all__ = [
    "KINDS",
    "MAX_UNKNOWNS",
    "METHODS",
    "PAPER",
    "Candidate",
    "Fitted",
    "Given",
    "Job",
    "Kind",
    "Separate",
    "Site",
    "Space",
    "Stage",
    "Weights",
    "conv_from",
    "cost_macs",
    "enumerate_candidates",
    "geometry_of",
    "merge_of",
    "separate",
    "site_of",
    "space_of",
]

# By name; a candidate's recipe is one of these too.
KINDS: dict[str, Kind] = {
    "drop": DROP,
    "fit": FIT,
    "identity": IDENTITY,
    "low-rank": LOW_RANK,
    "merge": MERGE,
    "merge-subset": MERGE_SUBSET,
    "merge-all": MERGE_ALL,
    "width": WIDTH,
}

# The paper's own, and the two that it grew out of: activations alone, convolutions alone.  Both offer nothing that the
# paper's own does not.
PAPER: dict[str, tuple[str, ...]] = {
    "layermerge": ("merge-all", "merge-subset", "identity"),
    "depth": ("merge-all",),
    "layeronly": ("identity",),
}

# What each --method may choose from; a lossy algebraic merge never beats the fitted convolution of the same shape,
# so only the paper's methods list it.
METHODS: dict[str, tuple[str, ...]] = {
    "olm": ("drop", "merge", "fit", "low-rank", "width"),
    "drop": ("drop",),
    **PAPER,
}


@without_collector()
def enumerate_candidates(
    network: Network, *, kinds: Sequence[str], max_convs: int = 12
) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """All candidates of the named ``kinds``, without repeats, and every convolution in none of them with the reason."""
    found: dict[str, Candidate] = {}
    covered: set[int] = set()
    empty: list[tuple[Region, str]] = []
    follower = Follower(network)
    proposals = [KINDS[kind].propose for kind in kinds]
    for region in regions(network, max_convs=max_convs):
        space = follower.space_of(region)
        if isinstance(space, str):
            empty.append((region, space))
            continue
        offered = [candidate for propose in proposals for candidate in propose(network, region, space)]
        for candidate in offered:
            found.setdefault(candidate.key, candidate)
        if offered:
            covered.update(region.convs)
        else:
            empty.append((region, "nothing with fewer weights keeps its channels and the size of its output"))
    reasons = _closest(empty)
    refusals = []
    for position in sorted(network.convs.keys() - covered):
        reason = reasons.get(position, "no stretch around it has one way in and one way out")
        refusals.append(Refusal(str(network.order[position].name), "Conv", reason))
    return tuple(found.values()), tuple(refusals)


def _closest(empty: Sequence[tuple[Region, str]]) -> dict[int, str]:
    """For each convolution what the smallest region around it says."""
    reasons: dict[int, str] = {}
    for region, reason in sorted(empty, key=lambda pair: pair[0].stop - pair[0].start):
        for position in region.convs:
            reasons.setdefault(position, reason)
    return reasons
