"""Distribution-free statistics of repeated timings, and when to stop repeating.

Timings on a shared machine have a long one-sided tail, so nothing here assumes a normal law and
nothing is thrown away. For n independent samples with sorted values x_(1) <= ... <= x_(n) the
number of samples below the true median is B ~ Bin(n, 1/2), whatever the distribution. Hence

    P( x_(k) <= median <= x_(n+1-k) )  >=  1 - 2 P(B <= k - 1),

and the interval reported is the one with the largest k that keeps this at 95 % or more
(the sign-test interval; David & Nagaraja, *Order Statistics*, section 7.1).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

from onnx_layermerge.errors import UsageError

CONFIDENCE = 0.95
TAIL = round(2 / (1 - CONFIDENCE))
"""On each side of an interval lies one in so many."""
FEWEST_ROUNDS = 6
"""1 - 2 / 2**n reaches 95 % at n = 6: no interval of the median exists with fewer samples."""

StopReason = Literal["precise", "floor", "cap", "rounds"]
"""Why sampling ended: relative target met, absolute floor met, time cap, or number of rounds."""
STOP_REASONS: tuple[str, ...] = get_args(StopReason)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A measured cost. All times in seconds of the clock used: process CPU time on a CPU."""

    seconds: float
    """Median, the headline number; never negative."""
    low_s: float
    high_s: float
    """95 % interval of the median."""
    wall_s: float
    """Median of the wall time of the same runs."""
    p90_s: float
    p99_s: float
    n: int
    outliers: int
    """Samples above twice the median; counted, not dropped."""
    stop_reason: StopReason
    half_width_s: float
    """(high - low) / 2 of the interval before it is clipped at zero."""
    cold_s: float | None = None
    """The same cost with the device's second-level cache overwritten before every run; None where that is not told."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A block that the backend could not build or run, with the reason to show."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Bound:
    """A block that takes longer than anybody there could use: given up after a look, never a measurement.

    It says that the cost is not below ``at_least_s``, and nothing else.
    """

    at_least_s: float
    """Least of the samples, in seconds: below the true median with probability 1 - 2**-n."""
    n: int
    """Samples taken."""


Value = Measurement | Failure | Bound
"""What the table holds for a block."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Speed-up of b over a, from interleaved runs: median over rounds of (a's time / b's time)."""

    ratio: float
    low: float
    high: float
    """95 % interval of the median ratio."""
    a_s: float
    b_s: float
    """Median time of each, seconds of the clock used."""
    wall_ratio: float
    """Median ratio of the wall times of the same runs."""
    n: int
    stop_reason: StopReason


@dataclasses.dataclass(frozen=True)
class StopRule:
    """When enough rounds were taken: precise enough after `min_n`, or out of time or rounds."""

    min_n: int = 20
    max_n: int = 60
    cap_s: float = 1.0
    """Wall seconds that the timed rounds may take; at least `FEWEST_ROUNDS` are always taken."""
    target: float = 0.01
    """Wanted half-width of the 95 % interval, relative to the median."""
    floor_s: float = 0.0
    """Half-width, in the samples' unit, below which more precision is of no use to the caller."""
    floor_n: int | None = None
    """Samples from which on the floor is judged; None is `min_n`."""

    def __post_init__(self) -> None:
        if not FEWEST_ROUNDS <= (self.floor_n or self.min_n) <= self.min_n <= self.max_n:
            raise UsageError(f"The numbers of rounds are out of order; give {FEWEST_ROUNDS} <= floor <= min <= max.")
        if not (self.cap_s > 0 and self.target >= 0 and self.floor_s >= 0):
            raise UsageError(
                "The time cap or a wanted half-width is out of range; give a cap above 0 and widths of at least 0."
            )

    def verdict(self, samples: Sequence[float], spent_s: float) -> StopReason | None:
        """Return why to stop now, or None to go on; `spent_s` is wall seconds used so far.

        Precision is only judged at an even number of rounds: the order of the two runs of a
        round is balanced over pairs of rounds, and between them the median leans to one side.
        """
        n = len(samples)
        if n < FEWEST_ROUNDS:
            return None
        if n >= (self.floor_n or self.min_n) and n % 2 == 0:
            ordered = sorted(samples)
            low, high = median_interval(ordered)
            half_width = (high - low) / 2
            if n >= self.min_n and half_width <= self.target * abs(median(ordered)):
                return "precise"
            if half_width <= self.floor_s:
                return "floor"
        if n >= self.max_n:
            return "rounds"
        return "cap" if spent_s >= self.cap_s else None


@functools.lru_cache(maxsize=4096)
def median_rank(n: int) -> int:
    """Largest k >= 1 with 1 - 2 P(Bin(n, 1/2) <= k - 1) >= 95 %; 0 when n is too small for any."""
    # In units of 2**-n and in integers: from 1,024 samples on that is more than a float holds.
    below, count, k = 0, 1, 0
    while k <= n // 2:
        below += count
        if below * TAIL > 1 << n:
            break
        count = count * (n - k) // (k + 1)  # n over k + 1
        k += 1
    return k


def median(ordered: Sequence[float]) -> float:
    """Median of samples that are already sorted."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median of sorted samples; with fewer than 6 of them, their range."""
    k = max(1, median_rank(len(ordered)))
    return ordered[k - 1], ordered[-k]


def percentile(ordered: Sequence[float], q: float) -> float:
    """Smallest sample with at least a fraction `q` of all samples at or below it."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def summarize(samples: Sequence[float], walls: Sequence[float], stop_reason: StopReason) -> Measurement:
    """Condense samples of one cost, in seconds, into a `Measurement`.

    The cost of a block is a difference, so that of a block which is nearly free may come out a
    little below zero by noise; it is clipped to zero, since no block gives time back.
    """
    ordered = sorted(samples)
    low, high = median_interval(ordered)
    middle = median(ordered)
    return Measurement(
        seconds=max(0.0, middle),
        low_s=max(0.0, low),
        high_s=max(0.0, high),
        wall_s=max(0.0, median(sorted(walls))),
        p90_s=max(0.0, percentile(ordered, 0.90)),
        p99_s=max(0.0, percentile(ordered, 0.99)),
        n=len(ordered),
        outliers=sum(1 for x in ordered if x > 2 * middle) if middle > 0 else 0,
        stop_reason=stop_reason,
        half_width_s=(high - low) / 2,
    )
