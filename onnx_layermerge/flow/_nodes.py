"""Nodes as text, for comparing two files: what they are, read, write and hold.  Equal nodes have equal texts.

Names of nodes, documentation and metadata of nodes are left out: nothing is computed from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["NodeText", "function_texts", "node_text", "texts_of_both"]

# Longer lists and tensors stand as a digest.
_SHOWN = 8


@dataclass(frozen=True)
class NodeText:
    """``attributes`` by name; names of values in order, "" for one that is left out, none of these at the end."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str]

    def line(self, attributes: Iterable[str], *, outputs: bool = False) -> str:
        """``LeakyRelu(x) alpha=0.1`` with only these attributes, and with what it writes where that is asked for."""
        words = [f"{self.op}({', '.join(self.inputs)})"]
        words += [f"-> {', '.join(self.outputs)}"] if outputs else []
        words += [f"{key}={self.attributes[key]}" for key in attributes if key in self.attributes]
        return " ".join(words)


def node_text(node: ir.Node) -> NodeText:
    """Everything that the node computes from; tensors and bodies are digested whole."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return NodeText(
        ".".join(filter(None, (domain, node.op_type, node.overload))),
        _names(node.inputs),
        _names(node.outputs),
        {key: _attribute(node.attributes[key]) for key in sorted(node.attributes)},
    )


def texts_of_both(a: NodeText | None, b: NodeText | None) -> tuple[str, str]:
    """Lines that tell two nodes apart, of what differs alone; "" for one that is not there."""
    if a is None or b is None:
        return "" if a is None else a.line(a.attributes), "" if b is None else b.line(b.attributes)
    keys = sorted({*a.attributes, *b.attributes})
    keys = [key for key in keys if a.attributes.get(key) != b.attributes.get(key)]
    moved = a.outputs != b.outputs
    return a.line(keys, outputs=moved), b.line(keys, outputs=moved)


def function_texts(model: ir.Model) -> dict[str, str]:
    """The model's own functions by name: how many nodes, and a digest of all."""
    found = {}
    for (domain, name, overload), function in model.functions.items():
        head = [f"{key}={_attribute(function.attributes[key])}" for key in sorted(function.attributes)]
        head += [f"{key} {version}" for key, version in sorted(function.opset_imports.items())]
        digest = _digest("\n".join((*head, _graph(function.graph))).encode())
        found[".".join(filter(None, (domain, name, overload)))] = f"{len(function.graph)} nodes, {digest}"
    return found


def _names(values: Sequence[ir.Value | None]) -> tuple[str, ...]:
    names = ["" if value is None else str(value.name or "") for value in values]
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    kind, value = attribute.type, attribute.value
    many = kind.name.endswith("S")
    items = list(value) if many else [value]
    if kind in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        texts = [f"body of {len(graph)} nodes, {_digest(_graph(graph).encode())}" for graph in items]
    elif kind in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
        texts = [_tensor(tensor) for tensor in items]
    elif kind in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        texts = [str(np.float32(number)) for number in items]
    elif kind in (ir.AttributeType.STRING, ir.AttributeType.STRINGS):
        texts = [repr(text) for text in items]
    else:
        texts = [str(item) for item in items]
    if not many:
        return texts[0]
    listed = f"[{', '.join(texts)}]"
    return listed if len(texts) <= _SHOWN else f"{len(texts)} values, {_digest(listed.encode())}"


def _tensor(tensor: ir.TensorProtocol | None) -> str:
    if tensor is None:
        return "none"
    array = tensor.numpy()
    sizes = f"{tensor.dtype.name.lower()}[{', '.join(map(str, array.shape))}]"
    if array.size <= _SHOWN or array.dtype.kind == "O":  # the bytes of an array of objects are addresses
        listed = repr(array.tolist())
        return f"{sizes} {listed if array.size <= _SHOWN else _digest(listed.encode())}"
    return f"{sizes} {_digest(array.tobytes())}"


def _graph(graph: ir.Graph) -> str:
    """A body: what it takes and gives, its weights, its nodes in their order."""
    lines = [f"{value.name}: {value.dtype} {value.shape}" for value in (*graph.inputs, *graph.outputs)]
    lines.insert(len(graph.inputs), "gives")
    lines += [f"{name} = {_tensor(value.const_value)}" for name, value in sorted(graph.initializers.items())]
    for node in graph:
        text = node_text(node)
        lines.append(text.line(text.attributes, outputs=True))
    return "\n".join(lines)


def _digest(data: bytes) -> str:
    return f"SHA-256 {hashlib.sha256(data).hexdigest()[:16]}"
