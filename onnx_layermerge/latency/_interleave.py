"""Timing whole models: one alone (`measure`) and one against another (`interleave`)."""

from __future__ import annotations

import numpy as np

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency._clock import Clock, Instant, cpu_clock
from onnx_layermerge.latency._sampling import Progress, balanced_orders, no_progress, repeats_for, sample, warm_up
from onnx_layermerge.latency._statistics import (
    Measurement,
    Ratio,
    StopReason,
    StopRule,
    median,
    median_interval,
    summarize,
)
from onnx_layermerge.latency.backends import Runnable

WARM_UP_S = 0.1


def measure(
    runnable: Runnable,
    *,
    min_rounds: int = 30,
    max_rounds: int = 200,
    cap_s: float = 5.0,
    target_half_width: float = 0.01,
    clock: Clock = cpu_clock,
    progress: Progress = no_progress,
) -> Measurement:
    """Time one whole model alone, in seconds per inference.

    Raises:
        ModelError: the backend cannot run the model.
        UsageError: the round numbers or widths make no sense.
    """
    rule = StopRule(min_rounds, max_rounds, cap_s, target_half_width)
    repeats = repeats_for(warm_up(runnable, clock, least_s=WARM_UP_S))
    start = clock().wall_s
    samples: list[Instant] = []
    reason: StopReason | None = None
    while reason is None:
        samples.append(sample(runnable, repeats, clock))
        progress(len(samples), max_rounds, "timing the whole model")
        reason = rule.verdict([s.seconds for s in samples], clock().wall_s - start)
    progress(max_rounds, max_rounds, "timed the whole model")
    return summarize([s.seconds for s in samples], [s.wall_s for s in samples], reason)


def interleave(
    a: Runnable,
    b: Runnable,
    *,
    min_rounds: int = 30,
    max_rounds: int = 400,
    cap_s: float = 20.0,
    target_half_width: float = 0.005,
    seed: int = 0,
    clock: Clock = cpu_clock,
    progress: Progress = no_progress,
) -> Ratio:
    """Time `a` and `b` alternately in one run and return the speed-up of `b` over `a`.

    Each round runs both, directly after one another and in random order (each order equally
    often), and contributes the one number t_a / t_b. Whatever slows the machine for longer than
    a round slows both and leaves their ratio; a spike shorter than that spoils one round, and the
    median of the ratios does not move as long as fewer than half of the rounds are hit.

    Args:
        min_rounds: rounds before precision is judged, at least 6.
        max_rounds: rounds after which to stop in any case.
        cap_s: wall seconds after which to stop in any case (warm-up not counted).
        target_half_width: wanted half-width of the 95 % interval, relative to the ratio.
        seed: of the orders.

    Raises:
        ModelError: the backend cannot run one of the two, or the clock saw no time pass.
        UsageError: the round numbers or widths make no sense.
    """
    rule = StopRule(min_rounds, max_rounds, cap_s, target_half_width)
    slower = max(warm_up(a, clock, least_s=WARM_UP_S), warm_up(b, clock, least_s=WARM_UP_S))
    repeats = repeats_for(slower, 1e-3)
    orders = balanced_orders(np.random.default_rng(seed))
    start = clock().wall_s
    times_a: list[Instant] = []
    times_b: list[Instant] = []
    ratios: list[float] = []
    reason: StopReason | None = None
    while reason is None:
        if next(orders):
            time_a, time_b = sample(a, repeats, clock), sample(b, repeats, clock)
        else:
            time_b, time_a = sample(b, repeats, clock), sample(a, repeats, clock)
        if time_a.seconds <= 0 or time_b.seconds <= 0:
            raise ModelError("A model ran in no measurable time; time it with larger inputs.")
        times_a.append(time_a)
        times_b.append(time_b)
        ratios.append(time_a.seconds / time_b.seconds)
        progress(len(ratios), max_rounds, "timing the two models against each other")
        reason = rule.verdict(ratios, clock().wall_s - start)
    progress(max_rounds, max_rounds, "timed the two models against each other")
    ordered = sorted(ratios)
    low, high = median_interval(ordered)
    walls = [x.wall_s / max(y.wall_s, 1e-9) for x, y in zip(times_a, times_b, strict=True)]
    return Ratio(
        ratio=median(ordered),
        low=low,
        high=high,
        a_s=median(sorted(t.seconds for t in times_a)),
        b_s=median(sorted(t.seconds for t in times_b)),
        wall_ratio=median(sorted(walls)),
        n=len(ratios),
        stop_reason=reason,
    )
