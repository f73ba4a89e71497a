"""Where everything in the picture of a network lies: columns of rows, lanes beside them, in pixels.

A column, left to right: arcs, boxes on the spine, chips, the strip of heat with its numbers, brackets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from onnx_layermerge.report._rows import Row, Rows
from onnx_layermerge.report._svg import fit_right, text_px

__all__ = ["Column", "Cut", "Layout", "Span", "lanes", "pill", "shape"]

GAP, PAD = 26.0, 12.0
BOX_W, BOX_H = 192.0, 32.0
ARC, BRACKET = 8.0, 7.0
HEAT_W, COUNT_W = 5.0, 30.0
HEADER, FOOTER = 26.0, 12.0
PITCH = {"conv": 44.0, "join": 30.0, "node": 30.0, "barrier": 30.0, "port": 32.0, "more": 36.0}
HALF = {"conv": BOX_H / 2, "join": 8.0, "node": 9.0, "barrier": 9.5, "port": 10.0, "more": 10.0}
# Joins with a sign of their own are drawn as a circle, all others by name.
SIGNS = {"Add": "M-3.6 0H3.6M0 -3.6V3.6", "Mul": "M-2.7 -2.7L2.7 2.7M-2.7 2.7L2.7 -2.7"}
# Wider than high, as screens are.
ASPECT = 1.45
# What a column may be shorter or longer than its share, so that it ends where little crosses.
SHORTER, LONGER = 0.85, 1.08


@dataclass(frozen=True)
class Span:
    """Rows ``top`` … ``bottom`` in a lane, 0 next to the boxes; ``item`` is the number of what it stands for."""

    top: int
    bottom: int
    lane: int
    item: int


@dataclass(frozen=True)
class Column:
    """Rows [begin, end) from the left edge ``x``."""

    x: float
    begin: int
    end: int


@dataclass(frozen=True)
class Cut:
    """The part of a span in one column; ``starts`` and ``ends`` say whether its first and last row are in it."""

    column: Column
    top: float
    low: float
    starts: bool
    ends: bool


def lanes(intervals: Iterable[tuple[int, int, int]], most: int, *, touching: bool) -> tuple[list[Span], int]:
    """Short intervals first, each in the first free lane; also how many did not fit into ``most`` lanes.

    Args:
        intervals: (top row, bottom row, item).
        most: number of lanes.
        touching: one may end in the row in which the next one of its lane begins.
    """
    taken: list[list[tuple[int, int]]] = []
    found, left_out, room = [], 0, 0 if touching else 1
    for top, bottom, item in sorted(intervals, key=lambda i: (i[1] - i[0], i)):
        for lane in range(most):
            if lane == len(taken):
                taken.append([])
            if all(top >= b + room or bottom + room <= t for t, b in taken[lane]):
                taken[lane].append((top, bottom))
                found.append(Span(top, bottom, lane, item))
                break
        else:
            left_out += 1
    return found, left_out


def pill(text: str, size: float = 11, *, ems: float = 12) -> tuple[str, float]:
    """The label of a rounded box, shortened to ``ems``, and the width of the box."""
    label = fit_right(text, ems * size, size)
    return label, text_px(label, size) + 1.7 * size


def shape(row: Row) -> tuple[str, float]:
    """What is written in a row's own shape, and the width of that shape."""
    if row.kind == "conv":
        return row.label, BOX_W
    if row.kind == "join" and row.label in SIGNS:
        return "", 16.0
    return pill(row.label, ems=18 if row.kind in ("port", "more") else 12)


