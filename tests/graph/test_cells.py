"""An activation is one thing, however it was written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_layermerge.graph import Network, activation_after, activation_of, append_series, regions
from tests import zoo


def number(net: zoo.Net, name: str, value: float) -> str:
    return net.constant(name, np.array(value, net.dtype))


def silu(net: zoo.Net, x: str) -> str:
    return net.node("Mul", x, net.node("Sigmoid", x, name="s"), name="act")


def hard_swish(net: zoo.Net, x: str) -> str:
    more = net.add(x, number(net, "three", 3), "more")
    clipped = net.node("Clip", more, number(net, "low", 0), number(net, "high", 6), name="clipped")
    return net.node("Div", net.node("Mul", x, clipped, name="m"), number(net, "six", 6), name="act")


def prelu(net: zoo.Net, x: str) -> str:
    negative = net.node("Sub", x, net.node("Abs", x, name="abs"), name="negative")
    slope = net.constant("slope", np.linspace(0.1, 0.4, net.channels[x]).astype(net.dtype).reshape(-1, 1, 1))
    return net.add(net.relu(x, "positive"), net.node("Mul", negative, slope, name="bent"), "act")


def gelu(net: zoo.Net, x: str) -> str:
    erf = net.node("Erf", net.node("Div", x, number(net, "root", 2**0.5), name="d"), name="erf")
    product = net.node("Mul", x, net.add(erf, number(net, "one", 1), "shifted"), name="p")
    return net.node("Mul", product, number(net, "half", 0.5), name="act")


def mish(net: zoo.Net, x: str) -> str:
    return net.node("Mul", x, net.node("Tanh", net.node("Softplus", x, name="sp"), name="t"), name="act")


def group_norm(net: zoo.Net, x: str) -> str:
    folded = net.node("Reshape", x, net.constant("folded", np.array([0, 2, -1])), name="fold")
    ones, zeros = net.constant("ones", np.ones(2, net.dtype)), net.constant("zeros", np.zeros(2, net.dtype))
    normal = net.node("InstanceNormalization", folded, ones, zeros, name="norm")
    return net.node("Reshape", normal, net.constant("shape", np.array([1, net.channels[x], 8, 8])), name="act")


def layer_norm(net: zoo.Net, x: str) -> str:
    mean = net.node("ReduceMean", x, name="mean", axes=[1])
    centred = net.node("Sub", x, mean, name="centred")
    square = net.node("Pow", centred, number(net, "two", 2), name="square")
    variance = net.add(net.node("ReduceMean", square, name="variance", axes=[1]), number(net, "eps", 1e-5), "v")
    return net.node("Div", centred, net.node("Sqrt", variance, name="root"), name="act")


def plain_relu(net: zoo.Net, x: str) -> str:
    return net.relu(x, "act")


SPELLINGS = {
    silu: ("SiLU", True),
    hard_swish: ("HardSwish", True),
    prelu: ("Relu·Abs·Sub·Mul·Add", True),
    gelu: ("Gelu", True),
    mish: ("Mish", True),
    group_norm: ("Reshape·InstanceNormalization·Reshape", False),
    plain_relu: ("Relu", True),
}


def sandwich(spelling: object, *, skip: bool = False) -> tuple[zoo.Net, Network]:
    net = zoo.Net(opset=17)
    first = net.conv(net.input(shape=(1, 4, 8, 8)), "first", 6)
    out = net.conv(spelling(net, first), "second", 6)  # type: ignore[operator]
    if skip:
        out = net.add(out, first, "sum")
    return net, net.network(out)


@pytest.mark.parametrize("skip", [False, True], ids=["alone", "the entry is read again far behind"])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.__name__)
def test_each_spelling_is_one_cell(spelling: object, skip: bool) -> None:
    _, network = sandwich(spelling, skip=skip)
    (cell,) = network.cells.values()
    assert (cell.entry, cell.exit, cell.elementwise) == ("first", "act", SPELLINGS[spelling][1])
    if spelling is not prelu:  # its branches may come in either order
        assert cell.label == SPELLINGS[spelling][0]
    # Nothing begins or ends inside of it.
    inner = {str(node.outputs[0].name) for node in network.order[cell.start : cell.stop]}
    assert {name for region in regions(network) for name in (region.entry, region.exit)} & inner <= {"act"}
    first = next(region for region in regions(network) if region.exit == "first")
    assert activation_after(network, first) == (None if skip else cell)


@pytest.mark.parametrize("spelling", [one for one, (_, elementwise) in SPELLINGS.items() if elementwise])
def test_an_elementwise_cell_can_be_put_elsewhere(spelling: object) -> None:
    net, network = sandwich(spelling)
    (cell,) = network.cells.values()
    activation = activation_of(network, cell.start)
    assert activation is not None and activation.channelwise == (spelling is prelu)
    model = network.model
    conv = network.convs[network.position[network.values["first"].producer()]]
    nodes, value = append_series(model.graph, network.values["x"], ((conv, activation),), "copy")
    model.graph.extend(nodes)
    value.name, value.type = "copied", network.values["act"].type
    model.graph.outputs.extend((value, network.values["act"]))
    got = zoo.run(model, zoo.feeds_for(net))
    np.testing.assert_array_equal(got["copied"], got["act"])


def test_a_layer_norm_in_parts_is_centring_and_scaling() -> None:
    _, network = sandwich(layer_norm)
    assert [(cell.entry, cell.exit, cell.elementwise) for cell in network.cells.values()] == [
        ("first", "centred", False),
        ("centred", "act", False),
    ]
    assert [(region.entry, region.exit) for region in regions(network)] == [
        *(("x", "first"), ("x", "second"), ("first", "second"), ("centred", "second"), ("act", "second")),
    ]


def test_what_is_not_elementwise_or_starts_elsewhere_is_no_activation() -> None:
    _, network = sandwich(group_norm)
    (start,) = network.cells
    assert activation_of(network, start) is None and activation_of(network, start + 1) is None


def test_bounds_computed_at_run_time_belong_to_no_cell() -> None:
    net = zoo.Net()
    first = net.conv(net.input(), "first")
    network = net.network(net.node("Clip", first, net.input("low", ()), name="act"))
    assert network.cells == {}


def test_a_comparison_ends_no_cell_but_may_lie_in_one() -> None:
    net = zoo.Net()
    first = net.conv(net.input(), "first")
    above = net.node("Greater", first, number(net, "zero", 0), name="above")
    numbers = net.node("Cast", above, name="numbers", to=onnx.TensorProto.INT64)
    count = net.node("Cast", net.node("ReduceSum", numbers, name="total"), name="count", to=net.type)
    assert net.network(count).cells == {}
    net = zoo.Net()
    first = net.conv(net.input(), "first")
    above = net.node("Greater", first, number(net, "zero", 0), name="above")
    (cell,) = net.network(net.node("Where", above, first, number(net, "low", -1), name="chosen")).cells.values()
    assert (cell.entry, cell.exit) == ("first", "chosen")


def test_a_constant_that_widens_is_no_activation() -> None:
    net = zoo.Net()
    narrow = net.conv(net.input(), "first", 1)
    rows = net.constant("rows", np.ones((4, 1, 1), "f"))
    assert net.network(net.node("Mul", narrow, rows, name="wide", channels=4)).cells == {}


def test_what_widens_inside_is_no_activation() -> None:
    net = zoo.Net()
    narrow = net.conv(net.input(), "first", 1)
    rows = net.constant("rows", np.ones((1, 4, 1, 1), "f"))
    wide = net.node("Add", narrow, rows, name="wide", channels=4)
    network = net.network(net.conv(net.relu(wide, "r"), "second", 4))
    assert [cell.entry for cell in network.cells.values()] == ["wide"]


def test_a_shape_that_is_not_known_to_come_back_is_no_norm() -> None:
    net = zoo.Net()
    first = net.conv(net.input(shape=("N", 4, "H", "W")), "first", 4)
    folded = net.node("Reshape", first, net.constant("folded", np.array([0, 2, -1])), name="fold")
    back = net.node("Reshape", folded, net.constant("shape", np.array([0, 4, 8, -1])), name="back")
    assert net.network(net.conv(back, "second")).cells == {}
