"""How large the steps of a training are: one cycle, and of several rates the one that helps most.

The rate follows one cycle: up over the first tenth, down along a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["RATES", "cycle", "fastest", "rate_of_step"]

# Relative to a channel's weights; the largest first.  Networks differ by a factor of a hundred in what they bear.
RATES = (3e-2, 8e-3, 2e-3, 5e-4, 1.2e-4)
WARM_UP, LEAST_RATE = 0.1, 0.02


def cycle(share: float) -> float:
    """The part of the largest rate at ``share`` of the training."""
    if share < WARM_UP:
        return max(LEAST_RATE, share / WARM_UP)
    return max(LEAST_RATE, 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))))


def rate_of_step(share: float, steps: int | None) -> float:
    """The part of the largest rate for a step that begins at ``share`` of the training and is one of ``steps``, where
    that is known: the cycle's in the middle of the step, or the only step of a training would be at its foot."""
    return cycle(share if steps is None else min(share + 0.5 / steps, 1.0))


def fastest(start_value: float, tried: Callable[[float], float], rates: Sequence[float] = RATES) -> float:
    """The rate whose first steps bring held-out samples closest, from the largest on down until a smaller one does
    worse; the smallest where none brings them closer.  ``tried`` gives the loss behind a rate's first steps."""
    best, found = start_value, rates[-1]
    for rate in rates:
        value = tried(rate)
        if value < best:
            best, found = value, rate
        elif best < start_value:
            break
    return found
