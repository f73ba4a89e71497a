"""Small models, each with one thing to fold, and what the tests of the folding ask of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_layermerge.graph import Network, network_of, normalise
from onnx_layermerge.graph._normalise import FOLDING
from tests import zoo

Built = tuple[zoo.Net, str]


def kinds(network: Network) -> list[str]:
    return [node.op_type for node in network.order]


def prepared(proto: onnx.ModelProto, *, without: str = "") -> Network:
    model = ir.from_proto(proto)
    steps = normalise(model, steps=tuple(step for step in FOLDING if step.name != without))
    return network_of(model, steps=steps)


def assert_same(
    proto: onnx.ModelProto, network: Network, net: zoo.Net, tolerance: float = 1e-5, **options: int
) -> None:
    feeds = zoo.feeds_for(net, **options)
    wanted, got = zoo.run(proto, feeds), zoo.run(network.model, feeds)
    assert list(wanted) == list(got)
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        first, second = value.astype(np.float64), got[name].astype(np.float64)
        np.testing.assert_allclose(second, first, rtol=0, atol=tolerance * np.abs(first).max())


def tensor_node(net: zoo.Net, name: str, array: np.ndarray) -> str:
    """A Constant node instead of an initializer."""
    net.nodes.append(helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(array, name)))
    return name


def constant_nodes() -> Built:
    net = zoo.Net()
    net.rank, net.inputs["x"], net.channels["x"] = 2, ("N", 4, 8, 8), 4
    weight = tensor_node(net, "w", net.rng.standard_normal((4, 4, 3, 3)).astype("f4"))
    return net, net.node("Conv", "x", weight, name="c", pads=[1] * 4)


def computed_weights() -> Built:
    """Weights kept in another order and type, behind an Identity."""
    net = zoo.Net()
    stored = net.constant("stored", net.rng.standard_normal((3, 3, 4, 6)).astype("f8"))
    turned = net.node("Transpose", stored, name="turned", perm=[3, 2, 0, 1])
    single = net.node("Cast", turned, name="single", to=onnx.TensorProto.FLOAT)
    return net, net.node("Conv", net.input(), net.node("Identity", single, name="same"), name="c", channels=6)


def shape_arithmetic() -> Built:
    """What exporters write for a view whose sizes are read off another one's: here, with two axes of them changed."""
    net = zoo.Net()
    c = net.conv(net.input(shape=(2, 4, 8, 8)), "c")
    parts = []
    for axis in (0, 2, 1, 3):
        index = net.constant(f"i{axis}", np.array(axis, np.int64))
        one = net.node("Gather", net.node("Shape", c, name=f"s{axis}"), index, name=f"g{axis}")
        parts.append(net.node("Unsqueeze", one, net.constant(f"u{axis}", np.array([0], np.int64)), name=f"p{axis}"))
    sizes = net.node("Concat", *parts, name="sizes", axis=0)
    return net, net.conv(net.node("Reshape", c, sizes, name="r", channels=8), "d", 4)


def function_of_its_own() -> Built:
    net = zoo.Net()
    c = net.conv(net.input(), "c")
    net.nodes.append(helper.make_node("Act", [c], ["a"], name="a", domain="local"))
    net.channels["a"] = 4
    return net, net.conv("a", "d")


def dropout() -> Built:
    net = zoo.Net(opset=10)
    return net, net.conv(net.node("Dropout", net.conv(net.input(), "c"), name="drop", ratio=0.4), "d")


def dropout_at_the_end() -> Built:
    net = zoo.Net(opset=10)
    return net, net.node("Dropout", net.conv(net.input(), "c"), name="drop", ratio=0.4)


def duplicates() -> Built:
    net = zoo.Net()
    c = net.conv(net.input(), "c")
    return net, net.add(net.conv(net.relu6(c, "a"), "d"), net.conv(net.relu6(c, "b"), "e"), "sum")


def pairs() -> Built:
    net = zoo.Net()
    c = net.conv(net.input(shape=(2, 4, 8, 8)), "c")
    axes, back = net.constant("axes", np.array([2, 5], np.int64)), net.constant("back", np.array([-1, 2], np.int64))
    wide = net.node("Unsqueeze", net.relu(c, "r"), axes, name="wide")
    narrow = net.node("Squeeze", wide, back, name="narrow")
    flat = net.node("Reshape", narrow, net.constant("flat", np.array([2, -1], np.int64)), name="flatten")
    return net, net.conv(net.node("Reshape", flat, net.constant("s", np.array([2, 4, 8, 8])), name="image"), "d")


def reshape_over_any_batch() -> Built:
    """To the sizes that are there already, the first of them read off at run time."""
    net = zoo.Net()
    c = net.conv(net.input(), "c")
    index = net.constant("i", np.array([0], np.int64))
    batch = net.node("Gather", net.node("Shape", c, name="s"), index, name="g")
    sizes = net.node("Concat", batch, net.constant("rest", np.array([4, 8, 8], np.int64)), name="sizes", axis=0)
    return net, net.conv(net.node("Reshape", c, sizes, name="r"), "d", 4)


def pad(net: zoo.Net, source: str, name: str, pads: list[int], *, value: float | None = None, **options: Any) -> str:
    """Spatial ``pads``: top, left, bottom, right."""
    whole = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
    inputs = [net.constant(f"{name}.pads", whole)]
    if value is not None:
        inputs.append(net.constant(f"{name}.value", np.array(value, net.dtype)))
    return net.node("Pad", source, *inputs, name=name, **options)


