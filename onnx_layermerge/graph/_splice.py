"""Put a short series of convolutions, or nothing, between two values of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_layermerge.graph._activations import Activation, activation_nodes
from onnx_layermerge.graph._convs import Conv, conv_value

__all__ = ["Series", "append_series", "splice", "sweep"]

Series = Sequence[tuple[Conv, Activation | None]]
"""Convolutions in order, each with the activation behind it."""


def append_series(graph: ir.Graph, source: ir.Value, series: Series, name: str) -> tuple[list[ir.Node], ir.Value]:
    """The nodes of ``series`` reading ``source``, not yet placed in the graph, and their last value."""
    nodes: list[ir.Node] = []
    value = source
    for number, (conv, activation) in enumerate(series):
        label = name if len(series) == 1 else f"{name}.{number}"
        node, value = conv_value(graph, value, conv, label)
        nodes.append(node)
        if activation is not None:
            more, value = activation_nodes(graph, value, activation, f"{label}.{activation.label}")
            nodes += more
    return nodes, value


def splice(graph: ir.Graph, entry: str, exit: str, series: Series, name: str) -> None:
    """Let ``series(entry)`` (``entry`` itself when it is empty) stand for ``exit``, in place.

    The new value takes over the name ``exit``; what nobody reads any more stays until :func:`sweep`.
    """
    values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    source, target = values[entry], values[exit]
    producer = source.producer()
    while any(key.startswith(f"{name}.") for key in graph.initializers):
        name += "'"  # a model that was compressed before has such names already
    if not series and not target.is_graph_output():
        target.replace_all_uses_with(source)
        return
    nodes, value = append_series(graph, source, series, name)
    if not nodes:
        nodes = [ir.node("Identity", [source], name=name)]
        value = nodes[0].outputs[0]
    value.shape, value.type = target.shape, target.type
    target.name, value.name = f"{exit}.replaced", exit
    if producer is not None:
        graph.insert_after(producer, nodes)
    elif len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)
    target.replace_all_uses_with(value, replace_graph_outputs=True)


def sweep(model: ir.Model) -> None:
    """Remove nodes and initializers that no output depends on."""
    RemoveUnusedNodesPass()(model)
