"""bfloat16 models as float32 ones, and exactly back.

The CPU kernels of onnxruntime know no bfloat16 convolution, and NumPy no bfloat16 at all.  Every bfloat16 number is a
float32 number, so a widened model computes the same function, more precisely; the way back rounds to nearest even,
which returns the numbers that were widened bit by bit and rounds new ones once.

Some models are mixed (a Cast to float32 around a softmax), and between the two steps nodes come and go: Casts that do
nothing any more are folded away, new convolutions appear.  So the record says by *name* what was bfloat16 and what was
float32, a value that it does not name takes the type of its neighbours by the operator's own type variables, and where
two types meet in one operator a Cast is put between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, ShapeInferencePass

from onnx_layermerge.graph._graphs import all_graphs, all_nodes

__all__ = ["Widened", "narrow", "widen"]

_BRAIN, _SINGLE = ir.DataType.BFLOAT16, ir.DataType.FLOAT
# Integer attributes that name a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype", "stash_type")


@dataclass(frozen=True)
class Widened:
    """What a model was before :func:`widen`: names of values by type, and (first output, name) of attributes."""

    bfloat16: frozenset[str]
    float32: frozenset[str]
    attributes: frozenset[tuple[str, str]]


def widen(model: ir.Model) -> Widened | None:
    """Turn every bfloat16 of ``model`` into float32, in place: weights, inputs, outputs, constants, targets of Casts.

    Local functions are inlined first, as their types depend on the caller's.

    Returns:
        What :func:`narrow` needs; None, with the model untouched, where there is no bfloat16.
    """
    if not _has_bfloat16(model):
        return None
    if model.functions:
        InlinePass()(model)
    ShapeInferencePass()(model)
    brain: set[str] = set()
    single: set[str] = set()
    for value in _values(model):
        name = str(value.name)
        if value.dtype == _BRAIN:
            brain.add(name)
            _retype(value, _SINGLE)
        elif value.dtype == _SINGLE:
            single.add(name)
    attributes: set[tuple[str, str]] = set()
    for node in all_nodes(model.graph):
        for attribute in _typed_attributes(node, _BRAIN):
            attributes.add((str(node.outputs[0].name), attribute.name))
            node.attributes[attribute.name] = _converted(attribute, _SINGLE)
    return Widened(frozenset(brain), frozenset(single), frozenset(attributes))


def narrow(model: ir.Model, widened: Widened) -> None:
    """Give ``model``, a widened one or what was made of it, its bfloat16 back, in place.

    What ``widened`` names becomes what it was; new values and weights follow the operator that they belong to.
    """
    types = dict.fromkeys(widened.float32, _SINGLE) | dict.fromkeys(widened.bfloat16, _BRAIN)
    _narrow_graph(model.graph, types, widened, int(model.graph.opset_imports.get("", 0)))


def _has_bfloat16(model: ir.Model) -> bool:
    values = (*_values(model), *(v for f in model.functions.values() for n in all_nodes(f) for v in n.outputs))
    nodes = (*all_nodes(model.graph), *(node for f in model.functions.values() for node in all_nodes(f)))
    return any(value.dtype == _BRAIN for value in values) or any(
        True for node in nodes for _ in _typed_attributes(node, _BRAIN)
    )


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value, each once: inputs, initializers and what nodes make, in all graphs."""
    for graph in all_graphs(model.graph):
        listed = set(graph.inputs)
        yield from graph.inputs
        yield from (value for value in graph.initializers.values() if value not in listed)
        for node in graph:
            yield from node.outputs