def padded() -> Built:
    net = zoo.Net()
    inner = pad(net, net.input(), "p", [1, 2, 0, 1], value=0.0)
    return net, net.conv(pad(net, inner, "q", [0, 0, 2, 0]), "c", pads=[0, 1, 0, 0], stride=2)


def padded_by_attributes() -> Built:
    net = zoo.Net(opset=10)
    source = net.node("Pad", net.input(), name="p", pads=[0, 0, 1, 0, 0, 0, 0, 2], mode="constant", value=0.0)
    return net, net.conv(source, "c", pads=0)


def padded_by_computed_zeros() -> Built:
    """What exporters write for a pad of the last axes, given from the last one on: zeros for the others, turned."""
    net = zoo.Net()

    def numbers(name: str, *values: int) -> str:
        return net.constant(name, np.array(values, np.int64))

    zero = numpy_helper.from_array(np.array([0], np.int64))
    rest = net.node("ConstantOfShape", numbers("missing", 4), name="rest", value=zero)
    pairs = net.node("Concat", numbers("given", 1, 2, 0, 1), rest, name="pairs", axis=0)
    rows = net.node("Reshape", pairs, numbers("two", -1, 2), name="rows")
    steps = [numbers("last", -1), numbers("first", -9), numbers("axis", 0), numbers("back", -1)]
    turned = net.node("Transpose", net.node("Slice", rows, *steps, name="turned"), name="sides", perm=[1, 0])
    pads = net.node("Reshape", turned, numbers("flat", -1), name="pads")
    return net, net.conv(net.node("Pad", net.input(), pads, name="p"), "c", pads=0)


def padded_over_named_axes() -> Built:
    net = zoo.Net(opset=18)
    pads, axes = net.constant("pads", np.array([2, 1], np.int64)), net.constant("axes", np.array([-1], np.int64))
    return net, net.conv(net.node("Pad", net.input(), pads, "", axes, name="p"), "c", auto_pad="VALID")


def batch_norm() -> Built:
    net = zoo.Net()
    return net, net.relu(net.batch_norm(net.conv(net.input(), "c", 6, bias=False), "bn", epsilon=0.3), "r")


def decomposed_batch_norm() -> Built:
    """Sub, Div, Mul, Add with constants per channel, constant first or last."""
    net = zoo.Net()
    value = net.conv(net.input(), "c", 6)
    for op, first in (("Sub", False), ("Div", False), ("Mul", True), ("Add", False), ("Sub", True)):
        name = f"{op}{first}".lower()
        drawn = net.constant(f"{name}.k", net.rng.uniform(0.5, 2, (6, 1, 1)).astype("f4"))
        value = net.node(op, *((drawn, value) if first else (value, drawn)), name=name, channels=6)
    half = net.constant("half", np.array(0.5, "f4"))
    return net, net.relu(net.node("Mul", value, half, name="scaled"), "r")


def transposes_that_meet() -> Built:
    net = zoo.Net()
    value = net.conv(net.input(), "c")
    last = net.node("Transpose", value, name="t", perm=[0, 2, 3, 1])
    joined = net.node("Concat", last, net.node("Tanh", last, name="tanh"), name="cat", axis=3, channels=8)
    kept = net.node("ReduceMax", joined, name="max", axes=[3], keepdims=1, channels=1)
    squeezed = net.node("Mul", joined, kept, name="mul", channels=8)
    return net, net.conv(net.node("Transpose", squeezed, name="u", perm=[0, 3, 1, 2], channels=8), "d")


CASES: dict[str, tuple[Callable[[], Built], str, list[str]]] = {
    "constant nodes": (constant_nodes, "make Constant nodes initializers", ["Conv"]),
    "computed weights": (computed_weights, "fold constants", ["Conv"]),
    "shape arithmetic": (shape_arithmetic, "fold constants", ["Conv", "Reshape", "Conv"]),
    "function": (function_of_its_own, "inline functions", ["Conv", "Relu", "Conv"]),
    "dropout": (dropout, "remove Dropout", ["Conv", "Conv"]),
    "dropout at the end": (dropout_at_the_end, "remove Dropout", ["Conv"]),
    "duplicates": (duplicates, "merge duplicates", ["Conv", "Clip", "Conv", "Conv", "Add"]),
    "pairs": (pairs, "cancel Squeeze, Unsqueeze and Reshape", ["Conv", "Relu", "Conv"]),
    "reshape": (reshape_over_any_batch, "cancel Squeeze, Unsqueeze and Reshape", ["Conv", "Conv"]),
    "transposes": (
        transposes_that_meet,
        "cancel Transposes",
        ["Conv", "Tanh", "Concat", "ReduceMax", "Mul", "Conv"],
    ),
    "pads": (padded, "fold Pad into Conv", ["Conv"]),
    "pads in attributes": (padded_by_attributes, "fold Pad into Conv", ["Conv"]),
    "pads of computed zeros": (padded_by_computed_zeros, "fold Pad into Conv", ["Conv"]),
    "pads over axes": (padded_over_named_axes, "fold Pad into Conv", ["Conv"]),
    "batch norm": (batch_norm, "fold scales and shifts into Conv", ["Conv", "Relu"]),
    "decomposed batch norm": (decomposed_batch_norm, "fold scales and shifts into Conv", ["Conv", "Relu"]),
}


def with_function(net: zoo.Net, output: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("x", net.type, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info(output, net.type, None)],
        [numpy_helper.from_array(array, name) for name, array in net.weights.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    act = helper.make_function("local", "Act", ["v"], ["w"], [helper.make_node("Relu", ["v"], ["w"])], imports[:1])
    return helper.make_model(graph, functions=[act], opset_imports=imports, ir_version=8)
