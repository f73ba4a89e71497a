"""Single samples, warm-up, orders: what every form of measurement shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from onnx_layermerge.latency._clock import Clock, Instant, cpu_clock
from onnx_layermerge.latency._statistics import median
from onnx_layermerge.latency.backends import Backend, Runnable

SHORTEST_SAMPLE_S = 200e-6
"""A sample repeats the inference until it lasts this long, so that reading the clock is < 1 %."""


Progress = Callable[[int, int, str], None]
"""Called often, with the steps done, all steps, and words for what is going on."""


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""


def clock_of(backend: Backend) -> Clock:
    """The backend's own clock where it has one (its work is done elsewhere), else this process's CPU time."""
    clock: Clock = getattr(backend, "clock", cpu_clock)
    return clock


def sample(runnable: Runnable, repeats: int, clock: Clock) -> Instant:
    """Time of one inference, averaged over `repeats` runs back to back."""
    start = clock()
    for _ in range(repeats):
        runnable.run()
    stop = clock()
    return Instant((stop.seconds - start.seconds) / repeats, (stop.wall_s - start.wall_s) / repeats)


def warm_up(
    runnable: Runnable, clock: Clock, *, least_s: float, least_runs: int = 5, settle: int = 10
) -> float:
    """Run for `least_s` wall seconds and `least_runs` runs, then until two medians agree to 1 %.

    Each median is over 5 runs; after `settle` of them the wait is given up, since a machine that
    never settles would otherwise hang here (the interval of the result will show it).

    Returns:
        Seconds of one inference, the last median seen.
    """
    start = clock().wall_s
    times: list[float] = []
    while len(times) < least_runs or clock().wall_s - start < least_s:
        times.append(sample(runnable, 1, clock).seconds)
    before = median(sorted(times[-5:]))
    if settle == 0:
        return before
    for _ in range(settle):
        now = median(sorted(sample(runnable, 1, clock).seconds for _ in range(5)))
        if abs(now - before) <= 0.01 * before:
            return now
        before = now
    return before


def repeats_for(seconds: float, shortest_s: float = SHORTEST_SAMPLE_S) -> int:
    """Runs per sample of something that takes `seconds` once."""
    return max(1, min(1000, math.ceil(shortest_s / max(seconds, 1e-9))))


def balanced_orders(rng: np.random.Generator) -> Iterator[bool]:
    """Endless random booleans of which every two successive ones, from the first, differ.

    Whatever a run leaves in the caches favours one position of a round; giving both
    contestants each position equally often lets that cancel instead of biasing the median.
    """
    while True:
        first = bool(rng.random() < 0.5)
        yield first
        yield not first
