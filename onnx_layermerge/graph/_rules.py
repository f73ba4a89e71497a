"""Rewrite rules for leftovers of exporters; each changes the main graph in place and says whether it did."""

from __future__ import annotations

import onnx_ir as ir

from onnx_layermerge.graph._constants import constant, integers, is_op, only_reader

__all__ = ["cancel_pairs", "remove_dropout"]


def _bypass(node: ir.Node, source: ir.Value) -> bool:
    """Let ``source`` stand for the node's output and remove the node; False when a graph output forbids it."""
    output = node.outputs[0]
    if any(other.uses() or other.is_graph_output() for other in node.outputs[1:]):
        return False
    name = output.name
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not node.graph or source.is_graph_output():
            return False
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        output.name, source.name = f"{name}.replaced", name
    else:
        output.replace_all_uses_with(source)
    if source.shape is None:
        source.shape = output.shape
    graph = node.graph
    if graph is not None:
        graph.remove(node, safe=True)
    return True


def remove_dropout(model: ir.Model) -> bool:
    """Dropout is the identity outside of training, which up to opset 11 it cannot be in."""
    changed = False
    for node in tuple(model.graph):
        if not is_op(node, "Dropout") or node.inputs[0] is None:
            continue
        training = node.inputs[2] if len(node.inputs) > 2 else None
        if training is not None:
            flag = constant(training)
            if flag is None or flag.any():
                continue
        changed |= _bypass(node, node.inputs[0])
    return changed


def cancel_pairs(model: ir.Model) -> bool:
    """Neighbours that only move axes about:

    1. Squeeze and Unsqueeze of the same axes, in either order, are nothing;
    2. a Reshape to constant sizes does not care how its input was reshaped before;
    3. a Reshape to the sizes that are there already is nothing.
    """
    changed = False
    for node in tuple(model.graph):
        if is_op(node, "Squeeze", "Unsqueeze"):
            before = node.inputs[0].producer() if node.inputs[0] is not None else None
            opposite = "Unsqueeze" if node.op_type == "Squeeze" else "Squeeze"
            if before is not None and is_op(before, opposite) and before.inputs[0] is not None:
                axes = _axes(before)
                if axes is not None and axes == _axes(node):  # case 1
                    changed |= _bypass(node, before.inputs[0])
        elif is_op(node, "Reshape"):
            changed |= _simplify_reshape(node)
    return changed


def _axes(node: ir.Node) -> list[int] | None:
    """Squeezed or inserted axes, counted from the front of the larger shape."""
    axes = integers(node, "axes", 1)
    if axes is None or all(axis >= 0 for axis in axes):
        return None if axes is None else sorted(axes)
    larger = node.inputs[0] if node.op_type == "Squeeze" else node.outputs[0]
    if larger is None or larger.shape is None:
        return None
    return sorted(axis % len(larger.shape) for axis in axes)


def _simplify_reshape(node: ir.Node) -> bool:
    source = node.inputs[0]
    if source is None:
        return False
    changed = False
    sizes = constant(node.inputs[1])
    while sizes is not None and 0 not in sizes and only_reader(source) is node:
        before = source.producer()
        moves_nothing = is_op(before, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
        if before is None or before.inputs[0] is None or not moves_nothing:
            break
        source = before.inputs[0]
        node.replace_input_with(0, source)  # case 2
        changed = True
    if _same_sizes(source.shape, node.outputs[0].shape):
        return _bypass(node, source) or changed  # case 3
    return changed


def _same_sizes(shape: ir.Shape | None, other: ir.Shape | None) -> bool:
    """Whether shapes of equally many elements are the same: all sizes are known and agree, but for one axis at most."""
    if shape is None or other is None or len(shape) != len(other):
        return False
    known = [isinstance(a, int) and isinstance(b, int) for a, b in zip(shape, other, strict=True)]
    agree = all(a == b and a != 0 for a, b, both in zip(shape, other, known, strict=True) if both)
    return agree and known.count(False) <= 1
