"""What a convolution takes up (padding, scales and shifts), and what it has to leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import zoo
from tests.graph.folding import (
    assert_same,
    kinds,
    pad,
    prepared,
)


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
