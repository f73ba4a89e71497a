"""A scatter plot of a few dozen characters, for a terminal without pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["scatter"]


def scatter(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, width: int = 64, height: int = 12
) -> list[str]:
    """Lines of text; ``series`` maps a one-character mark to its points, later marks lie on top.

    The y axis is logarithmic: points whose y is not above zero, or not finite, are left out.  Fewer than two distinct
    points make no picture: an empty list.
    """
    shown = {
        mark: [(a, math.log10(b)) for a, b in points if b > 0 and math.isfinite(a) and math.isfinite(b)]
        for mark, points in series.items()
    }
    every = sorted({point for points in shown.values() for point in points})
    if len(every) < 2:
        return []
    left, right = every[0][0], every[-1][0]
    low, high = min(b for _, b in every), max(b for _, b in every)
    grid = [[" "] * width for _ in range(height)]
    for mark, points in shown.items():
        for a, b in points:
            column = round((a - left) / ((right - left) or 1.0) * (width - 1))
            row = round((high - b) / ((high - low) or 1.0) * (height - 1))
            grid[row][column] = mark
    labels = [f"{10**high:.2g}", *[""] * (height - 2), f"{10**low:.2g}"]
    margin = max(map(len, labels))
    lines = [f"{label:>{margin}} |{''.join(cells)}".rstrip() for label, cells in zip(labels, grid, strict=True)]
    ends = f"{left:.2f}", f"{right:.2f}"
    axis = ends[0] + x.center(width - len(ends[0]) - len(ends[1])) + ends[1]
    return [f"{'':>{margin}}  {y}", *lines, f"{'':>{margin}} +{'-' * width}", f"{'':>{margin}}  {axis}"]
