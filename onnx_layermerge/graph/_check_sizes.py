"""What shapes must satisfy: channels, groups, ranks, kernels that fit, and sizes that a machine can hold.

The shapes are inferred by onnx on a skeleton of the model, in which large weights are inputs: a gigabyte of weights is
never copied for it, and sizes are numbers, whatever they claim.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph._walk import all_nodes, all_tensors, bodies, label, opsets, refuse

__all__ = ["check_sizes", "skeleton"]

Shape = tuple[int | None, ...]

# Weights above this stand in the skeleton by type and shape alone; sizes, axes and bounds lie far below.
_SMALL_ELEMENTS = 256
# 16 GiB in float32: more than any one tensor of a network that can be timed and searched.
_MOST_ELEMENTS = 2**32
# 1 GiB in float32, made of nothing: preparing the model would compute it at once.
_MOST_CONSTANT_ELEMENTS = 2**28
_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"}
_DRAWN = {"RandomNormal", "RandomUniform", "Multinomial", "Bernoulli"}


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights, in bodies too, are inputs of the main graph instead."""
    bare = onnx.ModelProto(ir_version=model.ir_version)
    for field in ("opset_import", "functions", "metadata_props"):
        getattr(bare, field).extend(getattr(model, field))
    inputs = {value.name: value for value in model.graph.input}
    lifted: dict[str, onnx.ValueInfoProto] = {}
    _copy_graph(model.graph, bare.graph, lifted)
    bare.graph.input.extend(value for name, value in lifted.items() if name not in inputs)
    return bare


def _copy_graph(source: onnx.GraphProto, target: onnx.GraphProto, lifted: dict[str, onnx.ValueInfoProto]) -> None:
    target.name = source.name
    for field in ("input", "output", "value_info"):
        getattr(target, field).extend(getattr(source, field))
    for tensor in source.initializer:
        if _is_large(tensor):
            _lift(tensor.name, tensor, lifted)
        else:
            target.initializer.append(tensor)
    for node in source.node:
        if node.op_type == "Constant" and len(node.attribute) and _is_large(node.attribute[0].t):
            _lift(node.output[0], node.attribute[0].t, lifted)
            continue
        if not bodies(node):
            target.node.append(node)
            continue
        copy = target.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        copy.input.extend(node.input)
        copy.output.extend(node.output)
        for attribute in node.attribute:
            inner = copy.attribute.add(name=attribute.name, type=attribute.type)
            if attribute.type == onnx.AttributeProto.GRAPH:
                _copy_graph(attribute.g, inner.g, lifted)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for graph in attribute.graphs:
                    _copy_graph(graph, inner.graphs.add(), lifted)
            else:
                inner.CopyFrom(attribute)


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > _SMALL_ELEMENTS


def _lift(name: str, tensor: TensorProto, lifted: dict[str, onnx.ValueInfoProto]) -> None:
    value = helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
    if name in lifted and lifted[name] != value:
        # Two branches may call different weights the same; nothing is known then.
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.ClearField("shape")
    lifted[name] = value


