"""A network as a picture: its line of nodes in columns, skips as arcs (left), legal blocks as brackets (right).

    arcs    boxes on the spine      chips   heat  brackets
    ╭──│12│ 3×3  32→64  s2 │──(Relu)          ▌ 14   ┐
    │            │                                   │ ┐
    ╰───────────(+)──(Relu)                          ┘ │

Brackets are the blocks that lie in no other; the *heat* of a convolution is the number of all blocks that hold it.
Arcs and brackets lie in lanes, short ones nearest to the boxes.  A network of any size gives a picture of bounded
size, which says what it leaves out; the same network gives the same bytes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from onnx_layermerge.graph import Chain, Network, Refusal
from onnx_layermerge.report import _layout as at
from onnx_layermerge.report._frame import framed
from onnx_layermerge.report._layout import Column, Layout, Span, lanes, pill, shape
from onnx_layermerge.report._rows import Row, Rows, rows_of
from onnx_layermerge.report._svg import add, clean, counted, fit_left, fit_right, path_data, text_px

__all__ = ["Bracket", "draw"]

MOST_ROWS, MOST_ARCS, MOST_BRACKETS = 480, 24, 12
TAG_W, RADIUS, CHIP_H, LEAST_REASON = 26.0, 7.0, 17.0, 60.0
# Arcs that meet in a row keep apart: readers above its middle, what is read below.
PORT = 4.0


@dataclass(frozen=True)
class Bracket:
    """A legal block, the nodes ``order[start:stop]``; ``text`` says what could stand for it."""

    start: int
    stop: int
    text: str


def draw(
    network: Network, *, title: str, chains: Sequence[Chain], blocks: Sequence[Bracket], refusals: Sequence[Refusal]
) -> bytes:
    """The picture as a self-contained SVG document, UTF-8, readable on light and on dark.

    Args:
        network: what is drawn.
        title: heading, such as the file's name.
        chains: of the network, in the order in which they are numbered.
        blocks: every legal block.
        refusals: every node that is left alone, with its reason.
    """
    rows = rows_of(network, chains, {refusal.node: refusal.reason for refusal in refusals}, most=MOST_ROWS)
    largest = _largest(blocks)
    intervals = [(rows.row_of[b.start], rows.row_of[b.stop - 1], i) for i, b in enumerate(largest)]
    seen = [interval for interval in intervals if rows.rows[interval[0]].kind != "more"]
    brackets, fewer_brackets = lanes(seen, MOST_BRACKETS, touching=False)
    skips = [(row, readers[-1], row) for row, readers in enumerate(rows.readers) if readers and readers[-1] > row + 1]
    arcs, fewer_arcs = lanes(skips, MOST_ARCS, touching=True)
    layout = Layout(rows, arcs, brackets)
    facts = (
        counted(len(network.order), "node"),
        counted(len(network.convs) + len(network.refused), "convolution"),
        f"{counted(len(blocks), 'legal block')}, {len(largest):,} in no other",
        f"{len(refusals):,} left alone",
    )
    left_out = [
        counted(count, what)
        for count, what in ((rows.hidden, "convolution"), (fewer_arcs, "skip"), (fewer_brackets, "bracket"))
        if count
    ]
    svg, group = framed(title, facts, left_out, layout.total_width, layout.height)
    _cards(group, layout, _headings(chains, blocks))
    _spine(group, layout, rows)
    _arcs(group, layout, rows, arcs)
    heat = list(accumulate(_changes(len(network.order), blocks)))
    for column in layout.columns:
        for index in range(column.begin, column.end):
            _row(group, layout, column, index, heat)
    _heat(group, layout, heat)
    for span in brackets:
        _bracket(group, layout, span, largest[span.item].text)
    data: bytes = ET.tostring(svg, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _largest(blocks: Sequence[Bracket]) -> list[Bracket]:
    """The blocks that lie in no other."""
    found: list[Bracket] = []
    for block in sorted(blocks, key=lambda block: (block.start, -block.stop)):
        if not found or block.stop > found[-1].stop:
            found.append(block)
    return found


def _changes(nodes: int, blocks: Sequence[Bracket]) -> list[int]:
    """By how many the number of blocks at a position exceeds that at the one before."""
    found = [0] * (nodes + 1)
    for block in blocks:
        found[block.start] += 1
        found[block.stop] -= 1
    return found


def _headings(chains: Sequence[Chain], blocks: Sequence[Bracket]) -> list[str]:
    """Per chain how many convolutions and blocks it has; a block belongs to the chain of its first convolution."""
    chain_of = {layer.position: number for number, chain in enumerate(chains) for layer in chain.layers}
    positions = sorted(chain_of)
    counts = [0] * len(chains)
    for block in blocks:
        counts[chain_of[positions[bisect_left(positions, block.start)]]] += 1
    return [
        f"{counted(len(chain.layers), 'convolution')}, {counted(count, 'legal block')}"
        for chain, count in zip(chains, counts, strict=True)
    ]


def _cards(group: ET.Element, layout: Layout, headings: Sequence[str]) -> None:
    """A card behind each run of rows of one chain; its heading stands on both sides of the spine that enters it."""
    seen: set[int] = set()
    for column in layout.columns:
        for index in range(column.begin, column.end):
            if not layout.opens_card(index, column.begin):
                continue
            last, chain = index, layout.rows[index].chain
            while not layout.closes_card(last, column.end):
                last += 1
            top = layout.y[index] - at.PITCH[layout.rows[index].kind] / 2 - at.HEADER
            low = layout.y[last] + at.PITCH[layout.rows[last].kind] / 2 + at.FOOTER - 6
            add(group, "rect", "card", x=column.x, y=top, width=layout.width, height=low - top, rx=8)
            add(group, "text", "muted s b", f"Chain {chain}", x=column.x + layout.box_x, y=top + 17)
            words = "continued" if chain in seen else headings[chain - 1]
            add(group, "text", "muted s", words, x=column.x + layout.spine + 9, y=top + 17)
            seen.add(chain)


def _spine(group: ET.Element, layout: Layout, rows: Rows) -> None:
    """From each row to the next one, where that reads it."""
    for number, column in enumerate(layout.columns):
        x = column.x + layout.spine
        for index in range(column.begin, column.end):
            if index + 1 not in rows.readers[index]:
                continue
            low, top = layout.y[index] + layout.half(index), layout.y[index + 1] - layout.half(index + 1)
            if index + 1 < column.end:
                add(group, "path", "wire", d=path_data("M", x, low, "V", top))
                continue
            add(group, "path", "wire", d=path_data("M", x, low, "v", 8))
            add(group, "path", "tip", d=path_data("M", x - 4, low + 7, "h", 8, "l", -4, 6, "z"))
            after = layout.columns[number + 1].x + layout.spine
            add(group, "path", "wire", d=path_data("M", after, top - 10, "V", top))


def _arcs(group: ET.Element, layout: Layout, rows: Rows, arcs: Sequence[Span]) -> None:
    """An arc from each row that is read further on, with a branch to every reader."""
    for span in arcs:
        readers = [reader for reader in rows.readers[span.item] if reader != span.item + 1]
        for cut in layout.cuts(span):
            column, x = cut.column, cut.column.x + layout.arc_x(span.lane)
            path = path_data("M", x, cut.top)
            if cut.starts:
                y = cut.top + PORT
                edge = column.x + layout.left(layout.rows[span.top])
                path = path_data("M", edge, y, "H", x + RADIUS, "Q", x, y, x, y + RADIUS)
            path += path_data("V", cut.low - PORT - RADIUS if cut.ends else cut.low)
            for reader in readers:
                if not column.begin <= reader < column.end:
                    continue
                y, edge = layout.y[reader] - PORT, column.x + layout.left(layout.rows[reader])
                path += path_data("M", x, y - RADIUS, "Q", x, y, x + RADIUS, y, "H", edge - 4)
                add(group, "path", "tip", d=path_data("M", edge, y, "l", -6, -3, "v", 6, "z"))
            add(group, "path", "wire", d=path)


def _row(group: ET.Element, layout: Layout, column: Column, index: int, heat: Sequence[int]) -> None:
    """A row's own shape, and behind it the chips of what follows."""
    row, y = layout.rows[index], layout.y[index]
    if row.kind == "conv":
        right = _box(group, column.x + layout.box_x, y, row, heat[row.first])
    elif row.kind == "join" and row.label in at.SIGNS:
        x = column.x + layout.spine
        mark = add(group, "g", title=f"{row.label} {row.name}")
        add(mark, "circle", "join", cx=x, cy=y, r=8)
        add(mark, "path", "join", d=at.SIGNS[row.label], transform=f"translate({x:.1f} {y:.1f})")
        right = x + 8
    else:
        right = _pill(group, layout, column, row, y)
    for chip in row.chips:
        label, width = pill(chip.text, 9)
        add(group, "path", "wire", d=path_data("M", right, y, "h", 6))
        drawn = add(group, "g", title=chip.title)
        add(drawn, "rect", "chip", x=right + 6, y=y - CHIP_H / 2, width=width, height=CHIP_H, rx=CHIP_H / 2)
        add(drawn, "text", "muted s mid", label, x=right + 6 + width / 2, y=y + 3.2)
        right += 6 + width
    if row.reason and row.kind in ("conv", "barrier"):  # no block is beside it
        _reason(group, right + 8, y, column.x + layout.width, row.reason)


