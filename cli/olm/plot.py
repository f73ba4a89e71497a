"""A scatter plot of a few dozen characters, for a terminal without pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["scatter"]


def scatter(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    width: int = 64,
    height: int = 12,
    ticks: Sequence[tuple[float, str]] = (),
) -> list[str]:
    """Lines of text; ``series`` maps a one-character mark to its points, later marks lie on top.

    ``ticks`` are places on the x axis with their labels, the dearest first, of which those are written that have room;
    without any the ends are labelled by their values.

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
    if ticks:
        places = [(round((at - left) / ((right - left) or 1.0) * (width - 1)), label) for at, label in ticks]
        axis = f"{_labels([place for place in places if 0 <= place[0] < width], width)}  {x}"
    return [f"{'':>{margin}}  {y}", *lines, f"{'':>{margin}} +{'-' * width}", f"{'':>{margin}}  {axis}"]


def _labels(places: Sequence[tuple[int, str]], width: int) -> str:
    """Each label around its column, unless it would touch one that came before."""
    line = [" "] * width
    for column, label in places:
        start = min(max(column - len(label) // 2, 0), width - len(label))
        if not "".join(line[max(start - 1, 0) : start + len(label) + 1]).strip():
            line[start : start + len(label)] = label
    return "".join(line)
