"""Linear algebra on one thread.

A fit is thousands of small products and factorisations.  BLAS splits each among all cores and loses more by waiting for
them than it gains: on two cores, fits of a small network took 2.6 times the processor time and 1.5 times the wall time
of one thread, those of a large one 1.4 times the processor time for the same wall time.  One thread also rounds the
same way on every machine of a kind, however many cores it has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import scipy
from threadpoolctl import threadpool_limits

__all__ = ["on_one_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, during which every BLAS of the process computes on one thread; the caller's setting comes back."""

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        scipy.linalg  # noqa: B018  brings a BLAS of its own with the first use, and only what is loaded is limited
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
