from __future__ import annotations

import itertools

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_layermerge.candidates import enumerate_candidates
from onnx_layermerge.graph import (
    Network,
    activation_after,
    barriers,
    chains,
    network_of,
    regions,
    repeats_activation,
)
from tests import zoo

EXPECTED = {
    "plain": [("x", "c1", 1), ("x", "c2", 2), ("x", "c3", 3), ("r1", "c2", 1), ("r1", "c3", 2), ("r2", "c3", 1)],
    "line": [("x", "c1", 1), ("x", "c2", 2), ("r1", "c2", 1)],
    "residual": [
        *(("x", "c0", 1), ("x", "add", 3), ("x", "c3", 4), ("r0", "c1", 1), ("r0", "c2", 2), ("r0", "add", 2)),
        *(("r0", "c3", 3), ("r1", "c2", 1), ("r2", "c3", 1)),
    ],
    "downsample": [
        *(("x", "c0", 1), ("x", "add", 4), ("r0", "c1", 1), ("r0", "c2", 2), ("r0", "add", 3)),
        *(("r1", "c2", 1), ("r0", "down", 1)),
    ],
    "inverted": [
        *(("x", "stem", 1), ("x", "add", 4), ("x", "expand2", 5), ("x", "dw2", 6), ("x", "project2", 7)),
        *(("stem6", "expand", 1), ("stem6", "dw", 2), ("stem6", "project", 3), ("stem6", "add", 3)),
        *(("stem6", "expand2", 4), ("stem6", "dw2", 5), ("stem6", "project2", 6), ("expand6", "dw", 1)),
        *(("expand6", "project", 2), ("dw6", "project", 1), ("add", "expand2", 1), ("add", "dw2", 2)),
        *(("add", "project2", 3), ("expand26", "dw2", 1), ("expand26", "project2", 2), ("dw26", "project2", 1)),
    ],
    "nested": [
        *(("x", "c0", 1), ("x", "outer", 4), ("c0", "c1", 1), ("c0", "c2", 2), ("c0", "inner", 2)),
        *(("c0", "c3", 3), ("c0", "outer", 3), ("c1", "c2", 1), ("inner", "c3", 1)),
    ],
    "preactivation": [
        *(("x", "c0", 1), ("x", "add", 3), ("c0", "c1", 1), ("c0", "c2", 2), ("c0", "add", 2)),
        *(("r0", "c1", 1), ("r0", "c2", 2), ("r1", "c2", 1)),
    ],
    "parallel": [
        *(("x", "c0", 1), ("x", "add", 3), ("r0", "c3x3", 1), ("r0", "sides", 2), ("r0", "add", 2), ("r0", "c1x1", 1)),
    ],
    # Squeeze-excite starts at its pooling, whole or not at all: r0 -> mul. Its inside never reaches mul alone.
    "squeeze": [
        *(("x", "c0", 1), ("x", "mul", 3), ("x", "c1", 4), ("r0", "s1", 1), ("r0", "s2", 2), ("r0", "mul", 2)),
        *(("r0", "c1", 3), ("pool", "s1", 1), ("pool", "s2", 2), ("sr", "s2", 1), ("mul", "c1", 1)),
    ],
    "concat": [
        *(("x", "c0", 1), ("x", "cat", 3), ("x", "c3", 4), ("c0", "c1", 1), ("c0", "cat", 2), ("c0", "c3", 3)),
        *(("c0", "c2", 1), ("cat", "c3", 1)),
    ],
}


def spans(network: Network) -> list[tuple[str, str, int]]:
    return [(region.entry, region.exit, len(region.convs)) for region in regions(network)]


@pytest.mark.parametrize("name", zoo.ALL)
def test_the_regions_of_known_networks(name: str) -> None:
    network = zoo.network(name)
    found = list(regions(network))
    assert spans(network) == EXPECTED[name]
    for region in found:
        inside = [position for position in network.convs if region.start <= position < region.stop]
        assert list(region.convs) == inside


def test_a_value_read_elsewhere_is_nobodys_interior() -> None:
    net, output = zoo.plain()
    # r1 becomes an output: what crosses it is gone, what ends before or starts behind it stays.
    assert spans(net.network(output, "r1")) == [span for span in EXPECTED["plain"] if span[0] != "x" or span[1] == "c1"]
    net, output = zoo.plain()
    far = net.add(net.conv(output, "c4"), "r2", "far")
    assert not {("x", "c3", 3), ("r1", "c3", 2)} & set(spans(net.network(far)))


def test_a_region_may_end_in_an_output_of_the_graph() -> None:
    net, output = zoo.plain()
    assert ("r1", "c2", 1) in spans(net.network(output, "c2"))
    assert ("r1", "c3", 2) not in spans(net.network(output, "c2"))


def test_no_more_convolutions_than_asked() -> None:
    network = zoo.network("inverted")
    assert [region for region in regions(network) if len(region.convs) <= 2] == list(regions(network, max_convs=2))


