"""Clocks.

The clock is a parameter of every measurement. On a CPU it is the process's CPU time beside wall time, because on a
busy machine only the former repeats. A backend whose work happens elsewhere brings its own: device events where it has
them, else wall time around work that was waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Clock", "Instant", "cpu_clock", "wall_clock"]


class Instant(NamedTuple):
    """A reading of a clock; only differences have a meaning."""

    seconds: float
    """The headline unit: CPU seconds of this process, or a device's own seconds."""
    wall_s: float


Clock = Callable[[], Instant]


def cpu_clock() -> Instant:
    """CPU time of this process (user + system, all threads) and wall time."""
    return Instant(time.process_time_ns() * 1e-9, time.perf_counter_ns() * 1e-9)


def wall_clock() -> Instant:
    """Wall time twice: for work elsewhere, each run of which ends only when its result is there."""
    now_s = time.perf_counter_ns() * 1e-9
    return Instant(now_s, now_s)
