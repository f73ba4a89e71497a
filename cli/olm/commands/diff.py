"""``olm diff``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from olm.options import MODEL, all_option, output_options
from olm.screen import fitted, plain, print_json, say, shorten

if TYPE_CHECKING:
    from onnx_layermerge import Difference
    from onnx_layermerge.flow import Changed, Named

__all__ = ["diff"]

MOST, LETTERS = 40, 60


@click.command(short_help="Show what differs between two model files.")
@click.argument("a", metavar="A.onnx", type=MODEL)
@click.argument("b", metavar="B.onnx", type=MODEL)
@all_option
@output_options
def diff(a: str, b: str, everything: bool, as_json: bool, quiet: bool) -> None:
    """Show what differs from A to B: convolutions, weights, other nodes and their wiring, inputs and outputs, metadata.

    Both are compared as they stand in their files; nothing is folded, timed or run.
    """
    import onnx_layermerge

    found = onnx_layermerge.diff(a, b)
    if as_json:
        print_json(found)
    else:
        _show(found, everything)


def _show(found: Difference, everything: bool) -> None:
    before, after = found.convs
    counts = f"{before} -> {after} convolutions, {found.equal} of them equal"
    say(f"{found.a} -> {found.b}: {'nothing differs' if found.same else counts}", "bold")
    _named("Convolutions that are gone", found.gone, everything)
    _named("New convolutions", found.new, everything)
    _changed("Convolutions of another size", found.reshaped, everything)
    _weights("Convolutions with other weights", found.reweighted, everything)
    _named("Convolutions with a bias on one side only", found.biases, everything, "what differs")
    _named("Other tensors that are gone", found.tensors_gone, everything)
    _named("New other tensors", found.tensors_new, everything)
    _weights("Other tensors with other values", found.tensors, everything)
    _changed("Nodes that are gone, new or changed", found.nodes, everything)
    _changed("Functions", found.functions, everything)
    if found.operators:
        say()
        rows = [(name, *counts) for name, counts in found.operators.items()]
        fitted(("operator", ">before", ">after"), rows, "operator", everything, title="Operators of another number")
    _changed("Inputs, outputs and versions", found.interface, everything)
    _changed("Metadata", found.metadata, everything)


def _named(title: str, items: Sequence[Named], everything: bool, column: str = "sizes") -> None:
    _rows(title, ("name", column), [(item.name, _spaced(item.label)) for item in items], everything)


def _weights(title: str, items: Sequence[Changed], everything: bool) -> None:
    rows = [(item.name, _spaced(item.before), _share(item.change)) for item in items]
    _rows(title, ("name", "sizes", ">largest change"), rows, everything)


def _changed(title: str, items: Sequence[Changed], everything: bool) -> None:
    def cut(text: str) -> str:
        short = plain(_spaced(text)) or "–"
        return short if everything or len(short) <= LETTERS else f"{short[: LETTERS - 1]}…"

    rows = [(item.name, cut(item.before), cut(item.after)) for item in items]
    _rows(title, ("name", "before", "after"), rows, everything)


def _rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], everything: bool) -> None:
    if not rows:
        return
    shown, more = shorten(rows, MOST, everything)
    say()
    fitted(columns, shown, "name", everything, title=f"{title}: {len(rows)}")
    if more:
        say(more, "dim")


def _spaced(label: str) -> str:
    return " ".join(label.split())


def _share(change: float | None) -> str:
    """Relative to the largest weight of the first model."""
    if change is None:
        return "of another kind"
    return "from zero" if math.isinf(change) else f"{100 * change:.3g} %"
