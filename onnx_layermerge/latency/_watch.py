"""What a backend may tell beside its times: how steady the device was, and what a block costs with cold caches.

Both are offers.  A backend with a method ``watch`` is looked at while its blocks are timed, and what it has to say
becomes a warning of the session.  Runnables with a method ``times`` (seconds of single runs, ``cold`` among its
options) give the second figure of a block:

    cold cost = median over rounds of (T_cold(R2) - T_cold(R1)) / (R2 - R1),

where before each run the second-level cache was overwritten.  Inside a network a block stands between the two.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Protocol

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency._statistics import Measurement, Value, median
from onnx_layermerge.latency.backends import Backend, Runnable

__all__ = ["Watch", "watch_of", "with_cold"]

_ROUNDS = 10


class Watch(Protocol):
    """Looks at a device during one timing session."""

    def look(self) -> None:
        """Read the instruments, if it is time; work has just ended."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """Sentences on what was not steady."""
        ...


class _Blind:
    """A device without instruments."""

    def look(self) -> None:
        return None

    def warnings(self) -> tuple[str, ...]:
        return ()


def watch_of(backend: Backend) -> Watch:
    """The backend's own watch, just begun, or one that sees nothing."""
    begin = getattr(backend, "watch", None)
    watch: Watch = _Blind() if begin is None else begin()
    return watch


def with_cold(value: Value, one: Runnable, many: Runnable, step: int) -> Value:
    """The measurement with its cold cost, where the runnables can tell; ``many`` holds ``step`` copies more."""
    first, second = getattr(one, "times", None), getattr(many, "times", None)
    if not isinstance(value, Measurement) or first is None or second is None:
        return value
    # No memory for it, or a fault: the figure is an extra, and the fault shows where the block is run next.
    with contextlib.suppress(ModelError):
        pairs = zip(first(_ROUNDS, cold=True), second(_ROUNDS, cold=True), strict=True)
        cold_s = median(sorted((long - short) / step for short, long in pairs))
        return dataclasses.replace(value, cold_s=max(0.0, cold_s))
    return value
