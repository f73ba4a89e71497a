"""Walk an ``onnx_ir.Model``: bodies of control flow included, in the order in which onnx_ir's own walks give them.

Reading a model asks for its graphs a dozen times over.  onnx_ir's iterator, made for callers who want to be told of
each graph that it enters and leaves, takes several times as long for that.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["all_graphs", "all_nodes"]

_HOLDING = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def all_graphs(graph: ir.Graph | ir.Function) -> Iterator[ir.Graph]:
    """The graphs inside ``graph``, at any depth, and before them ``graph`` itself unless it is a function."""
    if isinstance(graph, ir.Graph):
        yield graph
    for node in graph:
        for body in _bodies(node):
            yield from all_graphs(body)


def all_nodes(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """The nodes of ``graph``, each followed by those of the graphs inside it."""
    for node in graph:
        yield node
        for body in _bodies(node):
            yield from all_nodes(body)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.data.values():  # asked directly: the view goes through Python for every entry
        if attribute.type not in _HOLDING or attribute.is_ref():  # that stands for what a function's caller gives
            continue
        found.extend([attribute.value] if attribute.type == ir.AttributeType.GRAPH else attribute.value)
    return found
