"""Channels-last models: move their Transposes through what lies between until they meet and cancel.

Exporters of channels-last frameworks wrap each convolution into two Transposes, and a row of them never looks like a
row of convolutions.  Every value v is followed here as v = Transpose(w, p), axis i of v being axis p[i] of w:

1. a Transpose by q makes Transpose(w, p∘q), (p∘q)[i] = p[q[i]], and costs nothing yet;
2. an operator that can work on w as well, its axes and constants moved along (``_axes.py``), does so;
3. any other operator, and a graph output, gets v itself: a Transpose, if p is not the identity.

This is worked out before anything is touched.  Transposes that do not become fewer by it stay where they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_layermerge.graph._axes import Moved, Perm, moved
from onnx_layermerge.graph._constants import is_op, new_initializer

__all__ = ["cancel_transposes"]

# What stays in one plan changes the gains of the next; two or three settle it.
_MOST_PLANS = 16


@dataclass
class _Plan:
    """``layout``: (w, p) of each value that is not its own w; ``moves``: nodes of case 2; ``needed``: values of
    case 3 per set of Transposes that depend on each other; ``sets``: that set of each Transpose."""

    layout: dict[ir.Value, tuple[ir.Value, Perm]] = field(default_factory=dict)
    moves: dict[ir.Node, Moved] = field(default_factory=dict)
    needed: dict[tuple[ir.Value, Perm], ir.Value] = field(default_factory=dict)
    transposes: list[ir.Node] = field(default_factory=list)
    parent: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def root(self, value: ir.Value) -> ir.Value:
        while (above := self.parent.get(value, value)) is not value:
            self.parent[value] = self.parent.get(above, above)
            value = above
        return value

    def join(self, values: list[ir.Value]) -> None:
        for value in values[1:]:
            self.parent[self.root(value)] = self.root(values[0])


def cancel_transposes(model: ir.Model) -> bool:
    """Move and cancel Transposes in place; False when nothing would be gained."""
    graph = model.graph
    if not any(is_op(node, "Transpose") for node in graph):
        return False
    opset = graph.opset_imports.get("", 1)
    fixed: set[ir.Node] = set()
    for _ in range(_MOST_PLANS):
        plan = _plan(graph, fixed, opset)
        if not plan.transposes:
            return False
        gain = Counter(plan.root(node.outputs[0]) for node in plan.transposes)
        gain.subtract(plan.root(value) for value in plan.needed.values())
        worse = [node for node in plan.transposes if gain[plan.root(node.outputs[0])] <= 0]
        if not worse:
            _apply(graph, plan)
            return True
        fixed.update(worse)
    return False


def _plan(graph: ir.Graph, fixed: set[ir.Node], opset: int) -> _Plan:
    plan = _Plan()
    for node in graph:
        perm = _perm(node)
        source = node.inputs[0] if node.inputs else None
        if perm is not None and source is not None and node not in fixed:
            base, before = plan.layout.get(source, (source, tuple(range(len(perm)))))
            plan.layout[node.outputs[0]] = base, tuple(before[axis] for axis in perm)
            plan.transposes.append(node)
            # A value that merely is there ties nobody together; one that was moved does.
            plan.join([node.outputs[0], source] if source in plan.layout else [node.outputs[0]])
        elif (move := _move(node, plan, opset)) is not None:
            plan.moves[node] = move
            for output in node.outputs:
                if move.perm is not None:
                    plan.layout[output] = output, move.perm
            moving = [value for value in node.inputs if value is not None and value in plan.layout]
            plan.join([node.outputs[0], *node.outputs[1:], *moving])
        else:
            for value in node.inputs:
                _need(plan, value)
        for output in node.outputs:
            if output.is_graph_output() or any(use.node.graph is not graph for use in output.uses()):
                _need(plan, output)
    return plan


def _perm(node: ir.Node) -> Perm | None:
    if not is_op(node, "Transpose"):
        return None
    perm = node.attributes.get_ints("perm")
    if perm is not None:
        return tuple(perm)
    shape = node.outputs[0].shape or (node.inputs[0].shape if node.inputs[0] is not None else None)
    return None if shape is None else tuple(reversed(range(len(shape))))


def _move(node: ir.Node, plan: _Plan, opset: int) -> Moved | None:
    perms = {plan.layout[value][1] for value in node.inputs if value is not None and value in plan.layout}
    if len(perms) != 1:
        return None
    perm = perms.pop()
    carried = tuple(value is not None and value in plan.layout for value in node.inputs)
    return None if perm == tuple(range(len(perm))) else moved(node, perm, carried, opset)


def _need(plan: _Plan, value: ir.Value | None) -> None:
    if value is not None and value in plan.layout:
        base, perm = plan.layout[value]
        if perm != tuple(range(len(perm))):
            plan.needed.setdefault((base, perm), value)


def _apply(graph: ir.Graph, plan: _Plan) -> None:
    made: dict[tuple[ir.Value, Perm], ir.Value] = {}

    def stored(value: ir.Value) -> ir.Value:
        return plan.layout[value][0] if value in plan.layout else value

    def original(value: ir.Value) -> ir.Value:
        if value not in plan.layout:
            return value
        base, perm = plan.layout[value]
        return base if perm == tuple(range(len(perm))) else made.setdefault((base, perm), value)

    for node in tuple(graph):
        if _perm(node) is not None and node.outputs[0] in plan.layout:
            _settle(graph, node, plan, made)
            continue
        move = plan.moves.get(node)
        for index, value in enumerate(node.inputs):
            if value is not None and value in plan.layout:
                node.replace_input_with(index, stored(value) if move is not None else original(value))
        if move is None:
            continue
        _carry_out(graph, node, move)
        if move.perm is not None:
            for output in node.outputs:
                _keep_original(graph, node, output, move.perm, plan, made)
    # Those that are left over would still count as readers of what they read.
    for node in reversed(plan.transposes):
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)


def _settle(graph: ir.Graph, node: ir.Node, plan: _Plan, made: dict[tuple[ir.Value, Perm], ir.Value]) -> None:
    """A Transpose stays, over the moved value, only where somebody needs just what it makes."""
    output = node.outputs[0]
    base, perm = plan.layout[output]
    if plan.needed.get((base, perm)) is output:
        node.replace_input_with(0, base)
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
        made[base, perm] = output
        return
    instead = made.get((base, perm), base)
    nested = [(use.node, use.idx) for use in output.uses() if use.node.graph is not graph]
    same = (base, perm) in made or perm == tuple(range(len(perm)))
    if not same:
        return  # readers look the value up; nobody outside of the row does
    for reader, index in nested:
        reader.replace_input_with(index, instead)
    if output.is_graph_output():
        _hand_over(graph, node, output, instead)


def _hand_over(graph: ir.Graph, node: ir.Node, output: ir.Value, instead: ir.Value) -> None:
    """A graph output that equals another value: that takes its name, or a node of its own does."""
    name = output.name
    if instead.producer() is not None and not instead.is_graph_output():
        output.replace_all_uses_with(instead, replace_graph_outputs=True)
        output.name, instead.name = f"{name}.replaced", name
        return
    same = ir.node("Identity", [instead], name=node.name)
    same.outputs[0].shape, same.outputs[0].type = output.shape, output.type
    graph.insert_after(node, same)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = same.outputs[0]
    output.name, same.outputs[0].name = f"{name}.replaced", name
    node.name = f"{node.name}.replaced"


def _carry_out(graph: ir.Graph, node: ir.Node, move: Moved) -> None:
    for attribute in move.attributes:
        node.attributes[attribute.name] = attribute
    for index, array in sorted(move.constants.items()):
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        before = node.inputs[index]
        label = f"{node.name}.{index}" if before is None or not before.name else f"{before.name}.moved"
        node.replace_input_with(index, new_initializer(graph, label, array))


def _keep_original(
    graph: ir.Graph,
    node: ir.Node,
    output: ir.Value,
    perm: Perm,
    plan: _Plan,
    made: dict[tuple[ir.Value, Perm], ir.Value],
) -> None:
    """The node makes the moved value now; where the original is read, a Transpose behind it makes that."""
    name, shape = str(output.name), output.shape
    if plan.needed.get((output, perm)) is not None:
        back = ir.node("Transpose", [output], {"perm": perm}, name=f"{node.name}.transpose")
        value = back.outputs[0]
        value.shape, value.type = shape, output.type
        graph.insert_after(node, back)
        for reader, index in [(use.node, use.idx) for use in output.uses() if use.node.graph is not graph]:
            reader.replace_input_with(index, value)
        for index, each in enumerate(graph.outputs):
            if each is output:
                graph.outputs[index] = value
        output.name, value.name = f"{name}.moved", name
        made[output, perm] = value
    else:
        output.name = f"{name}.moved"
    if shape is not None:
        dims: list[int | ir.SymbolicDim] = [0] * len(perm)
        for axis, place in enumerate(perm):
            dims[place] = shape[axis]
        output.shape = ir.Shape(dims)
