"""Every step of the folding: what it folds, what it has to leave, and that it is the one that does it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_layermerge.graph import Network, network_of, normalise, read
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


def channels_last() -> Built:
    """Three convolutions in Transposes, a skip-add around the second; all else channels last."""
    net = zoo.Net()

    def conv(source: str, name: str, **options: Any) -> str:
        first = net.node("Transpose", source, name=f"{name}.in", perm=[0, 3, 1, 2])
        return net.node("Transpose", net.conv(first, name, 4, **options), name=f"{name}.out", perm=[0, 2, 3, 1])

    source = net.input(shape=("N", "H", 8, 4))
    net.channels[source] = 4
    shift = net.constant("shift", net.rng.standard_normal(4).astype("f4"))
    a = net.relu6(net.add(conv(source, "a"), shift, "a.shift"), "a.act")
    around = net.constant("around", np.array([0, 1, 0, 0, 0, 0, 1, 0], np.int64))
    b = conv(net.node("Pad", a, around, name="b.pad"), "b", pads=0, bias=False)
    total = net.relu(net.add(b, net.node("Slice", a, *slice_of(net), name="cut"), "skip"), "r")
    joined = net.node("Concat", total, net.node("Sigmoid", total, name="s"), name="cat", axis=-1, channels=8)
    c = conv(net.node("Softmax", net.node("Split", joined, name="split", axis=3), name="soft", axis=3), "c")
    return net, net.node("ReduceMean", c, name="mean", axes=[1, 2], keepdims=0)


def slice_of(net: zoo.Net) -> tuple[str, str, str]:
    """Drops a row and a column of an image that stands channels last."""
    names = ("starts", "ends", "axes")
    lists = ([0, 0], [-1, -1], [1, 2])
    return tuple(net.constant(f"cut.{n}", np.array(v, np.int32)) for n, v in zip(names, lists, strict=True))  # type: ignore[return-value]


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
    "pads over axes": (padded_over_named_axes, "fold Pad into Conv", ["Conv"]),
    "batch norm": (batch_norm, "fold scales and shifts into Conv", ["Conv", "Relu"]),
    "decomposed batch norm": (decomposed_batch_norm, "fold scales and shifts into Conv", ["Conv", "Relu"]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_step_folds_its_case_and_no_other_step_does(name: str) -> None:
    build, step, wanted = CASES[name]
    net, output = build()
    proto = with_function(net, output) if build is function_of_its_own else net.proto(output)
    network = prepared(proto)
    assert kinds(network) == wanted
    assert network.outputs == (output,)
    assert step in network.steps or any(s.name == step and s.quiet for s in FOLDING)
    onnx.checker.check_model(ir.to_proto(network.model), full_check=True)
    assert_same(proto, network, net)
    assert kinds(prepared(proto, without=step)) != wanted or name == "constant nodes"


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


def test_weights_in_constant_nodes_are_lifted_before_they_are_folded() -> None:
    net, output = constant_nodes()
    gain = tensor_node(net, "gain", np.full((4, 1, 1), 2, "f4"))
    proto = net.proto(net.node("Mul", output, gain, name="m"))
    network = prepared(proto)
    assert kinds(network) == ["Conv"] and set(network.model.graph.initializers) == {"w"}
    assert_same(proto, network, net)


def test_a_channels_last_model_becomes_one_row_of_convolutions() -> None:
    net, output = channels_last()
    proto = net.proto(output)
    network = prepared(proto)
    first = ["Transpose", "Conv", "Clip", "Conv", "Slice", "Add", "Relu"]  # the input itself is channels last
    assert kinds(network) == [*first, "Sigmoid", "Concat", "Split", "Softmax", "Conv", "ReduceMean"]
    assert network.convs[3].pads == (1, 0, 0, 1)
    assert network.inputs[0].shape == ("N", "H", 8, 4)
    assert network.order[3].outputs[0].shape[:2] == ("N", 4)  # type: ignore[index]
    onnx.checker.check_model(ir.to_proto(network.model), full_check=True)
    assert_same(proto, network, net, batch=6)


def test_transposes_stay_where_moving_them_gains_nothing() -> None:
    net = zoo.Net()
    turned = net.node("Transpose", net.conv(net.input(), "c"), name="t", perm=[0, 2, 3, 1])
    soft = net.node("Softmax", net.relu(turned, "r"), name="soft")
    network = prepared(net.proto(soft, "r"))
    assert [node.name for node in network.order] == ["c", "t", "r", "soft"]
    assert not network.steps


def test_what_stands_channels_last_in_an_output_or_a_branch_keeps_that_order() -> None:
    net = zoo.Net()
    last = net.node("Transpose", net.conv(net.input(shape=(1, 4, 8, 8)), "c"), name="t", perm=[0, 2, 3, 1])
    acted = net.relu(last, "acted")
    net.inputs["flag"] = ()
    flag = net.node("Cast", "flag", name="chosen", to=onnx.TensorProto.BOOL)
    arms = [
        helper.make_graph(
            [helper.make_node(op, [acted], [f"{op}.out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.out", net.type, None)],
        )
        for op in ("Identity", "Neg")
    ]
    net.nodes.append(
        helper.make_node("If", [flag], ["picked"], name="picked", then_branch=arms[0], else_branch=arms[1])
    )
    first = net.node("Transpose", acted, name="u", perm=[0, 3, 1, 2], channels=4)
    more = net.node("Transpose", net.relu(first, "again"), name="v", perm=[0, 2, 3, 1])
    graph = net.proto(net.conv(net.node("Transpose", more, name="w", perm=[0, 3, 1, 2], channels=4), "d"), "picked")
    network = prepared(graph)
    assert kinds(network).count("Transpose") == 1
    for chosen in (0, 1):
        feeds = {"x": zoo.feeds_for(net)["x"], "flag": np.array(chosen, "f4")}
        wanted, got = zoo.run(graph, feeds), zoo.run(network.model, feeds)
        np.testing.assert_allclose(got["picked"], wanted["picked"], atol=1e-5)
        np.testing.assert_allclose(got["d"], wanted["d"], atol=1e-5)


def test_implicit_padding_needs_no_size_at_stride_one() -> None:
    net = zoo.Net()
    proto = net.proto(net.conv(net.input(shape=("N", 4, "H", "W")), "c", 4, 5, auto_pad="SAME_LOWER"))
    network = prepared(proto)
    assert network.convs[0].pads == (2, 2, 2, 2) and network.steps == ("make implicit padding explicit",)
    assert_same(proto, network, net, size=7)


def test_implicit_padding_counts_the_dilation() -> None:
    net = zoo.Net()
    network = prepared(net.proto(net.conv(net.input(), "c", dilation=3, auto_pad="SAME_UPPER")))
    assert network.convs[0].pads == (3, 3, 3, 3)


@pytest.mark.parametrize("sizes", [[-1, 8, 4, 8], [-1, 8, 8, 8], [2, 2, 2, -1]])
def test_a_reshape_that_moves_something_stays(sizes: list[int]) -> None:
    net = zoo.Net()
    c = net.conv(net.input(shape=(2, 4, 8, "W")), "c", 4) if sizes[0] == 2 else net.conv(net.input(), "c")
    proto = net.proto(net.node("Reshape", c, net.constant("to", np.array(sizes)), name="r"))
    assert kinds(prepared(proto)) == ["Conv", "Reshape"]


@pytest.mark.parametrize(("mode", "pads"), [("SAME_UPPER", (0, 0, 1, 1)), ("SAME_LOWER", (1, 1, 0, 0))])
def test_implicit_padding_of_even_kernels(mode: str, pads: tuple[int, ...]) -> None:
    net = zoo.Net()
    proto = net.proto(net.conv(net.input(shape=("N", 4, 7, 8)), "c", 4, (2, 2), auto_pad=mode))
    network = prepared(proto)
    assert network.convs[0].pads == pads
    assert_same(proto, network, net)


def refused_pads() -> dict[str, Callable[[zoo.Net, str], str]]:
    def computed(net: zoo.Net, source: str) -> str:
        net.inputs["p"] = (8,)
        amounts = net.node("Cast", "p", name="amounts", to=onnx.TensorProto.INT64)
        return net.node("Pad", source, amounts, name="pad")

    def channels(net: zoo.Net, source: str) -> str:
        return net.node("Pad", source, net.constant("p", np.array([0, 0, 1, 1, 0, 2, 1, 1])), name="pad", channels=6)

    return {
        "reflect": lambda net, source: pad(net, source, "pad", [1] * 4, mode="reflect"),
        "edge": lambda net, source: pad(net, source, "pad", [1] * 4, mode="edge"),
        "ones": lambda net, source: pad(net, source, "pad", [1] * 4, value=1.0),
        "cropping": lambda net, source: pad(net, source, "pad", [-1, 0, 0, 0]),
        "channels": channels,
        "computed": computed,
    }


@pytest.mark.parametrize("name", refused_pads())
def test_pads_that_are_not_a_ring_of_zeros_stay(name: str) -> None:
    net = zoo.Net()
    value = net.conv(refused_pads()[name](net, net.input()), "c", 4, pads=0)
    assert kinds(prepared(net.proto(value)))[-2:] == ["Pad", "Conv"]


def test_a_pad_read_twice_is_folded_where_it_can_be() -> None:
    net = zoo.Net()
    ring = pad(net, net.input(), "p", [1] * 4)
    proto = net.proto(
        net.add(net.conv(ring, "c", pads=0), net.node("MaxPool", ring, name="m", kernel_shape=[3, 3]), "s")
    )
    network = prepared(proto)
    assert sorted(kinds(network)) == ["Add", "Conv", "MaxPool", "Pad"]
    assert network.convs[network.position[network.values["c"].producer()]].pads == (1, 1, 1, 1)  # type: ignore[index]
    assert_same(proto, network, net)


def test_a_weight_that_two_convolutions_share_is_copied_before_it_changes() -> None:
    net = zoo.Net()
    first = net.conv(net.input(), "a", bias=False)
    net.nodes.append(helper.make_node("Conv", [first, "a.w"], ["b"], name="b", pads=[1] * 4))
    net.channels["b"] = 4
    proto = net.proto(net.relu(net.batch_norm("b", "bn"), "r"))
    network = prepared(proto)
    assert kinds(network) == ["Conv", "Conv", "Relu"]
    np.testing.assert_array_equal(network.convs[0].weight, net.weights["a.w"])
    assert not np.allclose(network.convs[1].weight, net.weights["a.w"])
    assert_same(proto, network, net)


def test_norms_that_share_their_constants_fold_both() -> None:
    net = zoo.Net()
    a = net.batch_norm(net.conv(net.input(), "a"), "bn")
    labels = [f"bn.{part}" for part in ("scale", "shift", "mean", "var")]
    b = net.node("BatchNormalization", net.conv(a, "b"), *labels, name="again", epsilon=0.1)
    proto = net.proto(b)
    network = prepared(proto)
    assert kinds(network) == ["Conv", "Conv"] and network.outputs == ("again",)
    assert_same(proto, network, net)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_are_worked_out_in_float64_and_rounded_once(dtype: Any) -> None:
    net = zoo.Net(dtype=dtype)
    value = net.batch_norm(net.conv(net.input(), "c", 6), "bn", epsilon=0.25)
    gain = net.constant("gain", net.rng.uniform(0.5, 2, (1, 6, 1, 1)).astype(dtype))
    proto = net.proto(net.node("Mul", value, gain, name="m"))
    network = prepared(proto)
    assert kinds(network) == ["Conv"]
    parts = {name: array.astype(np.float64) for name, array in net.weights.items()}
    slope = parts["bn.scale"] / np.sqrt(parts["bn.var"] + 0.25)
    scale = slope * parts["gain"].reshape(-1)
    weight, bias = network.convs[0].weight, network.convs[0].bias
    assert bias is not None and weight.dtype == bias.dtype == dtype
    np.testing.assert_array_equal(weight, (parts["c.w"] * scale[:, None, None, None]).astype(dtype))
    shift = (parts["bn.shift"] - parts["bn.mean"] * slope) * parts["gain"].reshape(-1)
    np.testing.assert_array_equal(bias, (parts["c.b"] * scale + shift).astype(dtype))


def unfoldable() -> dict[str, Callable[[zoo.Net, str], str]]:
    def with_constant(op: str, array: Any, *, first: bool = False) -> Callable[[zoo.Net, str], str]:
        def build(net: zoo.Net, source: str) -> str:
            other = net.constant("k", np.asarray(array, np.float32))
            return net.node(op, *((other, source) if first else (source, other)), name="op")

        return build

    def trained(net: zoo.Net, source: str) -> str:
        value = net.batch_norm(source, "op")
        net.nodes[-1].attribute.append(helper.make_attribute("training_mode", 1))
        net.nodes[-1].output.extend(["op.means", "op.vars"])
        return value

    def read_twice(net: zoo.Net, source: str) -> str:
        return net.add(
            net.node("Mul", source, net.constant("k", np.float32(3) * np.ones(1, "f4")), name="op"), source, "s"
        )

    return {
        "another value at each place": with_constant("Mul", np.ones((1, 1, 8, 8)) * 2),
        "more dimensions": with_constant("Add", np.ones((1, 1, 1, 1, 1))),
        "a constant divided by it": with_constant("Div", 2.0, first=True),
        "a division by zero": with_constant("Div", [[[0.0]], [[1.0]], [[1.0]], [[1.0]]]),
        "another value for each sample": with_constant("Add", np.ones((2, 4, 1, 1))),
        "statistics of the batch": trained,
        "read elsewhere": read_twice,
    }


@pytest.mark.parametrize("name", unfoldable())
def test_what_is_no_scale_or_shift_of_channels_stays(name: str) -> None:
    net = zoo.Net()
    build = unfoldable()[name]
    network = prepared(net.proto(build(net, net.conv(net.input(shape=(2, 4, 8, 8)), "c"))))
    assert len(network.order) > 1
    np.testing.assert_array_equal(network.convs[0].weight, net.weights["c.w"])


def test_a_constant_that_makes_more_channels_stays() -> None:
    net = zoo.Net()
    wide = net.constant("k", np.ones((5, 1, 1), "f4"))
    assert kinds(prepared(net.proto(net.node("Mul", net.conv(net.input(), "c", 1), wide, name="m")))) == ["Conv", "Mul"]


def test_a_value_that_is_an_output_as_well_stays() -> None:
    net = zoo.Net()
    c = net.conv(net.input(), "c")
    network = prepared(net.proto(net.batch_norm(c, "bn"), c))
    assert kinds(network) == ["Conv", "BatchNormalization"] and network.outputs == ("bn", "c")


def test_a_shift_alone_leaves_the_weights_bit_by_bit() -> None:
    net = zoo.Net()
    shift = net.constant("k", np.arange(4, dtype="f4").reshape(4, 1, 1))
    network = prepared(net.proto(net.add(net.conv(net.input(), "c", bias=False), shift, "s")))
    assert kinds(network) == ["Conv"] and network.model.graph[0].inputs[1].name == "c.w"  # type: ignore[union-attr]
    np.testing.assert_array_equal(network.convs[0].weight, net.weights["c.w"])
    np.testing.assert_array_equal(network.convs[0].bias, np.arange(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", zoo.ALL)
def test_a_model_with_nothing_to_fold_comes_back_as_it_was(name: str) -> None:
    net, output = zoo.ALL[name]()
    proto = net.proto(output)
    network = prepared(proto)
    assert not network.steps
    made = ir.to_proto(network.model).graph
    assert [(n.name, n.op_type, *n.input, *n.output) for n in made.node] == [
        (n.name, n.op_type, *n.input, *n.output) for n in proto.graph.node
    ]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}
    for label, array in net.weights.items():
        np.testing.assert_array_equal(stored[label], array)
    assert made.input == proto.graph.input and made.output == proto.graph.output


def test_nothing_of_the_optimizers_notes_is_left() -> None:
    for build in (shape_arithmetic, computed_weights, batch_norm, pairs):
        net, output = build()
        assert b"pkg.onnxscript" not in ir.to_proto(prepared(net.proto(output)).model).SerializeToString()


def test_an_identity_in_a_branch_stays_the_branchs_own() -> None:
    net = zoo.Net()
    c = net.conv(net.input(shape=(1, 4, 8, 8)), "c")
    net.inputs["flag"] = ()
    flag = net.node("Cast", "flag", name="chosen", to=onnx.TensorProto.BOOL)
    arms = [
        helper.make_graph(
            [helper.make_node(op, [c], [f"{op}.out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.out", net.type, None)],
        )
        for op in ("Identity", "Neg")
    ]
    net.nodes.append(helper.make_node("If", [flag], ["y"], name="y", then_branch=arms[0], else_branch=arms[1]))
    proto = net.proto("y")
    network = prepared(proto)
    onnx.checker.check_model(ir.to_proto(network.model))
    for chosen in (0, 1):
        feeds = {"x": zoo.feeds_for(net)["x"], "flag": np.array(chosen, "f4")}
        np.testing.assert_array_equal(zoo.run(network.model, feeds)["y"], zoo.run(proto, feeds)["y"])


def test_old_files_that_list_their_weights_as_inputs(tmp_path: Path) -> None:
    net = zoo.Net(opset=8)
    proto = net.proto(net.batch_norm(net.conv(net.input(), "c"), "bn"))
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(proto, tmp_path / "m.onnx")
    network = read(tmp_path / "m.onnx")
    assert kinds(network) == ["Conv"] and [info.name for info in network.inputs] == ["x"]


def calls_of(work: Callable[[], object]) -> int:
    """Python functions entered and generators resumed: time that no other process can touch."""
    count = 0

    def hook(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(hook)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_work_grows_with_the_graph_and_not_with_its_square() -> None:
    def deep(blocks: int) -> ir.Model:
        net = zoo.Net()
        value = net.input()
        for number in range(blocks):
            before = value
            value = net.batch_norm(net.conv(pad(net, value, f"p{number}", [1] * 4), f"c{number}", pads=0), f"b{number}")
            value = net.relu(
                net.add(net.node("Identity", value, name=f"i{number}"), before, f"a{number}"), f"r{number}"
            )
        return ir.from_proto(net.proto(value))

    small, large = deep(20), deep(80)
    normalise(deep(2))  # what is imported and remembered once
    assert calls_of(lambda: normalise(large)) < 4.6 * calls_of(lambda: normalise(small))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_of_turned_images_stay_what_they_are(seed: int) -> None:
    """Transposes, what can be moved through them and what cannot, several outputs: the same numbers, never more
    Transposes than before, in a model that passes the checker."""
    rng = np.random.default_rng(seed)
    net = zoo.Net(seed=seed)
    net.input(shape=(2, 3, 4, 5))
    shapes: dict[str, tuple[int, ...]] = {"x": (2, 3, 4, 5)}
    for number in range(30):
        name, source = f"v{number}", str(rng.choice(list(shapes)[-6:]))
        shape = shapes[source]
        match rng.integers(9):
            case 0 | 1 | 2:
                perm = [(0, 3, 1, 2), (0, 2, 3, 1), (3, 1, 0, 2)][rng.integers(3)]
                net.node("Transpose", source, name=name, perm=perm)
                shape = tuple(shape[axis] for axis in perm)
            case 3:
                net.node(str(rng.choice(["Sigmoid", "Relu", "Neg"])), source, name=name)
            case 4:
                axes = int(rng.integers(1, 5))
                wanted = tuple(size if rng.integers(2) else 1 for size in shape[-axes:])
                net.node("Mul", source, net.constant(f"{name}.k", rng.standard_normal(wanted).astype("f4")), name=name)
            case 5:
                other = next(each for each in reversed(shapes) if shapes[each] == shape)
                net.node("Add", source, other, name=name)
            case 6:
                axis = int(rng.integers(-4, 4))
                net.node("Softmax", source, name=name, axis=axis)
            case 7:
                axis = int(rng.integers(4))
                net.node("ReduceMean", source, name=f"{name}.m", axes=[axis], keepdims=1)
                net.node("Sub", source, f"{name}.m", name=name)
            case _:
                net.node("CumSum", source, net.constant(f"{name}.axis", np.array(rng.integers(4))), name=name)
        shapes[name] = shape
    outputs = [f"v{number}" for number in sorted({29, *map(int, rng.integers(0, 30, 2))})]
    proto = net.proto(*outputs)
    network = prepared(proto)
    onnx.checker.check_model(ir.to_proto(network.model), full_check=True)
    assert kinds(network).count("Transpose") <= kinds(prepared(proto, without="cancel Transposes")).count("Transpose")
    assert_same(proto, network, net, tolerance=1e-4)
