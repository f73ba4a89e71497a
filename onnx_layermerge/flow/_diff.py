"""What is different between two model files: interface, nodes and wiring, convolutions, weights, metadata.

Nothing is prepared, folded or run: both are compared as they stand in their files.  A convolution is the same one in
both where it has the same name, or, without names, the same output; any other node where it writes the same value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_layermerge.flow._nodes import NodeText, function_texts, node_text, texts_of_both
from onnx_layermerge.graph import load
from onnx_layermerge.report import sizes_label

__all__ = ["Changed", "Difference", "Named", "diff"]


@dataclass(frozen=True)
class Named:
    """A convolution (or another tensor) on one side only, with its sizes."""

    name: str
    label: str


@dataclass(frozen=True)
class Changed:
    """Something that both have: ``before`` and ``after`` are equal where only values differ.

    ``change`` is the largest difference of two weights over the largest of the first model's; None: of other shapes, or
    not numbers.
    """

    name: str
    before: str
    after: str
    change: float | None = None


@dataclass(frozen=True)
class Difference:
    """All that differs from ``a`` to ``b``; ``convs`` counts both sides' convolutions, ``equal`` those without change.

    ``reshaped`` are convolutions with other sizes, ``reweighted`` those with other weights or biases of the same shape,
    ``biases`` those that gained or lost one; one can be in several lists.  ``tensors`` are weights of other operators.
    ``nodes`` are all that differs beside: other nodes by the value they write (operator, attributes, bodies, what they
    read), and convolutions by name that have other pads, types or wiring.  ``operators`` counts those of another
    number.  What one side lacks in ``nodes``, ``functions``, ``interface`` or ``metadata`` is "".
    """

    a: str
    b: str
    convs: tuple[int, int]
    equal: int
    gone: tuple[Named, ...]
    new: tuple[Named, ...]
    reshaped: tuple[Changed, ...]
    reweighted: tuple[Changed, ...]
    biases: tuple[Named, ...]
    tensors_gone: tuple[Named, ...]
    tensors_new: tuple[Named, ...]
    tensors: tuple[Changed, ...]
    nodes: tuple[Changed, ...]
    functions: tuple[Changed, ...]
    operators: Mapping[str, tuple[int, int]]
    interface: tuple[Changed, ...]
    metadata: tuple[Changed, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        lists = (self.gone, self.new, self.reshaped, self.reweighted, self.biases, self.nodes, self.functions)
        tensors = (self.tensors_gone, self.tensors_new, self.tensors)
        return not (any(lists) or any(tensors) or self.operators or self.interface or self.metadata)


@dataclass(frozen=True, eq=False)
class _Conv:
    """``weight`` and ``bias`` are None where they are computed, ``biased`` is whether there is one at all."""

    label: str
    weight: np.ndarray | None
    bias: np.ndarray | None
    biased: bool
    text: NodeText


def diff(a: str | Path, b: str | Path) -> Difference:
    """Compare two files.

    Raises:
        ModelError: one cannot be read.
    """
    first, second = load(a), load(b)
    old, new = _convs(first), _convs(second)
    both = [name for name in old if name in new]
    reshaped = [Changed(name, old[name].label, new[name].label) for name in both if old[name].label != new[name].label]
    reweighted = [item for name in both if (item := _reweighted(name, old[name], new[name])) is not None]
    biases = [
        Named(name, "gained a bias" if new[name].biased else "lost its bias")
        for name in both
        if old[name].biased != new[name].biased
    ]
    rewired = _nodes({name: old[name].text for name in both}, {name: new[name].text for name in both})
    touched = {item.name for item in (*reshaped, *reweighted, *rewired)} | {item.name for item in biases}
    held, given = _tensors(first), _tensors(second)
    tensors = []
    for name in held:
        if name in given and not _equal(held[name], given[name]):
            change = _change(held[name], given[name])
            tensors.append(Changed(name, _shape(held[name]), _shape(given[name]), change))
    counts = _operators(first), _operators(second)
    return Difference(
        a=str(a),
        b=str(b),
        convs=(len(old), len(new)),
        equal=len(both) - len(touched),
        gone=tuple(Named(name, old[name].label) for name in old if name not in new),
        new=tuple(Named(name, new[name].label) for name in new if name not in old),
        reshaped=tuple(reshaped),
        reweighted=tuple(reweighted),
        biases=tuple(biases),
        tensors_gone=tuple(Named(name, _shape(held[name])) for name in held if name not in given),
        tensors_new=tuple(Named(name, _shape(given[name])) for name in given if name not in held),
        tensors=tuple(tensors),
        nodes=(*rewired, *_nodes(_others(first), _others(second))),
        functions=_texts(function_texts(first), function_texts(second)),
        operators={
            name: (counts[0][name], counts[1][name])
            for name in sorted({*counts[0], *counts[1]})
            if counts[0][name] != counts[1][name]
        },
        interface=(*_texts(_interface(first), _interface(second)), *_order(first, second)),
        metadata=_texts(first.metadata_props, second.metadata_props),
    )


def _is_conv(node: ir.Node) -> bool:
    return node.op_type == "Conv" and node.domain in ("", "ai.onnx")


def _convs(model: ir.Model) -> dict[str, _Conv]:
    found: dict[str, _Conv] = {}
    for node in model.graph:
        if not _is_conv(node):
            continue
        output = str(node.outputs[0].name)
        name = str(node.name or output)
        # Names of nodes need not be unique, those of values are.
        found[name if name not in found else f"{name} ({output})"] = _conv(node)
    return found


def _conv(node: ir.Node) -> _Conv:
    """Constant weights are compared by value, so their names, and what their sizes say, are no part of the text."""
    source, filters, shift = (*node.inputs, None)[:3]  # an omitted bias is either no input, or one without a name
    weight, bias = _array(filters), _array(shift)
    text = node_text(node)
    computed = [value for value, array in ((filters, weight), (shift, bias)) if value is not None and array is None]
    hidden = {"kernel_shape", "strides", "dilations", "group"} if weight is not None else set()
    attributes = {
        key: value
        for key, value in text.attributes.items()
        if key not in hidden and not (key == "auto_pad" and value == "'NOTSET'")
    }
    if "pads" in attributes and not any(node.attributes["pads"].as_ints()):
        del attributes["pads"]
    if weight is not None:
        attributes["type"] = str(weight.dtype)
    inputs = tuple("" if value is None else str(value.name) for value in (source, *computed))
    return _Conv(
        _label(node, weight), weight, bias, shift is not None, replace(text, inputs=inputs, attributes=attributes)
    )


def _label(node: ir.Node, weight: np.ndarray | None) -> str:
    if weight is None:
        return "computed weights"
    numbers = {key: tuple(node.attributes[key].as_ints()) for key in ("strides", "dilations") if key in node.attributes}
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return sizes_label(
        weight.shape[2:], weight.shape[1] * groups, weight.shape[0], numbers.get("strides", ()),
        numbers.get("dilations", ()), groups,
    )  # fmt: skip


def _others(model: ir.Model) -> dict[str, NodeText]:
    """All that are no convolutions, by the first value they write."""
    found = {}
    for number, node in enumerate(model.graph):
        if not _is_conv(node):
            text = node_text(node)
            found[next(filter(None, text.outputs), f"node {number}")] = text
    return found


def _nodes(a: Mapping[str, NodeText], b: Mapping[str, NodeText]) -> tuple[Changed, ...]:
    """Those that differ, in the order of the first model, then new ones."""
    names = (*a, *(name for name in b if name not in a))
    return tuple(
        Changed(name, *texts_of_both(a.get(name), b.get(name))) for name in names if a.get(name) != b.get(name)
    )


def _array(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _tensors(model: ir.Model) -> dict[str, np.ndarray]:
    """Initializers that are more than weights and biases of the convolutions which are compared on their own."""
    found = {}
    for name, value in model.graph.initializers.items():
        uses = list(value.uses())
        own = [_is_conv(use.node) and use.node.graph is model.graph and use.idx > 0 for use in uses]
        shown = not own or not all(own) or value.is_graph_output()
        if shown and (array := _array(value)) is not None:
            found[str(name)] = array
    return found


def _shape(array: np.ndarray) -> str:
    return f"{'×'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"


def _reweighted(name: str, a: _Conv, b: _Conv) -> Changed | None:
    """The larger change of weight and bias, as far as both have them in the same shape.  That one of the two is
    computed is another kind; a bias on one side alone is told apart from this."""
    changes: list[float | None] = []
    pairs = [(a.weight, b.weight)] + ([(a.bias, b.bias)] if a.biased and b.biased else [])
    for x, y in pairs:
        if x is None or y is None:
            changes += [None] if x is not y else []
        elif x.shape == y.shape and not _equal(x, y):
            change = _change(x, y)
            changes += [change] if x.dtype == y.dtype or change != 0.0 else []
    if not changes:
        return None
    known = [change for change in changes if change is not None]
    return Changed(name, a.label, b.label, max(known) if len(known) == len(changes) else None)


def _equal(x: np.ndarray, y: np.ndarray) -> bool:
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    # The bytes of an array of objects are addresses.
    return bool(np.array_equal(x, y)) if x.dtype.kind == "O" else x.tobytes() == y.tobytes()


def _change(x: np.ndarray, y: np.ndarray) -> float | None:
    """The largest difference over the largest of ``x``; None where they cannot be subtracted."""
    if x.shape != y.shape or x.dtype.kind in "OSU" or y.dtype.kind in "OSU":
        return None
    wide, other = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        most = float(np.abs(other - wide).max(initial=0.0))
    scale = float(np.abs(wide).max(initial=0.0))
    if not np.isfinite(most) or not np.isfinite(scale):
        return None
    return most / scale if scale > 0 else np.inf if most > 0 else 0.0


def _operators(model: ir.Model) -> Counter[str]:
    return Counter(f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph)


def _interface(model: ir.Model) -> dict[str, str]:
    found = {}
    for side, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if not value.is_initializer():
                shape = "?" if value.shape is None else f"[{', '.join(str(dim) for dim in value.shape)}]"
                found[f"{side} {value.name}"] = f"{value.dtype.name.lower() if value.dtype else '?'} {shape}"
    found |= {f"opset {domain or 'ai.onnx'}": str(opset) for domain, opset in model.graph.opset_imports.items()}
    found["ir_version"] = str(model.ir_version)
    return found


def _order(a: ir.Model, b: ir.Model) -> tuple[Changed, ...]:
    """Inputs or outputs that are the same ones in another order."""
    found = []
    for side, values in (("inputs", (a.graph.inputs, b.graph.inputs)), ("outputs", (a.graph.outputs, b.graph.outputs))):
        before, after = ([str(value.name) for value in each] for each in values)
        if before != after and sorted(before) == sorted(after):
            found.append(Changed(f"order of {side}", ", ".join(before), ", ".join(after)))
    return tuple(found)


def _texts(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Changed, ...]:
    return tuple(
        Changed(key, before.get(key, ""), after.get(key, ""))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    )
