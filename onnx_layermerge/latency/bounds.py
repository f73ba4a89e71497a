"""What need not be timed in full: replacements of which less than a measurement says that they are too slow.

A replacement is worth an entry in a plan if it saves a share g of the block it stands for and a share s of the
network:  new ≤ old − max(g·old, s·base) =: ceiling, with the upper end of old's interval for old, so that noise
speaks for the replacement.

1. ceiling ≤ 0: the whole block takes less than what must be saved.  Nothing in its place is timed.
2. Five samples, all above the ceiling (`slopes`): recorded as a `Bound`, which answers for every lower ceiling.
3. Monotony: one that `speaks_for` another was above the ceiling by `MARGIN`; the other, which does strictly
   more of the same work in the same place, is not even looked at.

Rule 3 assumes that a dense convolution with a larger kernel, or with more channels, is not faster by more than
`MARGIN` than the smaller one.  That fails where the smaller one runs on a worse path, so it is only used where there is
no reason for one: equal stride and padding mode (one geometry, grown), channel numbers that are multiples of no smaller
power of two, and no depthwise kernel that differs (these have special code for a few sizes on every backend).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from onnx_layermerge.candidates import Candidate, Stage
from onnx_layermerge.latency._statistics import Bound, Failure, Measurement, Value

__all__ = ["MARGIN", "ceiling", "in_tiers", "speaks_for", "too_slow"]

MARGIN = 1.1
# Alignment beyond this many channels makes no difference to any layout or tile in use.
_ALIGNED = 32


def ceiling(old: Value | None, base_s: float, least_gain: float, least_share: float) -> float:
    """Seconds above which a replacement for the block ``old`` is of no use; −∞ if the block cannot be judged.

    Args:
        old: the block's entry.
        base_s: seconds of the whole network.
        least_gain: g, the share of the block that must be saved.
        least_share: s, the share of the network that must be saved.
    """
    if not isinstance(old, Measurement):
        return -math.inf
    high_s = max(old.high_s, old.seconds)
    return high_s - max(least_gain * high_s, least_share * base_s)


def too_slow(value: Value | None, ceiling_s: float, margin: float = 1.0) -> bool:
    """Whether an entry says that the cost is above ``margin`` times the ceiling."""
    if value is None or isinstance(value, Failure):
        return False
    least_s = value.at_least_s if isinstance(value, Bound) else value.low_s
    return least_s > margin * ceiling_s


def speaks_for(small: Candidate, large: Candidate) -> bool:
    """Whether ``large`` cannot be faster than ``small`` by more than noise (rule 3)."""
    here, there = small.region, large.region
    if (here.start, here.stop, here.exit) != (there.start, there.stop, there.exit):
        return False
    if not small.stages or len(small.stages) != len(large.stages) or small.stages == large.stages:
        return False
    return all(_no_more_work(s, m) for s, m in zip(small.stages, large.stages, strict=True))


def _no_more_work(small: Stage, large: Stage) -> bool:
    if small.geometry.stride != large.geometry.stride or small.activation != large.activation:
        return False
    widths = ((small.channels_in, large.channels_in), (small.channels_out, large.channels_out))
    if any(s > m or math.gcd(s, _ALIGNED) < math.gcd(m, _ALIGNED) for s, m in widths):
        return False
    if small.groups == large.groups == 1:
        return all(s <= m for s, m in zip(small.geometry.kernel, large.geometry.kernel, strict=True))
    depthwise = all(stage.groups == stage.channels_in == stage.channels_out for stage in (small, large))
    return depthwise and small.geometry.kernel == large.geometry.kernel


def in_tiers(candidates: Iterable[Candidate], macs: Mapping[str, int]) -> list[list[Candidate]]:
    """Candidates in the order in which they should be timed: whoever speaks for another is in an earlier tier.

    Args:
        macs: multiply-accumulates by key of candidate.
    """
    by_region: dict[tuple[int, int, str], list[Candidate]] = {}
    for candidate in candidates:
        region = candidate.region
        by_region.setdefault((region.start, region.stop, region.exit), []).append(candidate)
    tiers: list[list[Candidate]] = []
    for family in by_region.values():
        placed: list[tuple[Candidate, int]] = []
        for candidate in sorted(family, key=lambda each: macs[each.key]):
            tier = max((at + 1 for other, at in placed if speaks_for(other, candidate)), default=0)
            placed.append((candidate, tier))
            while len(tiers) <= tier:
                tiers.append([])
            tiers[tier].append(candidate)
    return tiers
