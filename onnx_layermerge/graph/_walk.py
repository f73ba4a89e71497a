"""Walk an ``onnx.ModelProto``: bodies of control flow and local functions included, names as a reader knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from onnx_layermerge.errors import ModelError

__all__ = ["all_nodes", "all_tensors", "bodies", "label", "opsets", "refuse"]

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


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node (branches of If, bodies of Loop and Scan), only the next level."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


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
        name = next((name for name in node.output if name), node.name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield name, attribute.t
            elif attribute.type == onnx.AttributeProto.TENSORS:
                for tensor in attribute.tensors:
                    yield name, tensor
        for body in bodies(node):
            yield from _of_graph(body)
