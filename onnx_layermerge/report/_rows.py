"""A network as rows of a picture: what is drawn in one line, and which rows read which.

1. A convolution opens a row; so does a node that joins branches, and one that stands at the mouth of a branch.
2. A node that reads nothing but values of the row before it is a *chip* of that row, and so is an activation of
   several nodes.
3. A node that is left alone has a row of its own; of a long run of them only the first few have.
4. The model's inputs come first, its outputs last.

Nothing here knows which operators are legal: what is left alone is what the caller has a reason for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from onnx_layermerge.graph import Chain, Conv, Network, computed_inputs

__all__ = ["Chip", "Row", "Rows", "conv_label", "rows_of", "sizes_label"]

Kind = Literal["conv", "join", "node", "barrier", "port", "more"]

# Of the chips of a row together; what does not fit opens a row of its own.
MOST_LETTERS = 22
_OPEN = ("conv", "join", "node")
# Of nodes left alone in a row, as many are drawn; a head of a transformer would otherwise hide the network.
MOST_BARRIERS = 6
MOST_NAMED = 12
MOST_PORTS = 6


@dataclass(frozen=True)
class Chip:
    """An operator that follows in the same row."""

    text: str
    title: str


@dataclass
class Row:
    """One line of the picture.

    ``first`` is the position of its first node (−1 for a port); ``reason`` says why it is left alone, or is empty;
    ``number`` counts the convolutions that can be read, from 1; ``chain`` does so for chains, 0 for none.
    """

    kind: Kind
    first: int
    label: str
    name: str = ""
    reason: str = ""
    number: int = 0
    chain: int = 0
    details: str = ""
    chips: list[Chip] = field(default_factory=list)

    @property
    def chip_letters(self) -> int:
        return sum(len(chip.text) + 3 for chip in self.chips)


@dataclass(frozen=True)
class Rows:
    """``row_of[position]`` is the row of a node; ``readers[r]`` are the rows, below r, that read a value of row r.

    ``hidden`` convolutions are not drawn: the row they fall into is the last one, of kind "more".
    """

    rows: tuple[Row, ...]
    row_of: tuple[int, ...]
    readers: tuple[tuple[int, ...], ...]
    hidden: int


def conv_label(conv: Conv) -> str:
    """``3×3  32→64  s2  dw``: kernel, channels, then what is not as usual."""
    return sizes_label(conv.kernel, conv.channels_in, conv.channels_out, conv.stride, conv.dilation, conv.groups)


def sizes_label(
    kernel: Sequence[int],
    channels_in: int,
    channels_out: int,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> str:
    """The same of a convolution that only its sizes are known of."""
    words = ["×".join(map(str, kernel)), f"{channels_in}→{channels_out}"]
    if any(size != 1 for size in stride):
        words.append(f"s{_sizes(stride)}")
    if any(size != 1 for size in dilation):
        words.append(f"d{_sizes(dilation)}")
    if groups > 1:
        words.append("dw" if groups == channels_in == channels_out else f"g{groups}")
    return "  ".join(words)


def _sizes(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "×".join(map(str, sizes))


def rows_of(network: Network, chains: Sequence[Chain], reasons: Mapping[str, str], *, most: int) -> Rows:
    """At most about ``most`` rows; ``reasons`` says by node name why a node is left alone."""
    inputs = _ports("input", [f"{i.name}  {'×'.join(str(d or '?') for d in i.shape)}" for i in network.inputs])
    rows, row_of = list(inputs), [0] * len(network.order)
    chain_of = {layer.position: number for number, chain in enumerate(chains, 1) for layer in chain.layers}
    numbers = {position: number for number, position in enumerate(sorted(network.convs), 1)}
    made: set[ir.Value] = set()  # by the last row
    run = 0  # of barriers without a convolution among them
    position = 0
    while position < len(network.order) and len(rows) < most:
        cell = network.cells.get(position)
        stop = cell.stop if cell is not None else position + 1
        nodes = network.order[position:stop]
        node, name = nodes[0], str(nodes[0].name)
        reason = reasons.get(name, "")
        label = cell.label if cell is not None else node.op_type
        names = "\n".join(str(each.name) for each in nodes)
        read = set(computed_inputs(node))
        is_conv = position in network.convs or position in network.refused
        run = run + 1 if reason and not is_conv else 0
        last = rows[-1] if rows else Row("port", -1, "")
        if is_conv:
            conv = network.convs.get(position)
            label = conv_label(conv) if conv is not None else "Conv"
            row = Row("conv", position, label, name, reason, numbers.get(position, 0), chain_of.get(position, 0))
        elif reason and run > MOST_BARRIERS + 1:
            row = _folded(last, run - MOST_BARRIERS, f"{label} {name}: {reason}")
        elif reason:
            row = Row("barrier", position, label, names, reason)
        elif last.kind in _OPEN and read and read <= made and last.chip_letters + len(label) <= MOST_LETTERS:
            row = last
            row.chips.append(Chip(label, names))
        else:
            row = Row("join" if len(read) > 1 else "node", position, label, names)
        if row is not last:
            rows.append(row)
            made = set()
        made.update(value for each in nodes for value in each.outputs)
        row_of[position:stop] = [len(rows) - 1] * len(nodes)
        position = stop
    if position < len(network.order):
        return _cut(network, rows, row_of, position, len(inputs))
    rows.extend(_ports("output", list(network.outputs)))
    return Rows(_in_chains(rows), tuple(row_of), _readers(network, rows, row_of, len(inputs)), 0)


def _folded(row: Row, count: int, line: str) -> Row:
    """The row of a node left alone, now that of ``count`` of them; its details name the first ones."""
    if row.reason:
        row.details, row.name, row.reason = f"{row.label} {row.name}: {row.reason}", "", ""
    row.label = f"+ {count} more"
    if count <= MOST_NAMED:
        row.details += f"\n{line}"
    return row


def _ports(what: str, labels: Sequence[str]) -> list[Row]:
    shown = [Row("port", -1, label, details=what) for label in labels[:MOST_PORTS]]
    if len(labels) > MOST_PORTS:
        shown[-1] = Row("port", -1, f"{len(labels) - MOST_PORTS + 1} more {what}s", details=what)
    return shown


def _cut(network: Network, rows: list[Row], row_of: list[int], position: int, inputs: int) -> Rows:
    """The nodes from ``position`` on share one last row."""
    hidden = sum(p >= position for p in (*network.convs, *network.refused))
    nodes = len(network.order) - position
    rows.append(Row("more", position, f"+ {nodes:,} more nodes"))
    row_of[position:] = [len(rows) - 1] * nodes
    return Rows(_in_chains(rows), tuple(row_of), _readers(network, rows, row_of, inputs), hidden)


def _in_chains(rows: list[Row]) -> tuple[Row, ...]:
    """Rows beside a convolution belong to its chain: those behind it first, then those in front."""
    inner = [row for row in rows if row.kind in _OPEN]
    neighbours = {id(row) for row in inner}
    for line in (rows, rows[::-1]):
        chain = 0
        for row in line:
            chain = row.chain or chain if id(row) in neighbours else 0
            if id(row) in neighbours:
                row.chain = chain
    return tuple(rows)


def _readers(network: Network, rows: list[Row], row_of: list[int], inputs: int) -> tuple[tuple[int, ...], ...]:
    """For every row the rows that read from it, in order."""
    found: list[set[int]] = [set() for _ in rows]
    last = len(rows) - 1
    ports = [index for index, row in enumerate(rows) if row.kind == "port" and row.details == "output"]
    exits = dict(zip(network.outputs, [*ports, *ports[-1:] * len(network.outputs)], strict=False)) if ports else {}

    def follow(value: ir.Value, source: int) -> None:
        for user in network.users(value):
            if user < len(network.order):
                found[source].add(row_of[user])
        if value.is_graph_output():
            found[source].add(exits.get(str(value.name), last))

    for number, info in enumerate(network.inputs):
        follow(network.values[info.name], min(number, inputs - 1))
    for position, node in enumerate(network.order):
        for value in node.outputs:
            follow(value, row_of[position])
    return tuple(tuple(sorted(r for r in readers if r > source)) for source, readers in enumerate(found))