def check_sizes(model: onnx.ModelProto, bare: onnx.ModelProto, file: Path) -> None:
    """Shapes of ``model``, whose :func:`skeleton` is ``bare`` and which passed onnx's checker.

    Raises:
        ModelError: a size that cannot be, or an operator whose sizes contradict each other; the message names it.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        for axis, size in enumerate(_dims(value)):
            if size is not None and size <= 0 and value.name not in weights:
                advice = "export it with a size above 0, or a name for one that varies"
                raise refuse(file, f"the input '{value.name}' has size {size} along axis {axis}", advice)
    try:
        # Without strict mode: a wrong note on some value is no reason to refuse a model that runs.
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        inferred = bare
    constant = weights - {value.name for value in model.graph.input}
    _check_graph(inferred.graph, {}, constant, file)
    _check_types(model, file)


def _check_types(model: onnx.ModelProto, file: Path) -> None:
    """Weights of convolutions are of a type that the operator takes in this opset."""
    version = opsets(model.opset_import)[""]
    types = {name: tensor.data_type for name, tensor in all_tensors(model)}
    for node in all_nodes(model.graph.node):
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain not in ("", "ai.onnx"):
            continue
        found = types.get(node.input[1])
        if found is None or _type_name(found) in _allowed(node.op_type, version):
            continue
        newest = onnx.defs.get_schema(node.op_type, onnx.defs.onnx_opset_version(), "")
        advice = "export it with floating-point weights"
        if _type_name(found) in _allowed(node.op_type, newest.since_version):
            advice = f"export it with opset {newest.since_version} or newer"
        what = f"has weights of type {TensorProto.DataType.Name(found)}, which opset {version} does not allow there"
        raise refuse(file, f"{label(node)} {what}", advice)


@lru_cache
def _allowed(op_type: str, version: int) -> frozenset[str]:
    constraints = onnx.defs.get_schema(op_type, version, "").type_constraints
    return frozenset(name for constraint in constraints for name in constraint.allowed_type_strs)


@lru_cache
def _type_name(data_type: int) -> str:
    """As operator schemas write it: ``tensor(float16)``."""
    return f"tensor({TensorProto.DataType.Name(data_type).lower()})"


def _dims(value: onnx.ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    return tuple([dim.dim_value if dim.HasField("dim_value") else None for dim in dims])


def _check_graph(graph: onnx.GraphProto, outer: MutableMapping[str, Shape], outside: set[str], file: Path) -> None:
    # A chain of maps is slow to ask, and the main graph has nothing around it.
    shapes: MutableMapping[str, Shape] = ChainMap({}, outer) if outer else {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = _dims(value)
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    constant = outside | {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        shape = shapes.get(value.name, ())
        if _is_above(_MOST_ELEMENTS, shape):
            raise _too_large(f"the input '{value.name}'", shape, file)
    for node in graph.node:
        inner = bodies(node)
        if not inner and node.op_type not in _DRAWN and all(name in constant for name in node.input if name):
            constant.update(node.output)
        for name in node.output:
            most = _MOST_CONSTANT_ELEMENTS if name in constant else _MOST_ELEMENTS
            shape = shapes.get(name, ())
            if _is_above(most, shape):
                raise _too_large(label(node), shape, file)
        if node.op_type in _WINDOWS and node.domain in ("", "ai.onnx"):
            _check_window(node, shapes, file)
        for body in inner:
            _check_graph(body, shapes, constant, file)


def _is_above(most: int, shape: Shape) -> bool:
    return math.prod([size for size in shape if size is not None]) > most


def _too_large(what: str, shape: Shape, file: Path) -> ModelError:
    text = "x".join("?" if size is None else str(size) for size in shape)
    return refuse(file, f"{what} is a tensor of {text} elements, more than can be worked with", "export it smaller")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _check_window(node: onnx.NodeProto, shapes: Mapping[str, Shape], file: Path) -> None:
    """A node that slides a window: shape x is [N, C, *size]; weight [M, C/g, *k], transposed [C, M/g, *k]."""
    attributes = _attributes(node)
    x = shapes.get(node.input[0]) if len(node.input) else None
    kernel: Sequence[int | None] = attributes.get("kernel_shape", ())

    def wrong(what: str) -> ModelError:
        return refuse(file, f"{label(node)} {what}")

    if node.op_type in ("Conv", "ConvTranspose"):
        weight = shapes.get(node.input[1])
        if weight is not None:
            _check_weight(node, weight, attributes, x, shapes, wrong)
            if kernel and (len(kernel) != len(weight) - 2 or not _agree(kernel, weight[2:])):
                raise wrong(f"has kernel_shape {list(kernel)}, but weights of shape {list(weight)}")
            kernel = weight[2:]
    rank = len(kernel)
    if not rank:
        return
    if x is not None and len(x) != rank + 2:
        raise wrong(f"slides over {rank} axes, but its input is of rank {len(x)}")
    for name, length, least in (("strides", rank, 1), ("dilations", rank, 1), ("pads", 2 * rank, 0)):
        values = attributes.get(name, ())
        if values and len(values) != length:
            raise wrong(f"has {len(values)} {name}, but needs {length}")
        if any(value < least for value in values):
            raise wrong(f"has {name} {list(values)}, which may not be below {least}")
    if any(size is not None and size <= 0 for size in kernel):
        raise wrong(f"has a kernel of size {list(kernel)}")
    if x is not None and node.op_type != "ConvTranspose":
        _check_fit(kernel, x[2:], attributes, wrong)


def _check_weight(
    node: onnx.NodeProto,
    weight: Shape,
    attributes: Mapping[str, Any],
    x: Shape | None,
    shapes: Mapping[str, Shape],
    wrong: Any,
) -> None:
    if len(weight) < 3:
        raise wrong(f"has weights of shape {list(weight)}, but needs at least 3 axes")
    if any(size is not None and size <= 0 for size in weight):
        raise wrong(f"has weights of shape {list(weight)}, which hold nothing")
    group = attributes.get("group", 1)
    if group < 1:
        raise wrong(f"has group {group}, which may not be below 1")
    transposed = node.op_type == "ConvTranspose"
    split = weight[0]
    if split is not None and split % group:
        side = "input" if transposed else "output"
        raise wrong(f"has group {group}, which does not divide its {split} {side} channels")
    other = None if weight[1] is None else weight[1] * group
    reads, makes = (split, other) if transposed else (other, split)
    given = x[1] if x is not None and len(x) > 1 else None
    if given is not None and reads is not None and given != reads:
        raise wrong(f"reads {given} channels, but its weights are for {reads} in {group} groups")
    bias = shapes.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is not None and (len(bias) != 1 or not _agree(bias, (makes,))):
        raise wrong(f"has a bias of shape {list(bias)}, but {makes} output channels")


def _check_fit(kernel: Iterable[int | None], sizes: Shape, attributes: Mapping[str, Any], wrong: Any) -> None:
    rank = len(sizes)
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        return
    pads = [0] * (2 * rank) if mode == b"VALID" else attributes.get("pads") or [0] * (2 * rank)
    dilations = attributes.get("dilations") or [1] * rank
    for axis, (size, taps) in enumerate(zip(sizes, kernel, strict=True)):
        if size is None or taps is None:
            continue
        reach, room = dilations[axis] * (taps - 1) + 1, size + pads[axis] + pads[axis + rank]
        if reach > room:
            raise wrong(f"has a kernel that spans {reach} along axis {axis + 2}, but its padded input has {room}")


def _agree(first: Sequence[int | None], second: Sequence[int | None]) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(first, second, strict=True))
