"""A region, or what replaces it, as a model that can be timed in the surroundings it is deployed in.

Alone, a block pays for layout changes and memory traffic at its ends that the network around it would share.  So a
block is timed between two 1×1 convolutions and together with what follows its exit at once (skip-add, activation),
which backends fuse into the convolution before:

    x[N, 16, …] ─ 1×1 ─ entry ─ (region | replacement) ─ exit ─ [+ skip] ─ [activation] ─ 1×1 ─ y[N, 16, …]

These surroundings are equal for a region and for all its replacements, so their time cancels in old − new; that is
the only way the table is ever read: predicted = base + Σ (new − old).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from onnx_layermerge.candidates import Candidate, conv_from
from onnx_layermerge.graph import (
    Conv,
    Network,
    Region,
    Series,
    activation_of,
    cell_after,
    computed_inputs,
    conv_value,
    extract,
    model_of,
    splice,
    sweep,
    to_bytes,
)
from onnx_layermerge.latency._spec import BlockSpec

__all__ = ["placeholder", "region_block", "replacement_block", "structure_of"]

# Widths of the small ends: one SIMD block of every backend's channel-blocked layout.
_ENDS = 16
# Operators whose floating constants come from training, or may.
_LEARNED = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu", "Add", "Sub", "Mul", "Div"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"),
}
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)

Shapes = Mapping[str, tuple[int, ...]]


def region_block(network: Network, region: Region, shapes: Shapes) -> BlockSpec:
    """The region as it stands in the model; ``shapes`` are the traced shapes of all values."""
    return _spec(network, region, shapes, None, f"keep {region.entry} → {region.exit}")


def replacement_block(network: Network, candidate: Candidate, shapes: Shapes) -> BlockSpec:
    """The candidate in place of its region (weights random: time does not depend on them)."""
    return _spec(network, candidate.region, shapes, candidate, candidate.key)


def placeholder(network: Network, candidate: Candidate, seed: int = 0) -> Series:
    """The candidate's convolutions with small random weights."""
    rng = np.random.default_rng(seed)
    dtype = network.convs[candidate.region.convs[0]].weight.dtype
    series = []
    for stage in candidate.stages:
        weight = rng.standard_normal(stage.weight_shape) / stage.unknowns**0.5
        conv = conv_from(stage, weight, np.full(stage.channels_out, 0.01), dtype)
        series.append((conv, None if stage.activation is None else activation_of(network, stage.activation)))
    return tuple(series)


def _spec(network: Network, region: Region, shapes: Shapes, candidate: Candidate | None, label: str) -> BlockSpec:
    block = _block(network, region, shapes, candidate)
    inputs = {value.name: _static_shape(value) for value in block.graph.input}
    return BlockSpec(
        key=structure_of(block),
        label=label,
        # Built again when it is timed: keeping every block of a large network would take gigabytes.
        build=lambda copies: _copies(_block(network, region, shapes, candidate), copies),
        shapes=lambda copies: {f"c{r}/{name}": shape for r in range(copies) for name, shape in inputs.items()},
    )


def _block(network: Network, region: Region, shapes: Shapes, candidate: Candidate | None) -> onnx.ModelProto:
    """One copy: the surroundings around the region or around the candidate."""
    exit, skips = _surroundings(network, region)
    model = extract(network.model, list(dict.fromkeys((region.entry, *region.sides, *skips))), [exit])
    graph = model.graph
    dtype = network.convs[region.convs[0]].weight.dtype
    if candidate is not None:
        inner = candidate.region.exit
        if inner == exit or inner in ir.convenience.create_value_mapping(graph, include_subgraphs=False):
            splice(graph, region.entry, inner, placeholder(network, candidate), "replacement")
        sweep(model)
    # The small ends: a 1×1 convolution before every input that is not the model's own, and one behind the exit.
    names = {info.name for info in network.inputs}
    kept = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    graph.inputs.clear()
    for value in kept:
        shape = shapes[str(value.name)]
        if value.name in names or len(shape) < 3:
            value.shape = ir.Shape(shape)
            graph.inputs.append(value)
            continue
        small = ir.Value(name=f"{value.name}.small", shape=ir.Shape((shape[0], _ENDS, *shape[2:])), type=value.type)
        node, wide = conv_value(graph, small, _one_by_one(_ENDS, shape, dtype), f"{value.name}.widen")
        wide.type, wide.shape = value.type, ir.Shape(shape)
        if len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
        value.replace_all_uses_with(wide, replace_graph_outputs=True)
        graph.inputs.append(small)
    last = graph.outputs[0]
    shape = shapes[exit]
    node, narrow = conv_value(graph, last, _one_by_one(shape[1], (0, _ENDS, *shape[2:]), dtype), "narrow")
    narrow.type, narrow.shape = last.type, ir.Shape((shape[0], _ENDS, *shape[2:]))
    graph.append(node)
    graph.outputs[0] = narrow
    return onnx.load_from_string(to_bytes(model_of(graph, model)))


