"""Wall time, CPU time and memory of each stage of a compression, as its progress names them."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

__all__ = ["Stages"]

EVERY_S = 0.05


class Stages:
    """``progress`` in, ``found`` out: name → wall and CPU seconds (its own processes too) and the largest memory seen.

    What comes before the first word of a stage counts to the stage before it.
    """

    def __init__(self) -> None:
        import psutil  # no part of the locked environment, in which this file is only read

        self.found: dict[str, dict[str, float]] = {}
        self._process, self._gone = psutil.Process(), psutil.Error
        self._name, self._since = "start", (time.perf_counter(), self._cpu())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Stages:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self.enter("end")

    def enter(self, name: str) -> None:
        """The stage ``name`` begins, or goes on."""
        if name == self._name:
            return
        now = time.perf_counter(), self._cpu()
        stage = self._stage()
        stage["wall_s"] += now[0] - self._since[0]
        stage["cpu_s"] += now[1] - self._since[1]
        self._name, self._since = name, now

    def _stage(self) -> dict[str, float]:
        return self.found.setdefault(self._name, {"wall_s": 0.0, "cpu_s": 0.0, "memory_gb": 0.0})

    def _cpu(self) -> float:
        times: Any = self._process.cpu_times()
        return float(sum(times[:4]) + sum(self._running()))

    def _running(self) -> list[float]:
        """CPU seconds of processes that it has started and that have not ended."""
        found = []
        for child in self._process.children(recursive=True):
            with suppress(self._gone):
                found.append(sum(child.cpu_times()[:2]))
        return found

    def _watch(self) -> None:
        while not self._done.wait(EVERY_S):
            stage = self._stage()
            stage["memory_gb"] = max(stage["memory_gb"], self._process.memory_info().rss / 1e9)
