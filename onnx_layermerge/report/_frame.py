"""What stands around the picture of a network: the heading, what it leaves out, and the legend."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence

from onnx_layermerge.report._layout import SIGNS
from onnx_layermerge.report._svg import STYLE, add, fit_right, number, path_data, text_px

__all__ = ["framed"]

MARGIN, LEAST = 28.0, 560.0
LINE, ROW, SWATCH = 17.0, 22.0, 32.0


def framed(
    title: str, facts: Sequence[str], left_out: Sequence[str], width: float, height: float
) -> tuple[ET.Element, ET.Element]:
    """A document with room for a drawing of ``width`` × ``height`` pixels, and the group to draw it in."""
    room = max(width, LEAST)
    lines = _wrapped(facts, room)
    if left_out:
        lines += _wrapped([f"Shortened: {', '.join(left_out)} not drawn; olm inspect --all lists all"], room)
    top = 58 + LINE * len(lines)
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    add(svg, "title", text=f"{title}: what could be replaced")
    add(svg, "style", text=STYLE)
    page = add(svg, "rect", "page")
    add(svg, "text", "ink h1", fit_right(title, room, 20), x=MARGIN, y=42)
    for index, line in enumerate(lines):
        add(svg, "text", "muted h2", line, x=MARGIN, y=62 + LINE * index)
    group = add(svg, "g", transform=f"translate({number(MARGIN)} {number(top)})")
    rule = top + height + 14
    add(svg, "path", "rule", d=path_data("M", MARGIN, rule, "h", room))
    size = (number(room + 2 * MARGIN), number(rule + 24 + _legend(svg, rule + 22, room)))
    for element in (svg, page):
        element.set("width", size[0])
        element.set("height", size[1])
    svg.set("viewBox", f"0 0 {size[0]} {size[1]}")
    return svg, group


def _wrapped(parts: Sequence[str], room: float) -> list[str]:
    """The parts joined by middle dots, in as few lines as hold them."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]} · {part}" if lines else part
        if lines and text_px(longer, 12) <= room:
            lines[-1] = longer
        else:
            lines.extend(_words(part, room))
    return lines


def _words(text: str, room: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_px(longer, 12) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


# --- legend ---------------------------------------------------------------------------------------------------------

Paint = Callable[[ET.Element, float, float], None]


def _conv(svg: ET.Element, x: float, y: float) -> None:
    add(svg, "rect", "conv", x=x, y=y - 7, width=24, height=14, rx=3)
    add(svg, "path", "tag", d=path_data("M", x + 8, y - 7, "h", -5, "q", -3, 0, -3, 3, "v", 8, "q", 0, 3, 3, 3, "h", 5))


def _alone(svg: ET.Element, x: float, y: float) -> None:
    add(svg, "rect", "alone", x=x, y=y - 7, width=24, height=14, rx=3)


def _barrier(svg: ET.Element, x: float, y: float) -> None:
    add(svg, "rect", "barrier", x=x, y=y - 7, width=24, height=14, rx=7)


def _join(svg: ET.Element, x: float, y: float) -> None:
    add(svg, "circle", "join", cx=x + 14, cy=y, r=7)
    add(svg, "path", "join", d=SIGNS["Add"], transform=f"translate({number(x + 14)} {number(y)})")


def _arc(svg: ET.Element, x: float, y: float) -> None:
    add(svg, "path", "wire", d=path_data("M", x + 22, y - 7, "h", -9, "q", -7, 0, -7, 7, "q", 0, 7, 7, 7, "h", 4))
    add(svg, "path", "tip", d=path_data("M", x + 23, y + 7, "l", -6, -3, "v", 6, "z"))


def _heat(svg: ET.Element, x: float, y: float) -> None:
    for step in range(4):
        shade = f"{0.25 + 0.25 * step:.2f}"
        add(svg, "rect", "heat", x=x + 1 + 6 * step, y=y - 7, width=5, height=14, rx=1.5, opacity=shade)


def _block(svg: ET.Element, x: float, y: float) -> None:
    path = path_data("M", x + 11, y - 7, "h", 1, "q", 2.5, 0, 2.5, 2.5, "v", 9, "q", 0, 2.5, -2.5, 2.5, "h", -1)
    add(svg, "path", "block", d=path)


ENTRIES: tuple[tuple[Paint, str], ...] = (
    (_conv, "convolution in a legal block"),
    (_alone, "convolution left alone"),
    (_barrier, "other node left alone"),
    (_join, "branches meet"),
    (_arc, "read again further on"),
    (_heat, "how many legal blocks hold it"),
    (_block, "legal block in no other one"),
)
NOTATION = "In the boxes: kernel, channels in→out, s stride, d dilation, g groups, dw depthwise."


def _legend(svg: ET.Element, top: float, room: float) -> float:
    """Entries on a grid, read row by row; the height used."""
    cell = max(SWATCH + text_px(label, 11) for _, label in ENTRIES) + 12
    across = max(1, int((room + 12) / cell))
    for index, (paint, label) in enumerate(ENTRIES):
        x, y = MARGIN + cell * (index % across), top + ROW * (index // across)
        paint(svg, x, y)
        add(svg, "text", "muted t", label, x=x + SWATCH, y=y + 4)
    low = top + ROW * -(-len(ENTRIES) // across)
    for line in _words(NOTATION, room):
        add(svg, "text", "muted t", line, x=MARGIN, y=low + 4)
        low += LINE
    return low - top
