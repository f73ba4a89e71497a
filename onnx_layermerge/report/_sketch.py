"""A network as plain lines: what a before/after drawing needs of it, as data that go into the report's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.graph import Network, network_of
from onnx_layermerge.report._rows import Row, rows_of

__all__ = ["Line", "Sketch", "sketch_of_input", "sketch_of_output"]

# Of a larger network the first ones are kept; ``Sketch.hidden`` counts the convolutions that are not.
MOST_LINES = 400


@dataclass(frozen=True)
class Line:
    """One row of a network: a convolution with what follows it at once, a join, a lone node, an input or output.

    ``chips`` are the operators behind it in the same row, ``readers`` the numbers of the later lines that read from
    it, ``block`` is the number of the replaced block that it belongs to, from 1; 0: none.
    """

    kind: str
    label: str
    name: str
    block: int
    chips: tuple[str, ...]
    readers: tuple[int, ...]


@dataclass(frozen=True)
class Sketch:
    """The lines of a network from its inputs to its outputs."""

    lines: tuple[Line, ...]
    hidden: int


def sketch_of_input(network: Network, plan: Mapping[int, Candidate]) -> Sketch:
    """The network before anything was replaced; ``plan`` are its blocks by number."""
    taken = {
        position: number
        for number, candidate in plan.items()
        for position in range(candidate.region.start, candidate.region.stop)
    }
    return _sketch(network, {str(network.order[position].name): number for position, number in taken.items()})


def sketch_of_output(model: ir.Model, made: Mapping[str, int]) -> Sketch:
    """The compressed model; ``made`` are the numbers of blocks by the names of the nodes that stand for them."""
    return _sketch(network_of(model), made)


def _sketch(network: Network, block_of: Mapping[str, int]) -> Sketch:
    rows = rows_of(network, (), {}, most=MOST_LINES)

    def block(row: Row) -> int:
        return block_of.get(str(network.order[row.first].name), 0) if row.first >= 0 and row.kind != "more" else 0

    lines = tuple(
        Line(row.kind, row.label, row.name, block(row), tuple(chip.text for chip in row.chips), readers)
        for row, readers in zip(rows.rows, rows.readers, strict=True)
    )
    return Sketch(lines, rows.hidden)
