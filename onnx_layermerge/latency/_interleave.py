"""Timing whole models: one alone (`measure`), one against another (`interleave`), in fresh sessions (`contest`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

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
# Of one pair in one session, whatever the noise.
MAX_ROUNDS = 400


def _to_nobody(number: int) -> None:
    """Nobody asks which model is about to run."""


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
    max_rounds: int = MAX_ROUNDS,
    cap_s: float = 20.0,
    target_half_width: float = 0.005,
    seed: int = 0,
    clock: Clock = cpu_clock,
    progress: Progress = no_progress,
    hand: Callable[[int], None] = _to_nobody,
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
        hand: called with the number of the model that is about to run, 0 for `a` and 1 for `b`, outside of the times.

    Raises:
        ModelError: the backend cannot run one of the two, or the clock saw no time pass.
        UsageError: the round numbers or widths make no sense.
    """
    rule = StopRule(min_rounds, max_rounds, cap_s, target_half_width)
    contestants, once_s = (a, b), []
    for number, runnable in enumerate(contestants):
        hand(number)
        once_s.append(warm_up(runnable, clock, least_s=WARM_UP_S))
    repeats = repeats_for(max(once_s), 1e-3)

    def timed(number: int) -> Instant:
        hand(number)
        return sample(contestants[number], repeats, clock)

    orders = balanced_orders(np.random.default_rng(seed))
    start = clock().wall_s
    times_a: list[Instant] = []
    times_b: list[Instant] = []
    ratios: list[float] = []
    reason: StopReason | None = None
    while reason is None:
        if next(orders):
            time_a, time_b = timed(0), timed(1)
        else:
            time_b, time_a = timed(1), timed(0)
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


def contest(
    build: Callable[[int], Runnable],
    *,
    sessions: int = 1,
    cap_s: float = 20.0,
    max_rounds: int = MAX_ROUNDS,
    target_half_width: float = 0.005,
    seed: int = 0,
    clock: Clock = cpu_clock,
    progress: Progress = no_progress,
    hand: Callable[[int], None] = _to_nobody,
) -> Ratio:
    """`interleave` what ``build(0)`` and ``build(1)`` give; of several sessions, the one whose ratio is the median.

    What differs between two sessions of one model (where its memory came to lie) is not seen within one, so both are
    built anew for each, and closed after it.  ``cap_s`` is for all sessions together, ``max_rounds``
    for each.
    """
    found: list[Ratio] = []
    for session in range(sessions):
        with contextlib.ExitStack() as opened:
            pair = [opened.enter_context(contextlib.closing(build(number))) for number in (0, 1)]
            found.append(
                interleave(
                    *pair,
                    cap_s=cap_s / sessions,
                    max_rounds=max_rounds,
                    target_half_width=target_half_width,
                    seed=seed + session,
                    clock=clock,
                    progress=progress,
                    hand=hand,
                )
            )
            hand(1)  # whatever closing them does: the first one was built and closed before there was a second
    return sorted(found, key=lambda each: each.ratio)[len(found) // 2]
