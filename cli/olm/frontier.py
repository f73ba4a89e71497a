"""The frontier on a terminal: what ``plan`` and ``compress`` both draw.

The axis counts time saved, not speed-up: from 1× to 2× is half of it, and what lies beyond 5× the last fifth.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from olm.plot import scatter
from olm.screen import marked, say

__all__ = ["draw_frontier", "spread"]

T = TypeVar("T")
Points = Iterable[tuple[float, float]]

# The dearest first: not all have room.
TICKS = (1.0, 1.5, 2.0, 1.2, 3.0, 5.0, 1.1, 1.3, 1.4, 1.75, 2.5, 4.0, 10.0, 1.05)
WIDTH, LEAST, MARGIN = 64, 24, 22
STYLES = {"*": "blue", "o": "yellow", "x": "dim", "@": "bold green"}


def _saved(speedup: float) -> float:
    """The share of the time that a speed-up takes away."""
    return 1 - 1 / speedup


def spread(points: Sequence[T], count: int, speedup: Callable[[T], float]) -> list[T]:
    """At most ``count`` points, about evenly apart in time saved, the first and the last among them."""
    ordered = sorted(points, key=speedup)
    if len(ordered) <= count:
        return ordered
    first, last = (_saved(speedup(ordered[end])) for end in (0, -1))
    wanted = [first + (last - first) * step / (count - 1) for step in range(count)]
    nearest = {min(range(len(ordered)), key=lambda i: abs(_saved(speedup(ordered[i])) - one)) for one in wanted}
    return [ordered[index] for index in sorted(nearest)]


def draw_frontier(
    points: Points, drop_only: Points, *, rejected: Points = (), chosen: Points = (), most: float = float("inf")
) -> None:
    """Speed-ups and losses as a plot; nothing where there is too little to draw.  ``most`` is where the axis ends."""
    series = {"o": drop_only, "*": points, "x": rejected, "@": chosen}
    meaning = {"*": "all replacements", "o": "drops alone", "x": "built, not chosen", "@": "chosen"}
    shown = {
        mark: [(_saved(speedup), loss) for speedup, loss in of if 1 <= speedup <= most] for mark, of in series.items()
    }
    held = [f"{mark} {meaning[mark]}" for mark in meaning if shown[mark]]
    width = WIDTH
    if sys.stdout.isatty():
        width = max(LEAST, min(WIDTH, shutil.get_terminal_size().columns - MARGIN))
    ticks = [(_saved(tick), f"{tick:g}×") for tick in TICKS]
    lines = scatter(shown, x="speed-up", y=f"expected loss ({', '.join(held)})", width=width, ticks=ticks)
    if not lines:
        return
    say()
    say(lines[0])
    for line in lines[1:-2]:
        marked(line, STYLES)
    for line in lines[-2:]:
        say(line)
