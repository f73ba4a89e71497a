"""GPU seconds between events, added up: the clock of engines.

    launch(work)   [gate] ─ event ─ work ─ event        enqueued, not waited for
    clock()        wait, then seconds += Σ (stop − start) of the runs since the last reading

A GPU that waits for the host charges the wait to the run: the first event passes, and the work behind it arrives
microseconds later.  Hence the gate: after every reading, a captured row of small memory sets keeps the GPU busy until
the host is ahead.  It touches `GATE_BYTES` of the second-level cache and is outside of the events.

Where a run takes the GPU less time than the host needs to launch it, the host cannot stay ahead for long; such runs are
counted (`bound`), since there a stream of single runs goes at the pace of the launches (trtexec warns at the same 0.8).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency._clock import Instant
from onnx_layermerge.latency.backends._driver import Driver

__all__ = ["GATE_BYTES", "Meter"]

GATE_BYTES = 1 << 20
_GATE_FILLS = 64
_MOST_PENDING = 1024
_BOUND = 0.8


class Meter:
    """GPU seconds of all that was launched through it; ``gated`` tells whether the host gets ahead first."""

    def __init__(self, driver: Driver, stream: Any) -> None:
        self._driver, self._stream = driver, stream
        self._pool: list[tuple[Any, Any]] = []
        self._pending: list[tuple[Any, Any, float]] = []
        self._seconds = 0.0
        self.launches = 0
        self.bound = 0
        self._gate = self._make_gate()

    @property
    def gated(self) -> bool:
        return self._gate is not None

    def launch(self, work: Callable[[], None]) -> None:
        """Enqueue work between two events."""
        if len(self._pending) >= _MOST_PENDING:
            self._collect()
        if not self._pending:
            self._hold()
        self._enqueue(work)

    def clock(self) -> Instant:
        """GPU seconds so far and wall seconds, when all that was launched is done."""
        self._collect()
        return Instant(self._seconds, time.perf_counter())

    def times(self, work: Callable[[], None], count: int, before: Callable[[], None] | None = None) -> list[float]:
        """GPU seconds of each of ``count`` runs; ``before`` is enqueued ahead of each, outside of its time."""
        self._collect()
        found: list[float] = []
        for _ in range(count):
            if not self._pending:
                self._hold()
            if before is not None:
                before()
            self._enqueue(work)
            if len(self._pending) >= _MOST_PENDING:
                found += self._collect()
        return found + self._collect()

    def _enqueue(self, work: Callable[[], None]) -> None:
        start, stop = self._pool.pop() if self._pool else (self._driver.event(), self._driver.event())
        begun_s = time.perf_counter()
        self._driver.record(start, self._stream)
        work()
        self._driver.record(stop, self._stream)
        self._pending.append((start, stop, time.perf_counter() - begun_s))

    def _collect(self) -> list[float]:
        self._driver.synchronize(self._stream)
        found = [self._driver.elapsed_s(start, stop) for start, stop, _ in self._pending]
        self._seconds += sum(found)
        self.launches += len(found)
        self.bound += sum(host_s > _BOUND * gpu_s for (_, _, host_s), gpu_s in zip(self._pending, found, strict=True))
        self._pool += [(start, stop) for start, stop, _ in self._pending]
        self._pending = []
        return found

    def _hold(self) -> None:
        if self._gate is not None:
            self._driver.replay(self._gate, self._stream)

    def _make_gate(self) -> Any | None:
        try:
            address = self._driver.allocate(GATE_BYTES)
        except ModelError:  # a GPU that is nearly full still times, only less steadily
            return None

        def fills() -> None:
            for _ in range(_GATE_FILLS):
                self._driver.fill(address, GATE_BYTES, self._stream)

        gate = self._driver.capture(self._stream, fills)
        if gate is None:
            self._driver.free(address)
        return gate
