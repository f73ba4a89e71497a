"""What is different between two model files: interface, operators, convolutions, weights, metadata.

Nothing is prepared, folded or run: both are compared as they stand in their files.  A convolution is the same one in
both where it has the same name, or, without names, the same output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

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

    ``reshaped`` are convolutions with other sizes, ``reweighted`` those with other weights or biases; ``tensors`` are
    weights of other operators.  ``operators`` counts those of another number.  A value of ``metadata``, or of
    ``interface``, that one side lacks is "".
    """

    a: str
    b: str
    convs: tuple[int, int]
    equal: int
    gone: tuple[Named, ...]
    new: tuple[Named, ...]
    reshaped: tuple[Changed, ...]
    reweighted: tuple[Changed, ...]
    tensors_gone: tuple[Named, ...]
    tensors_new: tuple[Named, ...]
    tensors: tuple[Changed, ...]
    operators: Mapping[str, tuple[int, int]]
    interface: tuple[Changed, ...]
    metadata: tuple[Changed, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        lists = (self.gone, self.new, self.reshaped, self.reweighted, self.tensors_gone, self.tensors_new, self.tensors)
        return not (any(lists) or self.operators or self.interface or self.metadata)


@dataclass(frozen=True, eq=False)
class _Conv:
    label: str
    arrays: tuple[np.ndarray | None, ...]


def diff(a: str | Path, b: str | Path) -> Difference:
    """Compare two files.

    Raises:
        ModelError: one cannot be read.
    """
    first, second = load(a), load(b)
    old, new = _convs(first), _convs(second)
    both = [name for name in old if name in new]
    reshaped = [Changed(name, old[name].label, new[name].label) for name in both if old[name].label != new[name].label]
    reweighted = []
    for name in both:
        if old[name].label == new[name].label and (change := _change(old[name].arrays, new[name].arrays)) != 0.0:
            reweighted.append(Changed(name, old[name].label, new[name].label, change))
    held, given = _tensors(first), _tensors(second)
    tensors = []
    for name in held:
        if name in given and (change := _change((held[name],), (given[name],))) != 0.0:
            tensors.append(Changed(name, _shape(held[name]), _shape(given[name]), change))
    counts = _operators(first), _operators(second)
    return Difference(
        a=str(a),
        b=str(b),
        convs=(len(old), len(new)),
        equal=len(both) - len(reshaped) - len(reweighted),
        gone=tuple(Named(name, old[name].label) for name in old if name not in new),
        new=tuple(Named(name, new[name].label) for name in new if name not in old),
        reshaped=tuple(reshaped),
        reweighted=tuple(reweighted),
        tensors_gone=tuple(Named(name, _shape(held[name])) for name in held if name not in given),
        tensors_new=tuple(Named(name, _shape(given[name])) for name in given if name not in held),
        tensors=tuple(tensors),
        operators={
            name: (counts[0][name], counts[1][name])
            for name in sorted({*counts[0], *counts[1]})
            if counts[0][name] != counts[1][name]
        },
        interface=_texts(_interface(first), _interface(second)),
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
        arrays = tuple(_array(value) for value in node.inputs[1:])
        # Names of nodes need not be unique, those of values are.
        found[name if name not in found else f"{name} ({output})"] = _Conv(_label(node, arrays[0]), arrays)
    return found


def _label(node: ir.Node, weight: np.ndarray | None) -> str:
    rest = [f"bias {'yes' if len(node.inputs) > 2 and node.inputs[2] is not None else 'no'}"]
    numbers = {
        key: tuple(node.attributes[key].as_ints()) for key in ("strides", "dilations", "pads") if _has(node, key)
    }
    groups = node.attributes["group"].as_int() if _has(node, "group") else 1
    if any(numbers.get("pads", ())):
        rest.append(f"pads {'×'.join(map(str, numbers['pads']))}")
    if _has(node, "auto_pad") and node.attributes["auto_pad"].as_string() != "NOTSET":
        rest.append(node.attributes["auto_pad"].as_string())
    if weight is None:
        return "  ".join(("computed weights", *rest))
    sizes = sizes_label(
        weight.shape[2:], weight.shape[1] * groups, weight.shape[0], numbers.get("strides", ()),
        numbers.get("dilations", ()), groups,
    )  # fmt: skip
    return "  ".join((sizes, *rest, str(weight.dtype)))


def _has(node: ir.Node, key: str) -> bool:
    return key in node.attributes


def _array(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.numpy()


def _tensors(model: ir.Model) -> dict[str, np.ndarray]:
    """Initializers that other operators read as well, or alone."""
    found = {}
    for name, value in model.graph.initializers.items():
        users = list(value.uses())
        if any(not _is_conv(use.node) for use in users) and (array := _array(value)) is not None:
            found[str(name)] = array
    return found


def _shape(array: np.ndarray) -> str:
    return f"{'×'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"


def _change(a: Iterable[np.ndarray | None], b: Iterable[np.ndarray | None]) -> float | None:
    """The largest relative change over pairs of arrays; None where they cannot be subtracted and differ."""
    most = 0.0
    for x, y in zip(a, b, strict=True):
        if x is None or y is None:
            if x is not y:
                return None
            continue
        if x.shape != y.shape or x.dtype != y.dtype:
            return None
        if x.tobytes() == y.tobytes():
            continue
        if x.dtype.kind in "OSU":
            return None
        wide, other = x.astype(np.float64), y.astype(np.float64)
        scale = np.abs(wide).max(initial=0.0)
        most = max(most, float(np.abs(other - wide).max(initial=0.0) / scale) if scale > 0 else np.inf)
    return most


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


def _texts(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Changed, ...]:
    return tuple(
        Changed(key, before.get(key, ""), after.get(key, ""))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    )
