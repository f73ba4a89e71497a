"""An ONNX model as a torch module that torch-pruning can trace, and its slimmer weights back into the ONNX model.

Importing and exporting are one table: a module keeps, under its ONNX node's number, the layer that holds the node's
weights; every other node is a function of torch.  Going back, the graph stays as it was and only initializers, groups
and the target sizes of flattening Reshapes change, so that names and everything around the convolutions survive.
Handled is what the benchmark's networks have; another operator is named in the error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch  # noqa: TID251
import torch.nn.functional as F  # noqa: TID251
from onnx import helper, numpy_helper
from torch import nn  # noqa: TID251

from onnx_layermerge.errors import ModelError

__all__ = ["OnnxNet", "with_weights_of"]

Tensor = torch.Tensor
# Shape arithmetic in front of a Reshape that flattens; the Reshape does not need it here.
_SIZES = ("Shape", "Slice", "Concat", "Gather", "Unsqueeze", "Constant")


class OnnxNet(nn.Module):
    """One image input, float values inside; ``layers`` holds Conv2d and Linear by node number."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        super().__init__()
        self.nodes = list(proto.graph.node)
        self.constants = {i.name: numpy_helper.to_array(i).copy() for i in proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _constant(node)
        self.input = next(i.name for i in proto.graph.input if i.name not in self.constants)
        self.output = proto.graph.output[0].name
        self.layers = nn.ModuleDict()
        for number, node in enumerate(self.nodes):
            layer = self._layer(node)
            if layer is not None:
                self.layers[str(number)] = layer

    def _layer(self, node: onnx.NodeProto) -> nn.Module | None:
        attributes = _attributes(node)
        if node.op_type == "Conv":
            return _conv(self.constants[node.input[1]], self._optional(node, 2), attributes)
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in self.constants:
            weight = self.constants[node.input[1]]
            if not (node.op_type == "Gemm" and attributes.get("transB")):
                weight = weight.T
            bias = self._optional(node, 2) if node.op_type == "Gemm" else None
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            _set(layer, weight, bias)
            return layer
        return None

    def _optional(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        return self.constants.get(node.input[index]) if len(node.input) > index else None

    def heads(self) -> list[nn.Module]:
        """The layers whose width is the output's own: nothing but functions lies behind them."""
        producers = {name: (k, node) for k, node in enumerate(self.nodes) for name in node.output}
        found, waiting = [], [self.output]
        while waiting:
            name = waiting.pop()
            if name not in producers:
                continue
            number, node = producers[name]
            if str(number) in self.layers:
                found.append(self.layers[str(number)])
            else:
                waiting += node.input
        return found

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Tensor] = {self.input: x}
        for number, node in enumerate(self.nodes):
            if node.op_type in _SIZES and node.input and node.input[0] in values and node.op_type == "Concat":
                raise ModelError("Concat of images is not handled by the benchmark's importer.")
            if node.op_type in _SIZES:
                continue
            values[node.output[0]] = self._run(node, number, values)
        return values[self.output]

    def _run(self, node: onnx.NodeProto, number: int, values: dict[str, Tensor]) -> Tensor:
        layer = dict(self.layers.items()).get(str(number))  # a ModuleDict has no get
        a, op = _attributes(node), node.op_type
        x = values[node.input[0]] if node.input[0] in values else torch.from_numpy(self.constants[node.input[0]])
        if op == "Conv":
            assert layer is not None
            begin, end = _pads(a, 2)
            return layer(x if begin == end else F.pad(x, (begin[1], end[1], begin[0], end[0])))  # type: ignore[no-any-return]
        if layer is not None:
            return layer(x)  # type: ignore[no-any-return]
        if op in ("Add", "Mul", "Sub", "Div"):
            other = node.input[1]
            y = values[other] if other in values else torch.from_numpy(self.constants[other])
            return {"Add": torch.add, "Mul": torch.mul, "Sub": torch.sub, "Div": torch.div}[op](x, y)  # type: ignore[no-any-return]
        if op in ("MaxPool", "AveragePool"):
            return _pool(op, x, a)
        if op == "Clip":
            low, high = (self._bound(node, a, k, name) for k, name in ((1, "min"), (2, "max")))
            return torch.clamp(x, low, high)
        if op == "ReduceMean":
            axes = a.get("axes") or [int(v) for v in self.constants[node.input[1]]]
            return x.mean(dim=list(axes), keepdim=bool(a.get("keepdims", 1)))
        if op in ("Reshape", "Flatten"):
            return x.flatten(1)
        simple: dict[str, Any] = {
            "Relu": F.relu,
            "HardSwish": F.hardswish,
            "Sigmoid": torch.sigmoid,
            "Identity": lambda v: v,
            "GlobalAveragePool": lambda v: F.adaptive_avg_pool2d(v, 1),
            "HardSigmoid": lambda v: torch.clamp(a.get("alpha", 0.2) * v + a.get("beta", 0.5), 0, 1),
            "Softmax": lambda v: torch.softmax(v, dim=a.get("axis", -1)),
            "Transpose": lambda v: v.permute(*a["perm"]),
        }
        if op not in simple:
            raise ModelError(f"{op} is not handled by the benchmark's importer.")
        return simple[op](x)  # type: ignore[no-any-return]

    def _bound(self, node: onnx.NodeProto, attributes: dict[str, Any], index: int, name: str) -> float | None:
        value = self._optional(node, index)
        return attributes.get(name) if value is None else float(value)


def with_weights_of(proto: onnx.ModelProto, net: OnnxNet) -> bytes:
    """A copy of ``proto`` with the layers' weights as they are now, whatever their sizes."""
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    graph = out.graph
    del graph.value_info[:]
    for number, node in enumerate(graph.node):
        if node.op_type == "Reshape":
            # A flattening one, or the import would have failed; the width is no longer what it says.
            graph.initializer.append(numpy_helper.from_array(np.array([0, -1]), f"{node.output[0]}.size"))
            node.input[1] = f"{node.output[0]}.size"
        if str(number) not in net.layers:
            continue
        layer = net.layers[str(number)]
        weight = layer.weight.detach().numpy()
        if isinstance(layer, nn.Linear) and not (node.op_type == "Gemm" and _attributes(node).get("transB")):
            weight = weight.T
        arrays = [("weight", weight)] + ([("bias", layer.bias.detach().numpy())] if layer.bias is not None else [])
        for index, (suffix, array) in enumerate(arrays, start=1):
            name = f"{node.output[0]}.{suffix}"
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
            node.input[index] = name
        if isinstance(layer, nn.Conv2d):
            kept = [attribute for attribute in node.attribute if attribute.name != "group"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("group", layer.groups)])
    _sweep(graph)
    onnx.checker.check_model(out, full_check=True)
    return out.SerializeToString()


