"""What a graph must satisfy before anything is computed with it; each refusal names the node or the value.

Nothing here looks at sizes or weights (``_check_sizes``, ``_check_tensors``), so nothing is allocated.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import onnx

from onnx_layermerge.graph._order import edges_of
from onnx_layermerge.graph._walk import all_nodes, all_tensors, bodies, label, may_hold, opsets, refuse

__all__ = ["check_structure", "check_text"]

_T = TypeVar("_T", bound=Hashable)
_SPARSE = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)
_ONNX_DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview.training")
_QUANTIZED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
}


def check_text(model: onnx.ModelProto, file: Path) -> None:
    """Every name is text; protobuf hands damaged ones over as bytes, which nothing else here expects.

    Raises:
        ModelError: one is not.
    """
    if not all(_are_text(names) for names in _names(model)):
        raise refuse(file, "a name in the model is no text", "the file may be damaged, so export it again")


def _are_text(names: Iterable[object]) -> bool:
    return all(isinstance(name, str) for name in names)


def _names(model: onnx.ModelProto) -> Iterator[Iterable[object]]:
    """A few at a time: handing them on one by one would take longer than looking at them."""
    yield [entry.domain for entry in model.opset_import]
    yield from _names_of_graph(model.graph)
    for function in model.functions:
        yield function.domain, function.name, *function.input, *function.output
        yield [entry.domain for entry in function.opset_import]
        yield from _names_of_nodes(function.node)
    for name, tensor in all_tensors(model):
        yield name, *(text for entry in tensor.external_data for text in (entry.key, entry.value))


def _names_of_graph(graph: onnx.GraphProto) -> Iterator[Iterable[object]]:
    yield graph.name, *(value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from _names_of_nodes(graph.node)


def _names_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[Iterable[object]]:
    for node in nodes:
        attributes = [attribute.name for attribute in node.attribute]
        yield node.op_type, node.domain, node.name, *node.input, *node.output, *attributes
        for body in bodies(node):
            yield from _names_of_graph(body)


def check_structure(model: onnx.ModelProto, file: Path) -> None:
    """Names, order, operators; the nodes are sorted already, as far as they can be (``sort_nodes``).

    Raises:
        ModelError: quantized, an unknown operator, a value made twice or never, a cycle, or a sparse tensor.
    """
    functions = {(_domain(f.domain), f.name) for f in model.functions}
    _check_operators(model.graph.node, opsets(model.opset_import), functions, file)
    for function in model.functions:
        _check_operators(function.node, opsets(function.opset_import), functions, file)
    _check_graph(model.graph, [], set(), file)
    for function in model.functions:
        _check_nodes(function.node, set(function.input), function.output, [], set(), file)
    calls = {
        (_domain(f.domain), f.name): [
            key for node in all_nodes(f.node) if (key := (_domain(node.domain), node.op_type)) in functions
        ]
        for f in model.functions
    }
    loop = _cycle(calls)
    if loop:
        raise refuse(file, f"the local function '{loop[0][1]}' calls itself")


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


@lru_cache(maxsize=4096)
def _known(op_type: str, version: int, domain: str) -> str:
    """Why no model of this opset may use the operator, or nothing."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return "is no operator of"
    return "was removed from" if schema.deprecated else ""


def _check_operators(
    nodes: Iterable[onnx.NodeProto], imports: Mapping[str, int], functions: set[tuple[str, str]], file: Path
) -> None:
    for node in all_nodes(nodes):
        domain = _domain(node.domain)
        if node.op_type in _QUANTIZED or (domain == "com.microsoft" and node.op_type.startswith("QLinear")):
            advice = "compress the float model and quantize afterwards"
            raise refuse(file, f"the model is quantized, as {label(node)} shows", advice)
        held = node.attribute if may_hold(node.op_type, node.domain, _SPARSE) else ()
        if any(attribute.type in _SPARSE for attribute in held):
            raise refuse(file, f"{label(node)} holds a sparse tensor", "export it with dense weights")
        if (domain, node.op_type) in functions:
            continue
        if domain not in imports:
            raise refuse(file, f"{label(node)} is of the domain '{domain or 'ai.onnx'}', for which no opset is given")
        if domain in _ONNX_DOMAINS:
            fault = _known(node.op_type, imports[domain], domain)
            if fault:
                raise refuse(file, f"{label(node)} {fault} {domain or 'ai.onnx'} opset {imports[domain]}")


def _check_graph(graph: onnx.GraphProto, outer: list[set[str]], later: set[str], file: Path) -> None:
    given: set[str] = set()
    for value in graph.input:
        if value.name in given:
            raise refuse(file, f"two inputs are called '{value.name}'")
        given.add(value.name)
    if len(graph.sparse_initializer):
        name = graph.sparse_initializer[0].values.name
        raise refuse(file, f"the weights '{name}' are sparse", "export it with dense weights")
    held: set[str] = set()
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in held:
            raise refuse(file, f"two weights are called '{tensor.name}'" if tensor.name else "a weight has no name")
        held.add(tensor.name)
    _check_nodes(graph.node, given | held, [value.name for value in graph.output], outer, later, file)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto],
    given: set[str],
    outputs: Iterable[str],
    outer: list[set[str]],
    later: set[str],
    file: Path,
) -> None:
    """``outer``: what enclosing graphs have made so far; ``later``: what they make only behind this one."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in makers:
                raise refuse(file, f"'{name}' is made twice, by {label(nodes[makers[name]])} and by {label(node)}")
            if name in given:
                raise refuse(file, f"{label(node)} makes '{name}', which is an input or a weight already")
            makers[name] = index
    made = set(given)
    scopes = [*outer, made]
    for node in nodes:
        for name in node.input:
            if not name or name in made or any(name in scope for scope in outer):
                continue
            if name in makers:
                raise _in_a_circle(nodes, file)
            if name in later:
                what = f"{label(node)} reads '{name}', which is made from the output of the node around it, a cycle"
                raise refuse(file, what)
            raise refuse(file, f"{label(node)} reads '{name}', which nothing makes")
        for body in bodies(node):
            _check_graph(body, scopes, later | (makers.keys() - made), file)
        made.update(name for name in node.output if name)
    for name in outputs:
        if not any(name in scope for scope in reversed(scopes)):
            raise refuse(file, f"nothing makes the output '{name}'")


def _in_a_circle(nodes: Sequence[onnx.NodeProto], file: Path) -> Exception:
    """The refusal of nodes that ``sort_nodes`` could not sort."""
    loop = _cycle(dict(enumerate(edges_of(nodes))))
    return refuse(file, f"{label(nodes[loop[0]])} reads what is made from its own output, a cycle of {len(loop)}")


def _cycle(edges: Mapping[_T, Sequence[_T]]) -> list[_T]:
    """The members of one cycle in a directed graph, or nothing."""
    done: set[_T] = set()
    for start in edges:
        if start in done:
            continue
        path: dict[_T, None] = {start: None}
        stack = [iter(edges[start])]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                done.add(path.popitem()[0])
            elif step in path:
                members = list(path)
                return members[members.index(step) :]
            elif step not in done:
                path[step] = None
                stack.append(iter(edges.get(step, ())))
    return []