def test_barriers_say_why() -> None:
    refusals = [refusal for name in ("squeeze", "concat") for refusal in barriers(zoo.network(name))]
    assert {(refusal.node, refusal.reason) for refusal in refusals} == {
        ("pool", "pools over the whole image"),
        ("mul", "joins values that have not one source"),
        ("cat", "joins channels of branches that have not one source"),
    }
    net = zoo.Net()
    c1 = net.conv(net.input(), "c1")
    odd = net.node("Einsum", net.conv(net.node("RandomUniformLike", c1, name="random"), "c2"), name="odd",
                   equation="nchw->nhwc")  # fmt: skip
    network = net.network(odd)
    reasons = {refusal.node: refusal.reason for refusal in barriers(network)}
    assert reasons == {"random": "draws random numbers", "odd": "tensor product"}
    assert spans(network) == [("x", "c1", 1), ("random", "c2", 1)]


@pytest.mark.parametrize(("domain", "op"), [("com.microsoft.nchwc", "Conv"), ("com.microsoft", "FusedConv")])
def test_what_onnxruntime_wrote_for_one_machine_says_so(domain: str, op: str) -> None:
    net = zoo.Net()
    proto = net.proto(net.conv(net.conv(net.input(), "c1"), "c2"))
    proto.graph.node[0].op_type, proto.graph.node[0].domain = op, domain
    (refusal,) = barriers(network_of(ir.from_proto(proto)))
    assert (refusal.node, refusal.op_type) == ("c1", op)
    assert "onnxruntime's optimizer" in refusal.reason and "original export" in refusal.reason


def test_run_time_weights_are_a_barrier_and_vectors_from_elsewhere_a_side() -> None:
    net = zoo.Net()
    row, weights = net.input("row", (8,)), net.input("weights", (4, 4, 1, 1))
    total = net.add(net.conv(net.input(), "c0"), row, "add")
    out = net.node("Conv", total, weights, name="late", channels=4)
    network = net.network(out)
    reasons = {refusal.node: refusal.reason for refusal in barriers(network)}
    assert reasons == {
        "add": "adds values that have not one source",
        "late": "its weights are computed at run time",
    }
    assert [(region.exit, region.sides) for region in regions(network)] == [("c0", ()), ("add", ("row",))]
    # On an image of one pixel a skip would look like a side; nothing is cut there.
    net = zoo.Net()
    first = net.conv(net.input(shape=("N", 4, 1, 1)), "first", kernel=1)
    assert ("first", "sum", 1) not in spans(net.network(net.add(net.conv(first, "c", kernel=1), "x", "sum")))


def test_the_activation_after_a_region_and_whether_it_repeats() -> None:
    network = zoo.network("residual")
    by_exit = {(region.entry, region.exit): region for region in regions(network)}
    block = by_exit["r0", "add"]
    after = activation_after(network, block)
    assert after is not None and after.exit == "r2" and repeats_activation(network, block)
    assert activation_after(network, by_exit["r0", "c2"]) is None  # an Add follows
    assert not repeats_activation(network, by_exit["x", "c0"])  # nothing comes before x


def test_clips_repeat_only_with_equal_bounds() -> None:
    net = zoo.Net()
    first = net.relu6(net.conv(net.input(), "c0"), "a")
    net.weights["a.max"] = zoo.np.float32(5.0)
    last = net.relu6(net.conv(first, "c1"), "b")
    network = net.network(last)
    region = next(region for region in regions(network) if region.exit == "c1" and region.entry == "a")
    assert not repeats_activation(network, region)


def test_clips_with_bounds_computed_at_run_time_do_not_repeat() -> None:
    net = zoo.Net()
    low, high = net.input("low", ()), net.input("high", ())
    c0 = net.conv(net.input(), "c0")
    first = net.node("Clip", c0, low, name="first")
    last = net.node("Clip", net.conv(first, "c1"), high, name="last")
    network = net.network(last)
    region = next(region for region in regions(network) if region.exit == "c1")
    assert not repeats_activation(network, region)


def test_layers_and_chains() -> None:
    (chain,) = chains(zoo.network("residual"))
    assert [(layer.node, layer.activation, layer.skip_add) for layer in chain.layers] == [
        ("c0", "Relu", False),
        ("c1", "Relu", False),
        ("c2", "Relu", True),
        ("c3", "", False),
    ]
    found = chains(zoo.network("squeeze"))
    assert [[layer.node for layer in chain.layers] for chain in found] == [["c0"], ["s1", "s2"], ["c1"]]
    wide = next(layer for chain in chains(zoo.network("inverted")) for layer in chain.layers if layer.node == "dw2")
    assert (wide.kernel, wide.stride, wide.groups, wide.activation) == ((5, 5), (2, 2), 16, "Clip")