class Layout:
    """Measures of one picture; y counts from the top of the columns."""

    def __init__(self, rows: Rows, arcs: Sequence[Span], brackets: Sequence[Span]) -> None:
        self.rows = rows.rows
        self.box_x = PAD + 6 + ARC * (1 + max((span.lane for span in arcs), default=-1))
        self.spine = self.box_x + BOX_W / 2
        reach = max(shape(row)[1] / 2 + sum(pill(chip.text, 9)[1] + 6 for chip in row.chips) for row in self.rows)
        self.heat_x = self.spine + max(reach, BOX_W / 2) + 10
        self.bracket_x = self.heat_x + HEAT_W + COUNT_W
        self.width = self.bracket_x + BRACKET * (1 + max((span.lane for span in brackets), default=-1)) + PAD
        crossing = [0] * (len(self.rows) + 1)
        for span in (*arcs, *brackets):
            crossing[span.top + 1] += 1
            crossing[span.bottom + 1] -= 1
        self.columns = self._columns(list(accumulate(crossing)))
        self.y = self._rows_down()
        self.height = max(self.y[c.end - 1] + PITCH[self.rows[c.end - 1].kind] / 2 + FOOTER for c in self.columns)
        self.total_width = self.columns[-1].x + self.width

    def opens_card(self, index: int, begin: int) -> bool:
        """Whether a new card, with its heading, begins above this row of a column that begins at ``begin``."""
        chain = self.rows[index].chain
        return bool(chain) and (index == begin or self.rows[index - 1].chain != chain)

    def closes_card(self, index: int, end: int) -> bool:
        """Whether this row is the last one of its card in a column that ends at ``end``."""
        chain = self.rows[index].chain
        return bool(chain) and (index + 1 == end or self.rows[index + 1].chain != chain)

    def _columns(self, crossing: Sequence[int]) -> tuple[Column, ...]:
        """About equally high, each ended where few spans cross."""
        heights = [PITCH[row.kind] + (HEADER + FOOTER) * self.opens_card(i, 0) for i, row in enumerate(self.rows)]
        count = max(1, round(math.sqrt(sum(heights) / (self.width + GAP) * ASPECT)))
        found: list[Column] = []
        begin = 0
        for left in range(count, 0, -1):
            target = sum(heights[begin:]) / left
            best, stop, height = math.inf, len(self.rows), 0.0
            for end in range(begin + 1, len(self.rows) if left > 1 else 0):
                height += heights[end - 1]
                cost = crossing[end] + 40 * abs(height - target) / target
                if height > LONGER * target and best < math.inf:
                    break
                if height > SHORTER * target and cost < best:
                    best, stop = cost, end
            if begin < stop:
                found.append(Column(len(found) * (self.width + GAP), begin, stop))
            begin = stop
        return tuple(found)

    def _rows_down(self) -> list[float]:
        found = []
        for column in self.columns:
            y = 0.0 if self.rows[column.begin].chain else 10.0
            for index in range(column.begin, column.end):
                y += HEADER * self.opens_card(index, column.begin)
                found.append(y + PITCH[self.rows[index].kind] / 2)
                y += PITCH[self.rows[index].kind] + FOOTER * self.closes_card(index, column.end)
        return found

    def half(self, index: int) -> float:
        """Half the height of a row's own shape."""
        return HALF[self.rows[index].kind]

    def left(self, row: Row) -> float:
        """Where a row's own shape begins in its column."""
        return self.spine - shape(row)[1] / 2

    def arc_x(self, lane: int) -> float:
        return self.box_x - 6 - ARC * (lane + 1)

    def bracket_at(self, lane: int) -> float:
        return self.bracket_x + BRACKET * lane + 4

    def cuts(self, span: Span) -> list[Cut]:
        """A span column by column; where it goes on, to a little beyond the column's end."""
        found = []
        for column in self.columns:
            if span.top < column.end and span.bottom >= column.begin:
                starts, ends, last = span.top >= column.begin, span.bottom < column.end, column.end - 1
                top = self.y[span.top] if starts else self.y[column.begin] - self.half(column.begin) - 12
                low = self.y[span.bottom] if ends else self.y[last] + self.half(last) + 12
                found.append(Cut(column, top, low, starts, ends))
        return found
