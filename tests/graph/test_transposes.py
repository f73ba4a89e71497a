"""Channels-last models: which Transposes cancel, and which have to stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from tests import zoo
from tests.graph.folding import (
    Built,
    assert_same,
    kinds,
    prepared,
)


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
