"""Right answers by measured speed-up of one network, a line for each family of methods: an SVG for README and site.

x is the measured speed-up, y the share of right answers over all views of the held-out images; a family stands at each
speed-up of the tables with the row that docs/quality.md shows for it.  The picture needs no other file: one style
sheet inside, with a dark variant, and the reader's own fonts; each family has a shape of its own beside its colour.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cells import best_of
from jobs import FAMILIES, NETWORKS

__all__ = ["Line", "lines_of", "picture"]

WIDTH, HEIGHT = 800, 424
LEFT, RIGHT, TOP, BOTTOM = 72, 240, 84, 62
LABEL_PX, TICK_PX = 19.0, 36.0
Row = dict[str, Any]

# In the order of FAMILIES: a name of the colour, and the mark's outline around (0, 0).
MARKS = (
    ("ours", "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0z"),
    ("drop", "M-5-5h10v10h-10z"),
    ("width", "M0-7l6 7l-6 7l-6-7z"),
    ("magnitude", "M-6-5h12l-6 10z"),
    ("taylor", "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z"),
    ("onnxsim", "M-6-3l3-3l3 3l3-3l3 3l-3 3l3 3l-3 3l-3-3l-3 3l-3-3l3-3z"),
    ("merge", "M0-7l6 11h-12z"),
)

STYLE = """
svg { color-scheme: light dark; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
.page { fill: #ffffff } .ink { fill: #1f2328 } .muted { fill: #59636e } .head { font-size: 17px; font-weight: 600 }
.small { font-size: 12px } .grid { stroke: #e4e8ec } .axis { stroke: #8c959f } .lead { stroke: #8c959f; fill: none }
.end { text-anchor: end } .mid { text-anchor: middle } .line { fill: none; stroke: var(--c); stroke-width: 1.75 }
.mark { fill: var(--c); stroke: #ffffff } .line.ours { stroke-width: 3 } .bold { font-weight: 600 }
.ours { --c: #0b62d6 } .drop { --c: #b35309 } .width { --c: #1a7f37 } .magnitude { --c: #57606a }
.taylor { --c: #9a2a6c } .onnxsim { --c: #8a6d00 } .merge { --c: #7a3fb5 } .original { --c: #1f2328 }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 } .ink { fill: #e6edf3 } .muted { fill: #9da7b3 } .grid { stroke: #242b34 }
  .axis, .lead { stroke: #6e7681 } .mark { stroke: #0d1117 } .original { --c: #e6edf3 }
  .ours { --c: #58a6ff } .drop { --c: #f0883e } .width { --c: #3fb950 } .magnitude { --c: #9da7b3 }
  .taylor { --c: #f778ba } .onnxsim { --c: #d4b106 } .merge { --c: #c297ff }
}
"""


@dataclass(frozen=True)
class Line:
    """A family's points (measured speed-up, share of right answers), from the slowest on."""

    kind: str
    label: str
    points: tuple[tuple[float, float], ...]


def lines_of(network: str, rows: Sequence[Row]) -> list[Line]:
    """One line for each family that was measured, of the rows with default settings on the processor."""
    found = []
    for (title, methods), (kind, _) in zip(FAMILIES, MARKS, strict=True):
        best = []
        for speedup in NETWORKS[network].speedups:
            run = [row for row in rows if (row["network"], row["speedup"]) == (network, speedup) and _plain(row)]
            run = [row for row in run if row["method"] in methods]
            done = [row for row in run if _counts(row)]
            # A family that was not run whole might do better.
            if done and {row["method"] for row in run} == set(methods):
                best.append(best_of(done))
        points = tuple(sorted((row["speed"]["ratio"], _share(row, "correct")) for row in best))
        if points:
            found.append(Line(kind, title.partition(" (")[0], points))
    return found


def picture(network: str, rows: Sequence[Row]) -> str:
    """The whole SVG; empty where nothing was measured."""
    lines = lines_of(network, rows)
    if not lines:
        return ""
    first = next(row for row in rows if _counts(row) and row["network"] == network)
    before, fastest = _share(first, "original"), 1.05 * max(x for line in lines for x, _ in line.points)
    views, images = first["scores"]["views"]["views"], first["scores"]["plain"]["images"]
    svg = ET.Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "viewBox": f"0 0 {WIDTH} {HEIGHT}"}
        | {"width": str(WIDTH), "height": str(HEIGHT)},
    )
    title = f"{NETWORKS[network].title}: right answers kept at a measured speed-up"
    said = (
        f"{line.label}: " + ", ".join(f"{100 * y:.1f} % at {x:.2f}×" for x, y in line.points) + "." for line in lines
    )
    _add(svg, "title", text=title)
    _add(svg, "desc", text=f"The original: {100 * before:.1f} %. " + " ".join(said))
    _add(svg, "style", text=STYLE)
    _add(svg, "rect", "page", width=WIDTH, height=HEIGHT, rx=8)
    _add(svg, "text", "ink head", title, x=LEFT, y=32)
    note = f"No labels, no training. {images} held-out images in {views // images} views each. Higher is better."
    _add(svg, "text", "muted small", note, x=LEFT, y=54)
    scale = _Scale(fastest, 1.1 * before)
    _axes(svg, scale)
    for line in reversed(lines):
        path = "M" + "L".join(f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in ((1.0, before), *line.points))
        _add(svg, "path", f"line {line.kind}", d=path)
    for line in reversed(lines):
        for x, y in line.points:
            _mark(svg, line.kind, scale.x(x), scale.y(y), f"{line.label}: {x:.2f}×, {100 * y:.1f} %")
    _mark(svg, "original", scale.x(1.0), scale.y(before), f"the original: {100 * before:.1f} %")
    _labels(svg, scale, lines)
    return ET.tostring(svg, encoding="unicode") + "\n"


@dataclass(frozen=True)
class _Scale:
    """Data to pixels, both linear: x from 1, y from 0."""

    fastest: float
    most: float

    def x(self, speedup: float) -> float:
        return LEFT + (speedup - 1) / (self.fastest - 1) * (WIDTH - LEFT - RIGHT)

    def y(self, share: float) -> float:
        return HEIGHT - BOTTOM - share / self.most * (HEIGHT - TOP - BOTTOM)


def _axes(svg: ET.Element, scale: _Scale) -> None:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    tenth_px = scale.x(1.1) - scale.x(1)
    every = next((step for step in (1, 2, 5) if step * tenth_px >= TICK_PX), 10)
    for tenth in range(0, int(10 * (scale.fastest - 1)) + 1, every):
        x = scale.x(1 + tenth / 10)
        _add(svg, "line", "grid", x1=x, x2=x, y1=TOP, y2=bottom)
        _add(svg, "text", "muted small mid", f"{1 + tenth / 10:g}×", x=x, y=bottom + 20)
    for share in range(0, int(100 * scale.most) + 1, 20):
        y = scale.y(share / 100)
        _add(svg, "line", "grid" if share else "axis", x1=LEFT, x2=right, y1=y, y2=y)
        _add(svg, "text", "muted small end", f"{share} %", x=LEFT - 10, y=y + 4)
    _add(svg, "text", "ink mid", "measured speed-up, one thread of a CPU", x=(LEFT + right) / 2, y=bottom + 46)


def _labels(svg: ET.Element, scale: _Scale, lines: Sequence[Line]) -> None:
    """Names behind the last points, from the top down, none over another."""
    last = TOP - LABEL_PX
    ends = sorted((scale.y(line.points[-1][1]), scale.x(line.points[-1][0]), line) for line in lines)
    # Those at the bottom would run below the axis, so the whole column gives way upwards first.
    floor = HEIGHT - BOTTOM + 4
    for below, (y, x, line) in zip(range(len(ends) - 1, -1, -1), ends, strict=True):
        last = max(last + LABEL_PX, min(y, floor - below * LABEL_PX))
        text_x = WIDTH - RIGHT + 26.0
        _add(svg, "path", "lead", d=f"M{x + 9:.1f} {y:.1f}L{text_x - 8:.1f} {last:.1f}")
        _add(svg, "text", "ink bold" if line.kind == "ours" else "ink", line.label, x=text_x, y=last + 4)


def _mark(svg: ET.Element, kind: str, x: float, y: float, said: str) -> None:
    outline = dict(MARKS).get(kind, MARKS[0][1])
    mark = _add(svg, "path", f"mark {kind}", d=outline, transform=f"translate({x:.1f} {y:.1f})")
    _add(mark, "title", text=said)


def _plain(row: Row) -> bool:
    return row["device"] == "cpu" and not row["variant"]


def _counts(row: Row) -> bool:
    return _plain(row) and not row["error"] and "views" in row["scores"]


def _share(row: Row, what: str) -> float:
    views = row["scores"]["views"]
    return float(views[what] / views["views"])


def _add(parent: ET.Element, tag: str, css: str = "", text: str = "", **attributes: float | str) -> ET.Element:
    """A child element; underscores in names stand for hyphens, numbers get one decimal."""
    found = ET.SubElement(parent, tag, {"class": css} if css else {})
    for name, value in attributes.items():
        found.set(name.replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else str(value))
    found.text = text or None
    return found