def _typed_attributes(node: ir.Node, dtype: ir.DataType) -> Iterator[ir.Attr]:
    """Attributes of ``node`` that are, or that name, ``dtype``."""
    if node.domain not in ("", "ai.onnx"):
        return
    for attribute in list(node.attributes.values()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == dtype:
            yield attribute
        names_type = attribute.name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT
        if names_type and attribute.as_int() == dtype.value:
            yield attribute


def _converted(attribute: ir.Attr, dtype: ir.DataType) -> ir.Attr:
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.AttrTensor(attribute.name, _as(attribute.as_tensor(), dtype))
    return ir.AttrInt64(attribute.name, dtype.value)


def _as(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """The numbers of ``tensor`` in another type; rounding to bfloat16 is to nearest even."""
    array = np.asarray(tensor.numpy()).astype(dtype.numpy())
    return ir.Tensor(array, dtype=dtype, name=tensor.name)


def _retype(value: ir.Value, dtype: ir.DataType) -> None:
    if isinstance(value.type, ir.TensorType) or value.type is None:
        value.type = ir.TensorType(dtype)
    else:
        value.dtype = dtype  # sequences and optionals of tensors
    if value.const_value is not None and value.is_initializer() and value.const_value.dtype != dtype:
        value.const_value = _as(value.const_value, dtype)


def _narrow_graph(graph: ir.Graph, types: dict[str, ir.DataType], widened: Widened, opset: int) -> None:
    for value in (*graph.inputs, *graph.initializers.values()):
        if value.dtype == _SINGLE and str(value.name) in types:
            _retype(value, types[str(value.name)])
    for node in list(graph):
        for key in [key for output, key in widened.attributes if output == node.outputs[0].name]:
            if key in node.attributes:
                node.attributes[key] = _converted(node.attributes[key], _BRAIN)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _narrow_graph(attribute.as_graph(), types, widened, opset)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    _narrow_graph(body, types, widened, opset)
        for inputs, outputs in _groups(node, opset):
            _settle(graph, node, inputs, outputs, types)


def _groups(node: ir.Node, opset: int) -> list[tuple[list[int], list[ir.Value]]]:
    """Inputs (by index) and outputs that share a type variable; those of no known operator, if it makes one value."""
    floats = [value for value in node.outputs if value.dtype in (None, _SINGLE)]
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return [([], [value]) for value in floats]
    groups: dict[str, tuple[list[int], list[ir.Value]]] = {}
    for index, _ in enumerate(node.inputs):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if formal.is_homogeneous and not formal.type_str.startswith("tensor("):
            groups.setdefault(formal.type_str, ([], []))[0].append(index)
    for index, value in enumerate(node.outputs):
        formal = schema.outputs[min(index, len(schema.outputs) - 1)]
        if value not in floats:
            continue
        if formal.is_homogeneous:
            groups.setdefault(formal.type_str, ([], []))[1].append(value)
        else:
            groups[f"{formal.type_str} {index}"] = ([], [value])
    return list(groups.values())


def _settle(
    graph: ir.Graph, node: ir.Node, inputs: list[int], outputs: list[ir.Value], types: dict[str, ir.DataType]
) -> None:
    """One type for all: that on record for an output, else that of the first input that has one."""
    read = [(index, value) for index in inputs if (value := node.inputs[index]) is not None]
    known = [types[str(value.name)] for value in (*outputs, *(v for _, v in read)) if str(value.name) in types]
    if not known:
        return
    dtype = known[0]
    for value in outputs:
        types.setdefault(str(value.name), dtype)
        if value.dtype is not None:
            _retype(value, types[str(value.name)])
    for index, value in read:
        if value.dtype not in (_SINGLE, _BRAIN) or types.get(str(value.name)) == dtype:
            continue
        if str(value.name) not in types and value.is_initializer():
            _retype(value, dtype)
            types[str(value.name)] = dtype
            continue
        cast = ir.node("Cast", [value], attributes={"to": dtype.value}, name=f"{node.name}.cast.{index}")
        made = cast.outputs[0]
        made.name, made.type, made.shape = f"{node.outputs[0].name}.cast.{index}", ir.TensorType(dtype), value.shape
        types[str(made.name)] = dtype
        graph.insert_before(node, cast)
        node.replace_input_with(index, made)