def _reason(group: ET.Element, x: float, y: float, end: float, reason: str) -> None:
    """As much as fits in front of the edge of the card; the tooltip has it whole."""
    if end - x > LEAST_REASON:
        add(group, "text", "why s", fit_right(reason, end - x, 9), x=x, y=y + 3.3)


def _box(group: ET.Element, x: float, y: float, row: Row, held: int) -> float:
    """A convolution: its number, its sizes and its name; the right edge."""
    room, half = at.BOX_W - TAG_W - 14, at.BOX_H / 2
    whole = clean(row.name)
    name = fit_left(whole, room, 9, mono=True)
    words = [whole] if name != whole else []
    words.append(row.reason or f"in {counted(held, 'legal block')}")
    box = add(group, "g", title="\n".join(words))
    add(box, "rect", "alone" if row.reason else "conv", x=x, y=y - half, width=at.BOX_W, height=at.BOX_H, rx=5)
    tag = path_data("M", x + TAG_W, y - half, "h", 5 - TAG_W, "q", -5, 0, -5, 5, "v", at.BOX_H - 10)
    tag += path_data("q", 0, 5, 5, 5, "h", TAG_W - 5, "z")
    add(box, "path", "dull" if row.reason else "tag", d=tag)
    digits = str(row.number or "–")
    add(box, "text", f"tagged b mid {'t' if len(digits) < 4 else 's'}", digits, x=x + TAG_W / 2, y=y + 4)
    kernel, _, rest = row.label.partition("  ")
    text = add(box, "text", "label t", x=x + TAG_W + 8, y=y - 2.5)
    add(text, "tspan", "b", kernel)
    add(text, "tspan", "", fit_right(rest, room - text_px(kernel, 11) - 7, 11), dx=7)
    add(box, "text", "name s mono", name, x=x + TAG_W + 8, y=y + 10)
    return x + at.BOX_W


