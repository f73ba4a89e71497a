"""Put the nodes of an ``onnx.ModelProto`` into an order in which each reads only what those before it make.

The format asks for that order, but onnxruntime sorts for itself, so tools that insert nodes leave files without it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx

from onnx_layermerge.graph._walk import bodies

__all__ = ["edges_of", "sort_nodes"]


def sort_nodes(model: onnx.ModelProto) -> None:
    """Sort, in place, the nodes of every graph, body and function that is not sorted; one with a cycle stays as it is.

    Nodes move no further than they must: among those that may come next, the first in the file does.
    """
    for holder in (model.graph, *model.functions):
        _sort(holder)


def _sort(holder: onnx.GraphProto | onnx.FunctionProto) -> None:
    for node in holder.node:
        for body in bodies(node):
            _sort(body)
    if _is_sorted(holder.node):
        return
    edges = edges_of(holder.node)
    order = _ordered(edges)
    if len(order) == len(edges):
        _reorder(holder.node, order)


def _is_sorted(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether nothing is read before it is made; told without the edges, as most files are."""
    made: set[str] = set()
    wanted: set[str] = set()
    for node in nodes:
        wanted.update(name for name in _reads(node) if name and name not in made)
        if not wanted.isdisjoint(node.output):
            return False
        made.update(node.output)
    return True


def edges_of(nodes: Sequence[onnx.NodeProto]) -> list[list[int]]:
    """For each node the places of those whose outputs it reads, itself or in its bodies."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name:
                makers.setdefault(name, index)
    return [sorted({makers[name] for name in _reads(node) if name in makers}) for node in nodes]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for body in bodies(node):
        # What a body makes for itself may be called like a value outside.
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(name for inner in body.node for name in inner.output)
        outer = {name for inner in body.node for name in _reads(inner)}
        outer.update(value.name for value in body.output)
        yield from outer - own


def _ordered(edges: Sequence[Sequence[int]]) -> list[int]:
    """Places in the order wanted; those on or behind a cycle are missing."""
    readers: list[list[int]] = [[] for _ in edges]
    missing = [len(sources) for sources in edges]
    for index, sources in enumerate(edges):
        for source in sources:
            readers[source].append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order


def _reorder(nodes: Any, order: Iterable[int]) -> None:
    held = list(nodes)
    del nodes[:]
    nodes.extend(held[index] for index in order)
