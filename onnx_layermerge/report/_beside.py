"""The network before (left) and after (right), row by row, in segments that a page can lay side by side or stack.

    before          after
    [3×3 16→16]     [3×3 16→16]      the same on both sides
    ┌ 4 · fit ────────────────────┐
    │ [3×3 16→16]   [5×5 16→16]   │  what stood there, and what stands there now
    │ [3×3 16→16]                 │
    └─────────────────────────────┘
          … 12 rows folded …         a long run of equal rows is folded

Lines on the outer edges are values that are read again further on.  A segment is no wider than a phone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from onnx_layermerge.report._align import Step, align
from onnx_layermerge.report._layout import SIGNS, pill
from onnx_layermerge.report._sketch import Line, Sketch
from onnx_layermerge.report._svg import add, clean, counted, fit_left, fit_right, number, text_px
from onnx_layermerge.report._wires import BOX_H, BOX_W, EDGE, HALF, LANE, LANES, PILL_HALF, Side, Slot, connect

__all__ = ["Caption", "Drawn", "beside"]

WIDTH = 348.0
LEFT = EDGE + LANES * LANE + 4
RIGHT = WIDTH - LEFT - BOX_W
PITCH = {"conv": 40.0}
OTHER, FOLD, HEAD, FOOT = 27.0, 34.0, 20.0, 6.0
# About a screen; segments of one drawing are equally high as far as blocks allow, and three fill a row of a wide one.
TALLEST, ACROSS = 720.0, 3


@dataclass(frozen=True)
class Caption:
    """What stands above a block, and the tooltip of the band."""

    text: str
    title: str
    target: str


@dataclass(frozen=True)
class Drawn:
    """``segments`` are SVG elements, top to bottom; ``arcs`` and ``convs`` count what is not drawn."""

    segments: tuple[ET.Element, ...]
    arcs: int
    convs: int


def beside(before: Sketch, after: Sketch, captions: Mapping[int, Caption], refitted: Sequence[str]) -> Drawn:
    """The comparison; ``captions`` by number of block, ``refitted`` names kept convolutions with other weights."""
    steps = align(before.lines, after.lines)
    sides = Side(before.lines, LEFT, EDGE, 1.0), Side(after.lines, RIGHT, WIDTH - EDGE, -1.0)
    groups = _segments(steps, sides)
    bodies: list[ET.Element] = []
    heights: list[float] = []
    layers: list[tuple[ET.Element, ET.Element, ET.Element]] = []
    for index, group in enumerate(groups):
        svg = ET.Element("svg", {"class": "net", "role": "img"})
        add(svg, "title", text=f"The network before and after, part {index + 1} of {len(groups)}")
        words = _described(group, sides)
        add(svg, "desc", text=words)
        parts = add(svg, "g"), add(svg, "g"), add(svg, "g")
        layers.append(parts)
        bodies.append(svg)
        heights.append(_place(group, index, sides, parts, captions, set(refitted)))
    missing = sum(connect(side, [parts[1] for parts in layers], heights) for side in sides)
    for svg, height in zip(bodies, heights, strict=True):
        svg.set("viewBox", f"0 0 {number(WIDTH)} {number(height)}")
    return Drawn(tuple(bodies), missing, before.hidden + after.hidden)


def _described(group: Sequence[Step], sides: tuple[Side, Side]) -> str:
    """The same for who cannot see it."""
    words = []
    for step in group:
        if step.block:
            old, new = (
                ", ".join(side.lines[n].label for n in numbers if side.lines[n].kind == "conv")
                for side, numbers in zip(sides, (step.left, step.right), strict=True)
            )
            words.append(f"block {step.block}: {old or 'nothing'} became {new or 'nothing'}")
    return "; ".join(words) or "nothing was replaced here"


# --- places ---------------------------------------------------------------------------------------------------------


def _pitch(line: Line) -> float:
    return PITCH.get(line.kind, OTHER)


def _height(step: Step, sides: tuple[Side, Side]) -> float:
    if step.folded:
        return FOLD
    inner = max(
        sum(_pitch(side.lines[n]) for n in numbers)
        for side, numbers in zip(sides, (step.left, step.right), strict=True)
    )
    return inner + HEAD + 2 * FOOT if step.block else inner


def _segments(steps: Sequence[Step], sides: tuple[Side, Side]) -> list[list[Step]]:
    heights = [_height(step, sides) for step in steps]
    count = 1 if sum(heights) <= TALLEST / 2 else ACROSS * ceil(sum(heights) / (ACROSS * TALLEST))
    target = sum(heights) / count
    found: list[list[Step]] = [[]]
    used = 0.0
    for step, height in zip(steps, heights, strict=True):
        if found[-1] and used + height / 2 > target * len(found) and len(found) < count:
            found.append([])
        found[-1].append(step)
        used += height
    return found


def _place(
    group: Sequence[Step],
    segment: int,
    sides: tuple[Side, Side],
    parts: tuple[ET.Element, ET.Element, ET.Element],
    captions: Mapping[int, Caption],
    refitted: set[str],
) -> float:
    """Draw the rows of a segment, remember where they are, and return its height."""
    back, _, front = parts
    y = 12.0
    for step in group:
        height = _height(step, sides)
        if step.folded:
            _fold(front, step, sides, segment, y + height / 2, refitted)
        else:
            if step.block:
                _band(back, front, y, height, captions.get(step.block, Caption(str(step.block), "", "")))
            top, room = (y + HEAD + FOOT, height - HEAD - 2 * FOOT) if step.block else (y, height)
            for side, numbers in zip(sides, (step.left, step.right), strict=True):
                own = sum(_pitch(side.lines[n]) for n in numbers)
                at = top + (room - own) / 2
                for n in numbers:
                    line = side.lines[n]
                    middle = at + _pitch(line) / 2
                    css = "kept" if not step.block else "old" if side is sides[0] else "new"
                    half = _line(front, side, line, middle, css, side is sides[1] and line.name in refitted)
                    side.slots.append(Slot((n,), segment, middle, half))
                    at += _pitch(line)
            if step.block and not any(sides[1].lines[n].kind == "conv" for n in step.right):
                label = "dropped"
                x, middle = RIGHT + BOX_W / 2, top + room / 2
                width = text_px(label, 10.5) + 12
                add(front, "rect", "gap", x=x - width / 2, y=middle - 8, width=width, height=16, rx=8)
                add(front, "text", "muted t mid", label, x=x, y=middle + 3.6)
        y += height
    return y + 12.0


# --- rows -----------------------------------------------------------------------------------------------------------


def _band(back: ET.Element, front: ET.Element, y: float, height: float, caption: Caption) -> None:
    """The ground of a block, and above all wires its caption."""
    edge = LEFT - 6
    words = fit_right(caption.text, WIDTH - 2 * edge - 16, 11)
    for group, drawn in ((back, "rect"), (front, "text")):
        link = add(group, "a", href=caption.target) if caption.target else add(group, "g")
        add(link, "title", text=caption.title)
        if drawn == "rect":
            add(link, "rect", "band", x=edge, y=y + 2, width=WIDTH - 2 * edge, height=height - 4, rx=8)
        else:
            add(link, "text", "t b ink on-band", words, x=edge + 8, y=y + 17)


def _line(group: ET.Element, side: Side, line: Line, y: float, css: str, refitted: bool) -> float:
    """One row of one side; half its height."""
    after = " → ".join(line.chips)
    if line.kind == "conv":
        return _conv(group, side, line, y, css, after, refitted)
    title = " ".join(filter(None, (line.label, line.name and f"({line.name})", after and f"then {after}")))
    drawn = add(group, "g", title=title)
    if line.kind == "join" and line.label in SIGNS:
        add(drawn, "circle", "join", cx=side.spine, cy=y, r=HALF["join"])
        add(drawn, "path", "join", d=SIGNS[line.label], transform=f"translate({number(side.spine)} {number(y)})")
        if after:
            words = fit_right(after, BOX_W / 2 - 14, 9)
            css = "muted s" if side.inwards > 0 else "muted s end"
            add(drawn, "text", css, words, x=side.spine + side.inwards * (HALF["join"] + 5), y=y + 3.2)
        return HALF["join"]
    words = line.label if not after or line.kind == "port" else f"{line.label} → {after}"
    size = 10.0 if text_px(words, 10) <= BOX_W - 14 else 9.0
    label = fit_right(words, BOX_W - 12, size)
    width = min(BOX_W, max(pill(label, size, ems=30)[1], 30.0))
    shape = "port" if line.kind in ("port", "more") else "chip"
    add(
        drawn, "rect", shape, x=side.spine - width / 2, y=y - PILL_HALF, width=width, height=2 * PILL_HALF, rx=PILL_HALF
    )
    add(drawn, "text", "muted f mid" if size > 9 else "muted s mid", label, x=side.spine, y=y + 3.6)
    return PILL_HALF


def _conv(group: ET.Element, side: Side, line: Line, y: float, css: str, after: str, refitted: bool) -> float:
    title = [clean(line.name), line.label.replace("  ", " ")]
    title += [f"then {after}"] if after else []
    title += ["its weights were refitted"] if refitted else []
    box = add(group, "g", title="\n".join(title))
    add(box, "rect", f"{css} moved" if refitted else css, x=side.x, y=y - BOX_H / 2, width=BOX_W, height=BOX_H, rx=5)
    room = BOX_W - 14
    kernel, _, rest = line.label.partition("  ")
    text = add(box, "text", "label u", x=side.x + 7, y=y - 2)
    add(text, "tspan", "b", fit_right(kernel, room, 11))
    add(text, "tspan", "", fit_right(rest.replace("  ", " "), room - text_px(kernel, 11) - 6, 11), dx=6)
    chips = fit_right(after, room / 2, 9) if after else ""
    if chips:
        add(box, "text", "muted s end", chips, x=side.x + BOX_W - 7, y=y + 10)
    name = fit_left(clean(line.name), room - (text_px(chips, 9) + 6 if chips else 0), 8.5, mono=True)
    add(box, "text", "muted n mono", name, x=side.x + 7, y=y + 10)
    return BOX_H / 2


def _fold(group: ET.Element, step: Step, sides: tuple[Side, Side], segment: int, y: float, refitted: set[str]) -> None:
    convs = [sides[0].lines[n] for n in step.left if sides[0].lines[n].kind == "conv"]
    moved = sum(line.name in refitted for line in convs)
    words = f"{counted(len(step.left), 'row')} folded"
    if convs:
        words += f", {counted(len(convs), 'convolution')}"
    if moved:
        words += f", {moved} refitted"
    for side, numbers in zip(sides, (step.left, step.right), strict=True):
        side.slots.append(Slot(numbers, segment, y, 11.0))
    label = fit_right(words, WIDTH - 2 * LEFT, 10)
    box = add(group, "g", title="\n".join(f"{line.name}: {line.label.replace('  ', ' ')}" for line in convs))
    add(box, "rect", "fold", x=LEFT, y=y - 11, width=WIDTH - 2 * LEFT, height=22, rx=11)
    add(box, "text", "muted f mid", label, x=WIDTH / 2, y=y + 3.6)