def _surroundings(network: Network, region: Region) -> tuple[str, list[str]]:
    """What follows the exit and is fused into it: (last value, other values that it reads)."""
    inside = set(network.order[region.start : region.stop])
    value, skips = network.values[region.exit], []
    users = network.users(value)
    if len(users) == 1 and users[0] < len(network.order) and network.order[users[0]].op_type == "Add":
        node = network.order[users[0]]
        others = [other for other in computed_inputs(node) if other is not value]
        if any(other.producer() in inside for other in others if other.producer() is not None):
            return region.exit, []
        skips = [str(other.name) for other in others if other.name != region.entry]
        value = node.outputs[0]
    cell = cell_after(network, value)
    return (str(value.name), skips) if cell is None else (cell.exit, skips)


def _one_by_one(channels_in: int, shape: tuple[int, ...], dtype: np.dtype) -> Conv:
    rank = len(shape) - 2
    ones = (1,) * rank
    weight = np.random.default_rng(1).standard_normal((shape[1], channels_in, *ones)) / channels_in**0.5
    return Conv(weight.astype(dtype), None, ones, ones, (0,) * (2 * rank), 1)


def _static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _copies(block: onnx.ModelProto, copies: int) -> bytes:
    """``copies`` of the block side by side, each with its own inputs, weights and output."""
    many = onnx.ModelProto()
    many.CopyFrom(block)
    many.graph.Clear()
    many.graph.name = "block"
    for index in range(copies):
        graph = onnx.compose.add_prefix_graph(block.graph, f"c{index}/")
        many.graph.node.extend(graph.node)
        many.graph.initializer.extend(graph.initializer)
        many.graph.input.extend(graph.input)
        many.graph.output.extend(graph.output)
    data: bytes = many.SerializeToString(deterministic=True)
    return data


def structure_of(block: onnx.ModelProto, shapes: str = "", *, learned: bool = True) -> str:
    """Hash of operators, attributes, wiring, shapes and dtypes (``shapes``: those of dynamic inputs, in words).

    Names and weights do not matter.  Small constants count; with ``learned`` off those alone that no training decides:
    the bounds of a Clip and the scales of a Resize, not the slope of a PRelu or the bias of a head.
    """
    numbers: dict[str, int] = {"": -1}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers) - 1)

    lines = [f"opset {sorted((entry.domain, entry.version) for entry in block.opset_import)} {shapes}"]
    for value in block.graph.input:
        lines.append(f"input {number(value.name)} {value.type.tensor_type.elem_type} {_static_shape(value)}")
    constants = {tensor.name: tensor for tensor in block.graph.initializer}
    for node in block.graph.node:
        for name in node.input:
            if name in constants and name not in numbers:
                tensor = constants[name]
                # Sizes, axes and the bounds of a Clip decide what is computed; weights only with which numbers.
                size = int(np.prod(tensor.dims, initial=1))
                decides = size <= 1 or (size <= 64 and (node.op_type != "Conv" or tensor.data_type in _INTEGERS))
                decides = decides and (learned or node.op_type not in _LEARNED or tensor.data_type in _INTEGERS)
                value = onnx.numpy_helper.to_array(tensor).tolist() if decides else ""
                lines.append(f"constant {number(name)} {tensor.data_type} {list(tensor.dims)} {value}")
        attributes = sorted((a.name, a.SerializeToString(deterministic=True).hex()) for a in node.attribute)
        wiring = [number(name) for name in node.input], [number(name) for name in node.output]
        lines.append(f"node {node.domain}:{node.op_type} {wiring} {attributes}")
    lines.append(f"output {[number(value.name) for value in block.graph.output]}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
