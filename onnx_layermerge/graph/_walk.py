"""Walk an ``onnx.ModelProto``: bodies of control flow and local functions included, names as a reader knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import onnx
from onnx import AttributeProto

from onnx_layermerge.errors import ModelError

__all__ = ["all_nodes", "all_tensors", "bodies", "label", "may_hold", "opsets", "refuse"]

AGAIN = "export the model again"


def refuse(file: Path, what: str, advice: str = AGAIN) -> ModelError:
    """The error that names the file, what is wrong in it, and what to do."""
    return ModelError(f"{file}: {what}; {advice}.")


def label(node: onnx.NodeProto) -> str:
    """A node in words: its name, or what it makes where it has none, and its operator."""
    name = node.name or next((name for name in node.output if name), "without a name")
    return f"node '{name}' ({node.op_type})"


def opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Opset version by domain; ``ai.onnx`` and the empty domain are the same."""
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in imports}


_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_TENSORS = (AttributeProto.TENSOR, AttributeProto.TENSORS)


@lru_cache(maxsize=4096)
def may_hold(op_type: str, domain: str, types: tuple[int, ...]) -> bool:
    """Whether a node of this operator, in whatever version, can have an attribute of one of the ``types``.

    Looking at a node's attributes costs more than all else that is asked of it, and most operators never hold a graph
    or a tensor.  A node of onnx's own that holds one all the same does not pass onnx's checker.
    """
    try:
        schema = onnx.defs.get_schema(op_type, domain)
    except onnx.defs.SchemaError:
        return True
    return any(attribute.type.value in types for attribute in schema.attributes.values())  # type: ignore[attr-defined]


def bodies(node: onnx.NodeProto) -> Sequence[onnx.GraphProto]:
    """The graphs inside a node (branches of If, bodies of Loop and Scan), only the next level."""
    if not may_hold(node.op_type, node.domain, _GRAPHS):
        return ()
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """``nodes`` and those of the graphs inside them, at any depth."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from all_nodes(body.node)


def all_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """(name, tensor) of every initializer and tensor attribute; a Constant goes by the name of what it makes."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:
        if may_hold(node.op_type, node.domain, _TENSORS):
            name = next((name for name in node.output if name), node.name)
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield name, attribute.t
                elif attribute.type == AttributeProto.TENSORS:
                    for tensor in attribute.tensors:
                        yield name, tensor
        for body in bodies(node):
            yield from _of_graph(body)
