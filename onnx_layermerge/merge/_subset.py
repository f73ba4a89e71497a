"""Which convolutions of a block to keep: the rule of LayerMerge (Kim et al., ICML 2024, arXiv 2406.12837).

A block that keeps the convolutions C merges to a kernel of

    k = 1 + Σ_{l ∈ C} (k_l − 1) · Π_{l' < l} s_l'.

Convolutions that change channels or stride are irreducible, always in C; so the strides before a layer, and
with them its growth (k_l − 1)·Π s, do not depend on the choice.  For every attainable k the rule keeps the C
of the largest Σ ‖W_l‖₁.  That is a knapsack with an exact total: over the layers in turn, the best choice for
every total growth so far is all that a later layer needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

__all__ = ["keep_subset"]


def keep_subset(
    growth: Sequence[int], norm: Sequence[float], reducible: Sequence[bool]
) -> dict[int, tuple[bool, ...]]:
    """The best convolutions to keep for every attainable total growth.

    ``growth[l]``: what layer l adds to the merged kernel if kept, ≥ 0.  ``norm[l]``: ‖W_l‖₁, ≥ 0.
    ``reducible[l]``: whether layer l may be dropped.  Returns {total growth: keep flag of every layer},
    totals ascending; the kernel is 1 + total.  Equal norms keep more convolutions, then the earlier ones.

    Raises:
        ValueError: the lengths differ, a growth is negative, or a norm is negative or not finite.
    """
    if not len(growth) == len(norm) == len(reducible):
        raise ValueError(
            f"one growth, norm and flag a layer: got {len(growth)}, {len(norm)}, {len(reducible)}"
        )
    if any(g < 0 for g in growth) or not all(isfinite(n) and n >= 0 for n in norm):
        raise ValueError("growths must be ≥ 0, norms finite and ≥ 0")
    # Total growth -> (norm kept, number kept, flags); tuples compare in that order.
    best: dict[int, tuple[float, int, tuple[bool, ...]]] = {0: (0.0, 0, ())}
    for g, n, may_drop in zip(growth, norm, reducible, strict=True):
        after: dict[int, tuple[float, int, tuple[bool, ...]]] = {}
        for total, (kept_norm, count, flags) in best.items():
            choices = [(total + g, (kept_norm + n, count + 1, (*flags, True)))]
            if may_drop:
                choices.append((total, (kept_norm, count, (*flags, False))))
            for new_total, choice in choices:
                if new_total not in after or choice > after[new_total]:
                    after[new_total] = choice
        best = after
    return {total: best[total][2] for total in sorted(best)}
