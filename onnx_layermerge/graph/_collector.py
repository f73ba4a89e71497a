"""Python's cycle collector, held back while a model is read or listed.

Both make hundreds of thousands of objects that nearly all stay.  The collector looks through them again and again as
they become more, which took a third of the time on graphs of 10,000 nodes; what it could free meanwhile is little,
and it comes to that afterwards.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_collector"]


@contextmanager
def without_collector() -> Iterator[None]:
    """No cycle is looked for inside; outside it is as it was before.

    What was left inside is looked through once, on the way out.  The collector would do that at the next object anyhow,
    but now and then together with all that is older.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.collect(0)
            gc.enable()
