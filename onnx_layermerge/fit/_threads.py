"""Linear algebra on one thread.

A fit is thousands of small products and factorisations.  BLAS splits each among all cores and loses more by waiting for
them than it gains: on two cores, fits of a small network took 2.6 times the processor time and 1.5 times the wall time
of one thread, those of a large one 1.4 times the processor time for the same wall time.  One thread also rounds the
same way on every machine of a kind, however many cores it has.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import scipy
from threadpoolctl import threadpool_info, threadpool_limits

__all__ = ["blas_name", "on_one_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, during which every BLAS of the process computes on one thread; the caller's setting comes back.

    The limit is the process's: it holds for a user's own metric meanwhile, and for other threads.  Where two of these
    functions overlap, the setting comes back with the end of the last.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        _LIMIT.begin()
        try:
            return function(*args, **kwargs)
        finally:
            _LIMIT.end()

    return limited


def blas_name() -> str:
    """Version and kernels of the BLAS that is used here, by which its results are rounded."""
    scipy.linalg  # noqa: B018  as below
    found = {
        " ".join(str(pool[key]) for key in ("internal_api", "version", "architecture") if pool.get(key))
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    return ", ".join(sorted(found)) or "unknown"


class _Limit:
    """One limit for all who want it at a time."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._held: threadpool_limits | None = None

    def begin(self) -> None:
        with self._lock:
            if self._users == 0:
                scipy.linalg  # noqa: B018  brings a BLAS of its own with the first use; only what is loaded is limited
                self._held = threadpool_limits(limits=1, user_api="blas")
            self._users += 1

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._held is not None:
                self._held.restore_original_limits()
                self._held = None


_LIMIT = _Limit()
