"""What is read where, as lines on both sides of a comparison: down the spine to the next row, or round the outside."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx_layermerge.report._layout import lanes
from onnx_layermerge.report._sketch import Line
from onnx_layermerge.report._svg import add, path_data

__all__ = ["BOX_H", "BOX_W", "EDGE", "HALF", "LANE", "LANES", "PILL_HALF", "Side", "Slot", "connect"]

BOX_W, BOX_H = 138.0, 30.0
LANES, LANE, EDGE = 4, 5.0, 5.0
HALF = {"conv": BOX_H / 2, "join": 7.5}
PILL_HALF = 8.5


@dataclass
class Slot:
    """One drawn row of a side: the lines it stands for, where it is; ``half`` is half its height."""

    lines: tuple[int, ...]
    segment: int
    y: float
    half: float


@dataclass
class Side:
    """One of the two networks: its lines, its box's left edge, its outer edge and the way inwards from there."""

    lines: Sequence[Line]
    x: float
    edge: float
    inwards: float
    slots: list[Slot] = field(default_factory=list)

    @property
    def spine(self) -> float:
        return self.x + BOX_W / 2


def connect(side: Side, groups: Sequence[ET.Element], heights: Sequence[float]) -> int:
    """Draw all lines of a side into the groups of its segments; how many found no lane."""
    slot_of = {n: index for index, slot in enumerate(side.slots) for n in slot.lines}
    reads: dict[int, set[int]] = {}
    for n, index in slot_of.items():
        for reader in side.lines[n].readers:
            if (target := slot_of.get(reader)) is not None and target > index:
                reads.setdefault(index, set()).add(target)
    for index, targets in reads.items():
        if index + 1 in targets:
            _down(side, groups, heights, side.slots[index], side.slots[index + 1])
    wanted = [(index, max(targets), index) for index, targets in reads.items() if max(targets) > index + 1]
    spans, missing = lanes(wanted, LANES, touching=True)
    for span in spans:
        x = side.edge + side.inwards * LANE * (LANES - 1 - span.lane)
        source, last = side.slots[span.top], side.slots[span.bottom]
        drawn = [side.slots[t] for t in sorted(reads[span.item]) if t != span.item + 1]
        for segment in range(source.segment, last.segment + 1):
            _around(side, groups[segment], heights[segment], x, source, last, drawn, segment)
    return missing


def _down(side: Side, groups: Sequence[ET.Element], heights: Sequence[float], a: Slot, b: Slot) -> None:
    x = side.spine
    if a.segment == b.segment:
        add(groups[a.segment], "path", "wire", d=path_data("M", x, a.y + a.half, "V", b.y - b.half))
        return
    end = heights[a.segment]
    add(groups[a.segment], "path", "wire", d=path_data("M", x, a.y + a.half, "V", end - 7))
    add(groups[a.segment], "path", "tip", d=path_data("M", x - 4, end - 8, "h", 8, "l", -4, 6, "z"))
    add(groups[b.segment], "path", "wire", d=path_data("M", x, 1, "V", b.y - b.half))


def _around(
    side: Side, group: ET.Element, height: float, x: float, source: Slot, last: Slot, targets: Sequence[Slot],
    segment: int,
) -> None:  # fmt: skip
    bend = 5.0 * side.inwards
    top, low = 1.0, height - 1.0
    path = path_data("M", x, top)
    if source.segment == segment:
        y = source.y + 4
        path = path_data("M", _touch(side, source), y, "H", x + bend, "Q", x, y, x, y + 5)
    if last.segment == segment:
        low = last.y - 9
    path += path_data("V", low)
    for target in targets:
        if target.segment == segment:
            y, touch = target.y - 4, _touch(side, target)
            path += path_data("M", x, y - 5, "Q", x, y, x + bend, y, "H", touch - 4 * side.inwards)
            add(group, "path", "tip", d=path_data("M", touch, y, "l", -5 * side.inwards, -2.6, "v", 5.2, "z"))
    add(group, "path", "wire", d=path)


def _touch(side: Side, slot: Slot) -> float:
    """Where an outer line meets a row."""
    if slot.half == HALF["join"]:
        return side.spine - side.inwards * slot.half
    if slot.half == PILL_HALF:
        return side.spine - side.inwards * 15
    return side.x if side.inwards > 0 else side.x + BOX_W