def _sweep(graph: onnx.GraphProto) -> None:
    """Take out initializers and size arithmetic that nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        dead = [node for node in graph.node if not read & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _constant(node: onnx.NodeProto) -> np.ndarray:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    return numpy_helper.to_array(value) if attribute.name == "value" else np.asarray(value)


def _pads(attributes: dict[str, Any], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pads = tuple(attributes.get("pads") or (0,) * 2 * rank)
    return pads[:rank], pads[rank:]


def _conv(weight: np.ndarray, bias: np.ndarray | None, attributes: dict[str, Any]) -> nn.Conv2d:
    begin, end = _pads(attributes, 2)
    groups = attributes.get("group", 1)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        stride=tuple(attributes.get("strides") or (1, 1)),
        dilation=tuple(attributes.get("dilations") or (1, 1)),
        padding=begin if begin == end else 0,
        groups=groups,
        bias=bias is not None,
    )
    _set(layer, weight, bias)
    return layer


def _set(layer: nn.Module, weight: np.ndarray, bias: np.ndarray | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))  # type: ignore[operator]
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))  # type: ignore[operator]


def _pool(op: str, x: Tensor, attributes: dict[str, Any]) -> Tensor:
    kernel, strides = attributes["kernel_shape"], attributes.get("strides") or [1, 1]
    begin, end = _pads(attributes, 2)
    if attributes.get("ceil_mode") or (op == "AveragePool" and any((*begin, *end))):
        raise ModelError(f"{op} with padding or ceil_mode is not handled by the benchmark's importer.")
    if op == "AveragePool":
        return F.avg_pool2d(x, kernel, strides)
    if any((*begin, *end)):
        x = F.pad(x, (begin[1], end[1], begin[0], end[0]), value=-torch.inf)
    return F.max_pool2d(x, kernel, strides)
