"""Small generated networks: every form of layer and branch that the package has to know, with seeded weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import ShapeInferencePass

from onnx_layermerge.graph import Network, Session, network_of

Dim = int | str | None


class Net:
    """An ONNX graph written node by node; every method returns the name of the value it made, its node's name too."""

    def __init__(self, *, seed: int = 0, dtype: Any = np.float32, opset: int = 17) -> None:
        self.rng, self.dtype, self.opset = np.random.default_rng(seed), np.dtype(dtype), opset
        self.type = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.inputs: dict[str, tuple[Dim, ...]] = {}
        self.channels: dict[str, int] = {}
        self.rank = 2

    def input(self, name: str = "x", shape: Sequence[Dim] = ("N", 4, 8, 8)) -> str:
        self.inputs[name] = tuple(shape)
        self.channels[name] = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0
        self.rank = len(shape) - 2
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.weights[name] = array
        return name

    def node(self, op: str, *inputs: str, name: str, channels: int | None = None, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        self.channels[name] = self.channels.get(inputs[0], 0) if channels is None else channels
        return name

    def conv(
        self,
        source: str,
        name: str,
        out: int | None = None,
        kernel: int | Sequence[int] = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        pads: Sequence[int] | int | None = None,
        groups: int = 1,
        bias: bool = True,
        auto_pad: str | None = None,
        weight: np.ndarray | None = None,
    ) -> str:
        """A convolution; ``pads`` None keeps the size, an int pads every side."""
        wide = self.channels[source]
        sizes = (kernel,) * self.rank if isinstance(kernel, int) else tuple(kernel)
        if weight is None:
            shape = (out or wide, wide // groups, *sizes)
            weight = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        sizes = weight.shape[2:]
        inputs = [source, self.constant(f"{name}.w", weight.astype(self.dtype))]
        if bias:
            values = self.rng.standard_normal(len(weight)) / 4
            inputs.append(self.constant(f"{name}.b", values.astype(self.dtype)))
        attributes: dict[str, Any] = {"strides": [stride] * self.rank, "dilations": [dilation] * self.rank}
        if auto_pad is not None:
            attributes["auto_pad"] = auto_pad
        elif pads is None:
            attributes["pads"] = [dilation * (size // 2) for size in sizes] * 2
        else:
            attributes["pads"] = [pads] * (2 * self.rank) if isinstance(pads, int) else list(pads)
        return self.node("Conv", *inputs, name=name, channels=len(weight), group=groups, **attributes)

    def depthwise(self, source: str, name: str, kernel: int = 3, **options: Any) -> str:
        return self.conv(source, name, self.channels[source], kernel, groups=self.channels[source], **options)

    def relu(self, source: str, name: str) -> str:
        return self.node("Relu", source, name=name)

    def relu6(self, source: str, name: str) -> str:
        low = self.constant(f"{name}.min", np.array(0, self.dtype))
        return self.node("Clip", source, low, self.constant(f"{name}.max", np.array(6, self.dtype)), name=name)

    def add(self, left: str, right: str, name: str) -> str:
        return self.node("Add", left, right, name=name)

    def batch_norm(self, source: str, name: str, epsilon: float = 1e-5) -> str:
        wide, draw = self.channels[source], self.rng.uniform
        values = (draw(0.5, 1.5, wide), draw(-1, 1, wide), draw(-1, 1, wide), draw(0.05, 2.0, wide))
        labels = [
            self.constant(f"{name}.{part}", value.astype(self.dtype))
            for part, value in zip(("scale", "shift", "mean", "var"), values, strict=True)
        ]
        return self.node("BatchNormalization", source, *labels, name=name, epsilon=epsilon)

    def classifier(self, source: str, name: str = "scores", classes: int = 5) -> str:
        """Global pooling and a fully connected layer whose scores compete, as training by a softmax leaves them."""
        pooled = self.node("GlobalAveragePool", source, name=f"{name}.pool")
        flat = self.node("Flatten", pooled, name=f"{name}.flat")
        weight = self.rng.standard_normal((classes, self.channels[source]))
        weight -= weight.mean(axis=0)
        label = self.constant(f"{name}.w", weight.astype(self.dtype))
        return self.node("Gemm", flat, label, name=name, transB=1)

    def proto(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "zoo",
            [helper.make_tensor_value_info(name, self.type, list(shape)) for name, shape in self.inputs.items()],
            [helper.make_tensor_value_info(name, self.type, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model

    def network(self, *outputs: str) -> Network:
        """Laid out as it is, nothing folded."""
        return lay_out(self.proto(*outputs))

    def save(self, path: Path, *outputs: str) -> Path:
        onnx.save(self.proto(*outputs), path)
        return path


def lay_out(proto: onnx.ModelProto) -> Network:
    model = ir.from_proto(proto)
    ShapeInferencePass()(model)
    return network_of(model)


def plain() -> tuple[Net, str]:
    net = Net()
    c1 = net.conv(net.input(), "c1", 6)
    c2 = net.conv(net.relu(c1, "r1"), "c2", 6)
    return net, net.conv(net.relu(c2, "r2"), "c3", 6)


def line(*, dimensions: int = 1) -> tuple[Net, str]:
    """A chain over other than two spatial dimensions."""
    net = Net(seed=1)
    c1 = net.conv(net.input(shape=("N", 3, *[7] * dimensions)), "c1", 4)
    return net, net.conv(net.relu(c1, "r1"), "c2", 4)


def residual(*, flip: bool = False) -> tuple[Net, str]:
    net = Net(seed=2)
    r0 = net.relu(net.conv(net.input(), "c0", 6), "r0")
    c2 = net.conv(net.relu(net.conv(r0, "c1"), "r1"), "c2")
    total = net.add(r0, c2, "add") if flip else net.add(c2, r0, "add")
    return net, net.conv(net.relu(total, "r2"), "c3")


def downsample() -> tuple[Net, str]:
    net = Net(seed=3)
    r0 = net.relu(net.conv(net.input(), "c0", 4), "r0")
    c2 = net.conv(net.relu(net.conv(r0, "c1", 6, stride=2), "r1"), "c2")
    total = net.add(c2, net.conv(r0, "down", 6, 1, stride=2, pads=0), "add")
    return net, net.relu(total, "r2")


def inverted(*, shape: Sequence[Dim] = ("N", 4, 9, 10)) -> tuple[Net, str]:
    """Clip(0, 6), depthwise convolutions, pads as exporters of SAME write them."""
    net = Net(seed=4)
    stem = net.relu6(net.conv(net.input(shape=shape), "stem", 4, pads=[0, 0, 1, 1], stride=2), "stem6")
    c1 = net.relu6(net.conv(stem, "expand", 16, 1), "expand6")
    c2 = net.relu6(net.depthwise(c1, "dw"), "dw6")
    total = net.add(net.conv(c2, "project", 4, 1), stem, "add")
    c4 = net.relu6(net.conv(total, "expand2", 16, 1), "expand26")
    c5 = net.relu6(net.depthwise(c4, "dw2", 5, stride=2, pads=[1, 1, 2, 2]), "dw26")
    return net, net.conv(c5, "project2", 8, 1)


def nested() -> tuple[Net, str]:
    net = Net(seed=5)
    c0 = net.conv(net.input(), "c0", 4)
    inner = net.add(net.conv(net.conv(c0, "c1"), "c2"), c0, "inner")
    return net, net.add(net.conv(inner, "c3"), c0, "outer")


def preactivation() -> tuple[Net, str]:
    net = Net(seed=6)
    c0 = net.conv(net.input(), "c0", 4)
    c2 = net.conv(net.relu(net.conv(net.relu(c0, "r0"), "c1"), "r1"), "c2")
    return net, net.relu(net.add(c2, c0, "add"), "r2")


def parallel() -> tuple[Net, str]:
    """3×3 + 1×1 + identity, as RepVGG trains them."""
    net = Net(seed=7)
    r0 = net.relu(net.conv(net.input(), "c0", 4), "r0")
    sides = net.add(net.conv(r0, "c3x3"), net.conv(r0, "c1x1", kernel=1), "sides")
    return net, net.relu(net.add(sides, r0, "add"), "r1")


def squeeze() -> tuple[Net, str]:
    net = Net(seed=8)
    c0 = net.relu(net.conv(net.input(), "c0", 4), "r0")
    pooled = net.node("GlobalAveragePool", c0, name="pool")
    s2 = net.conv(net.relu(net.conv(pooled, "s1", 2, 1), "sr"), "s2", 4, 1)
    scaled = net.node("Mul", c0, net.node("Sigmoid", s2, name="gate"), name="mul")
    return net, net.conv(scaled, "c1", 4)


def concat() -> tuple[Net, str]:
    net = Net(seed=9)
    c0 = net.conv(net.input(), "c0", 4)
    joined = net.node("Concat", net.conv(c0, "c1"), net.conv(c0, "c2"), name="cat", axis=1, channels=8)
    return net, net.conv(joined, "c3", 4)


ALL: dict[str, Callable[[], tuple[Net, str]]] = {
    "plain": plain,
    "line": line,
    "residual": residual,
    "downsample": downsample,
    "inverted": inverted,
    "nested": nested,
    "preactivation": preactivation,
    "parallel": parallel,
    "squeeze": squeeze,
    "concat": concat,
}


def network(name: str) -> Network:
    net, output = ALL[name]()
    return net.network(output)


def feeds_for(net: Network, batch: int = 2, seed: int = 0, size: int | None = None) -> dict[str, np.ndarray]:
    """Random inputs; ``size`` overrides every spatial dimension."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name, dims in net.inputs.items():
        shape = [dim if isinstance(dim, int) else batch for dim in dims]
        if size is not None:
            shape[2:] = [size] * len(shape[2:])
        feeds[name] = rng.standard_normal(shape).astype(net.dtype)
    return feeds


def run(model: ir.Model | onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime, or the reference implementation where the numbers are float64."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    if all(array.dtype == np.float64 for array in feeds.values()):
        names = [value.name for value in proto.graph.output]
        return dict(zip(names, ReferenceEvaluator(proto).run(names, feeds), strict=True))
    return Session(proto.SerializeToString()).run(feeds)