def _pill(group: ET.Element, layout: Layout, column: Column, row: Row, y: float) -> float:
    """A node by its operator's name; if it is left alone, with the reason beside it; the right edge."""
    label, width = shape(row)
    left, half = column.x + layout.left(row), at.HALF[row.kind]
    css, ink = {"barrier": ("barrier", "why"), "port": ("port", "ink")}.get(row.kind, ("chip", "muted"))
    words = {"barrier": row.details or f"{row.name}\n{row.reason}", "port": f"{row.details} {row.label}"}
    drawn = add(group, "g", title=words.get(row.kind, row.name or row.label))
    add(drawn, "rect", css, x=left, y=y - half, width=width, height=2 * half, rx=half)
    add(drawn, "text", f"{ink} t mid", label, x=left + width / 2, y=y + 3.9)
    return left + width


def _heat(group: ET.Element, layout: Layout, heat: Sequence[int]) -> None:
    """Beside each convolution a piece of strip, the darker the more blocks hold it, and their number."""
    most = max(heat, default=1)
    for column in layout.columns:
        for index in range(column.begin, column.end):
            row = layout.rows[index]
            if row.kind != "conv" or not heat[row.first]:
                continue
            held, x, y = heat[row.first], column.x + layout.heat_x, layout.y[index]
            shade = f"{0.2 + 0.8 * held / most:.2f}"
            strip = add(group, "rect", "heat", x=x, y=y - at.BOX_H / 2, width=at.HEAT_W, height=at.BOX_H)
            strip.set("opacity", shade)
            add(group, "text", "count s", str(held), x=x + at.HEAT_W + 4, y=y + 3.3)


def _bracket(group: ET.Element, layout: Layout, span: Span, title: str) -> None:
    for cut in layout.cuts(span):
        x = cut.column.x + layout.bracket_at(span.lane)
        top = cut.top - layout.half(span.top) + 1 if cut.starts else cut.top
        low = cut.low + layout.half(span.bottom) - 1 if cut.ends else cut.low
        path = path_data("M", x, top)
        if cut.starts:
            path = path_data("M", x - 3.5, top, "h", 1, "q", 2.5, 0, 2.5, 2.5)
        path += path_data("V", low - 2.5, "q", 0, 2.5, -2.5, 2.5, "h", -1) if cut.ends else path_data("V", low)
        add(group, "path", "block", d=path, title=title)