@st.composite
def graphs(draw: st.DrawFn, most: int) -> Network:
    """Random DAGs of convolutions, activations, additions and now and then a barrier; 1-3 outputs."""
    net = zoo.Net()
    made = [net.input(shape=("N", 2, 3))]
    for number in range(draw(st.integers(2, most))):
        # Mostly near the end, so that long stretches arise.
        source = made[-1 - min(draw(st.integers(0, 3)), len(made) - 1)]
        kind = draw(st.sampled_from(["Conv", "Conv", "Relu", "Add", "Mul", "RandomUniformLike"]))
        name = f"n{number}"
        if kind == "Conv":
            net.conv(source, name, kernel=1)
        elif kind in ("Relu", "RandomUniformLike"):
            net.node(kind, source, name=name)
        else:
            net.node(kind, source, draw(st.sampled_from(made)), name=name)
        made.append(name)
    read = {name for node in net.nodes for name in node.input}
    outputs = [name for name in made[1:] if name not in read]
    return net.network(*sorted({*outputs, *draw(st.lists(st.sampled_from(made[1:]), max_size=1))}))


def legal(network: Network, nodes: frozenset[int]) -> tuple[str, str] | None:
    """(entry, exit) by conditions 1 and 2 of the module, read off the graph."""
    inside = [network.order[position] for position in nodes]
    made = {str(node.outputs[0].name) for node in inside}
    read = {str(v.name) for node in inside for v in node.inputs if v is not None and v.const_value is None}
    outside = [node for position, node in enumerate(network.order) if position not in nodes]
    wanted = {str(v.name) for node in outside for v in node.inputs if v is not None} | set(network.outputs)
    entries, exits = read - made, made & wanted
    if len(entries) == len(exits) == 1 and exits.isdisjoint(read):
        return entries.pop(), exits.pop()
    return None


def may_begin(network: Network, position: int, entry: str) -> bool:
    cell = network.in_cells.get(position)
    if cell is not None and cell.start < position:
        return False
    return network.order[position].op_type == "Conv" or len(network.users(network.values[entry])) > 1


def may_end(network: Network, position: int) -> bool:
    node = network.order[position]
    joins = len({value for value in node.inputs if value.const_value is None}) > 1 and position not in network.in_cells
    return node.op_type == "Conv" or joins


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(most=14))
def test_exactly_the_legal_intervals_are_listed(network: Network) -> None:
    blocked = {position for position, node in enumerate(network.order) if node.op_type == "RandomUniformLike"}
    found = {(region.start, region.stop): (region.entry, region.exit) for region in regions(network, max_convs=99)}
    for start, stop in itertools.combinations(range(len(network.order) + 1), 2):
        nodes = frozenset(range(start, stop))
        ends = legal(network, nodes)
        useful = not nodes & blocked and nodes & set(network.convs) and may_end(network, stop - 1)
        if ends is not None and useful and may_begin(network, start, ends[0]):
            assert found.get((start, stop)) == ends
        else:
            assert (start, stop) not in found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(most=8))
def test_whatever_has_one_way_in_and_out_is_an_interval(network: Network) -> None:
    for count in range(1, len(network.order) + 1):
        for nodes in map(frozenset, itertools.combinations(range(len(network.order)), count)):
            if legal(network, nodes) is not None:
                assert max(nodes) - min(nodes) + 1 == len(nodes)


@pytest.mark.parametrize("name", zoo.ALL)
def test_the_order_is_topological_and_holds_every_node_once(name: str) -> None:
    network = zoo.network(name)
    assert sorted(map(id, network.order)) == sorted(map(id, network.model.graph))
    for position, node in enumerate(network.order):
        for value in node.inputs:
            if value is not None and value.producer() is not None:
                assert network.position[value.producer()] < position


def steps_for(count: int) -> int:
    """How often the enumeration asks who reads a value, for a chain of residual blocks."""
    net = zoo.Net()
    value = net.input(shape=("N", 1, 1))
    weight = zoo.np.ones((1, 1, 1), "f")
    for number in range(count):
        branch = net.relu(net.conv(value, f"c{number}", weight=weight, bias=False), f"r{number}")
        value = net.add(branch, value, f"s{number}")
    network, asked = net.network(value), [0]
    users = network.users

    def counted(value: object) -> list[int]:
        asked[0] += 1
        return users(value)  # type: ignore[arg-type]

    object.__setattr__(network, "users", counted)
    enumerate_candidates(network, kinds=("drop", "fit"))
    return asked[0]


def test_enumeration_grows_with_the_length_of_the_network_not_with_its_square() -> None:
    assert steps_for(240) < 2.5 * steps_for(120)


def test_a_thousand_layers_are_no_problem() -> None:
    net = zoo.Net()
    value = net.input(shape=("N", 1, 1))
    for number in range(1000):
        value = net.relu(net.conv(value, f"c{number}", weight=zoo.np.ones((1, 1, 1), "f"), bias=False), f"r{number}")
    network = net.network(value)
    assert [node.name for node in network.order[:4]] == ["c0", "r0", "c1", "r1"]
    # 12 regions start at each convolution, fewer at the last eleven.
    assert sum(1 for _ in regions(network)) == 12 * 1000 - sum(range(12))
