"""Geometry is followed through whatever comes back to the grid."""

from __future__ import annotations

import numpy as np

from onnx_layermerge.candidates import Candidate, Space, enumerate_candidates, space_of
from onnx_layermerge.graph import Network, regions
from onnx_layermerge.merge import Geometry
from tests import zoo
from tests.graph.test_cells import group_norm, silu


def spaces(network: Network) -> dict[tuple[str, str], Space | str]:
    return {(region.entry, region.exit): space_of(network, region) for region in regions(network)}


def offered(network: Network, *kinds: str) -> list[Candidate]:
    return list(enumerate_candidates(network, kinds=kinds)[0])


SAME = Geometry.identity(2)


def test_squeeze_excite_can_be_dropped_whole_and_never_in_part() -> None:
    network = zoo.network("squeeze")
    drops = {(c.region.entry, c.region.exit) for c in offered(network, "drop")}
    assert ("r0", "mul") in drops
    found = spaces(network)[("r0", "mul")]
    assert isinstance(found, Space) and found.geometry == SAME and not found.linear
    assert all((c.region.entry, c.region.exit) != ("r0", "mul") for c in offered(network, "merge-all"))


def test_a_block_with_squeeze_excite_and_silu_inside_is_a_block() -> None:
    net = zoo.Net()
    stem = net.conv(net.input(shape=("N", 4, 8, 8)), "stem", 8)
    wide = silu(net, net.conv(stem, "expand", 16, 1))
    pooled = net.node("GlobalAveragePool", wide, name="pool")
    gate = net.node("Sigmoid", net.conv(net.relu(net.conv(pooled, "s1", 4, 1), "sr"), "s2", 16, 1), name="gate")
    out = net.conv(net.node("Mul", wide, gate, name="scaled"), "project", 8, 1)
    network = net.network(net.add(out, stem, "sum"))
    found = spaces(network)[("stem", "sum")]
    assert isinstance(found, Space) and (found.channels_in, found.channels_out) == (8, 8)
    assert {position for c in offered(network, "drop") for position in c.region.convs} >= {
        network.position[network.values[name].producer()] for name in ("expand", "s1", "s2", "project")
    }


def test_a_group_norm_that_reshapes_does_not_hide_its_grid() -> None:
    net = zoo.Net(opset=17)
    first = net.conv(net.input(shape=(1, 4, 8, 8)), "first", 6, stride=1)
    network = net.network(net.conv(group_norm(net, first), "second", 6, stride=2))
    found = spaces(network)[("x", "second")]
    assert isinstance(found, Space) and found.geometry.stride == (2, 2) and found.geometry.kernel == (5, 5)


def test_an_inner_level_that_comes_back_up_is_a_block() -> None:
    net = zoo.Net()
    top = net.conv(net.input(shape=("N", 4, 8, 8)), "top", 4)
    low = net.conv(net.node("MaxPool", top, name="down", kernel_shape=[2, 2], strides=[2, 2]), "low", 4)
    sizes = net.constant("sizes", np.array([1, 1, 2, 2], "f"))
    up = net.node("Resize", low, "", sizes, name="up")
    joined = net.node("Concat", top, up, name="cat", axis=1, channels=8)
    network = net.network(net.conv(joined, "out", 4))
    found = spaces(network)
    whole = found[("top", "out")]
    assert isinstance(whole, Space) and whole.geometry.stride == (1, 1) and not whole.linear
    assert ("top", "out") in {(c.region.entry, c.region.exit) for c in offered(network, "drop")}


def test_an_inner_level_of_unknown_size_needs_a_witness() -> None:
    net = zoo.Net()
    top = net.conv(net.input(shape=("N", 4, "H", "W")), "top", 4)
    low = net.conv(net.node("MaxPool", top, name="down", kernel_shape=[2, 2], strides=[2, 2]), "low", 4)
    up = net.node("Resize", low, "", net.constant("sizes", np.array([1, 1, 2, 2], "f")), name="up")
    joined = net.conv(net.node("Concat", top, up, name="cat", axis=1, channels=8), "joined", 4)
    found = spaces(net.network(joined))
    # A concatenation only runs where the sizes are equal, so behind it they are those of its other branch.
    assert isinstance(found[("top", "joined")], Space)
    net = zoo.Net()
    low = net.conv(net.input(shape=("N", 4, "H", "W")), "low", 4, stride=2)
    up = net.node("Resize", low, "", net.constant("sizes", np.array([1, 1, 2, 2], "f")), name="up")
    assert spaces(net.network(net.conv(up, "out", 4)))[("x", "out")] == "does not come back to the image grid"


def test_split_halves_are_followed_by_their_widths() -> None:
    net = zoo.Net(opset=17)
    first = net.conv(net.input(shape=("N", 4, 8, 8)), "first", 8)
    net.nodes.append(zoo.helper.make_node("Split", [first], ["left", "right"], name="split", axis=1))
    net.channels.update(left=4, right=4)
    joined = net.node("Concat", "left", net.conv("right", "c", 4), name="cat", axis=1, channels=8)
    network = net.network(net.conv(joined, "last", 8))
    found = spaces(network)[("first", "last")]
    assert isinstance(found, Space) and (found.channels_in, found.channels_out) == (8, 8)
    assert ("first", "last") in {(c.region.entry, c.region.exit) for c in offered(network, "drop")}


def test_pools_are_part_of_the_geometry_and_averages_of_the_algebra() -> None:
    net = zoo.Net()
    first = net.conv(net.input(shape=("N", 4, 9, 9)), "first", 4, 1, bias=False)
    pooled = net.node("AveragePool", first, name="pool", kernel_shape=[3, 3], strides=[2, 2])
    network = net.network(net.conv(net.node("MaxPool", pooled, name="max", kernel_shape=[2, 2]), "last", 4, 1))
    found = spaces(network)
    linear, bent = found[("x", "pool")], found[("x", "last")]
    assert isinstance(linear, Space) and linear.linear and linear.geometry.kernel == (3, 3)
    assert isinstance(bent, Space) and not bent.linear and bent.geometry.kernel == (5, 5)
    assert [(c.region.entry, c.region.exit) for c in offered(network, "merge")] == [("x", "pool")]


def test_an_average_that_leaves_the_padding_out_is_not_linear() -> None:
    net = zoo.Net()
    first = net.conv(net.input(shape=("N", 4, 9, 9)), "first", 4, 1)
    pooled = net.node("AveragePool", first, name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    found = spaces(net.network(pooled))[("x", "pool")]
    assert isinstance(found, Space) and not found.linear


def test_a_map_that_a_vector_widens_is_followed_by_its_width_or_refused() -> None:
    """Bottleneck attention: a channel gate [N, 8, 1, 1] plus a spatial map [N, 1, H, W] is [N, 8, H, W]."""
    net = zoo.Net()
    c0 = net.conv(net.input(shape=("N", 4, 8, 8)), "c0", 8)
    gate = net.conv(net.node("GlobalAveragePool", c0, name="gap"), "s1", 8, 1)
    both = net.node("Add", gate, net.conv(c0, "map", 1, 3), name="att", channels=8)
    network = net.network(net.conv(net.node("Mul", c0, both, name="scaled"), "last", 4))
    for found in spaces(network).values():
        assert isinstance(found, str) or found.channels_out in (1, 4, 8)
    whole = spaces(network)[("c0", "att")]
    assert isinstance(whole, Space) and whole.channels_out == 8
    net = zoo.Net()
    c0 = net.conv(net.input(shape=("N", 4, 8, 8)), "c0", 1)
    wide = net.constant("wide", np.ones((1, 8, 1, 1), "f"))
    total = net.node("Sum", c0, net.conv(c0, "c1", 1), wide, name="sum", channels=8)
    network = net.network(net.conv(total, "last", 4))
    assert not [c for c in offered(network, "drop") if c.region.exit == "sum"]


def test_blocks_do_not_change_the_element_type() -> None:
    net = zoo.Net()
    c0 = net.relu(net.conv(net.input(shape=("N", 4, 8, 8)), "c0", 4), "r0")
    half = net.node("Cast", c0, name="half", to=zoo.onnx.TensorProto.FLOAT16)
    net.dtype = np.dtype(np.float16)
    inner = net.conv(half, "inner", 4)
    net.dtype = np.dtype(np.float32)
    back = net.node("Cast", inner, name="back", to=zoo.onnx.TensorProto.FLOAT)
    found = spaces(net.network(net.conv(back, "last", 4)))
    assert found[("x", "inner")] == "changes the element type"
    assert isinstance(found[("half", "inner")], Space)


def test_a_concatenation_along_the_image_is_no_merge() -> None:
    net = zoo.Net()
    x = net.input(shape=("N", 4, 8, 8))
    halves = [net.node("Conv", x, net.constant(f"w{n}", net.rng.standard_normal((4, 4, 3, 3)).astype("f")),
                       name=f"h{n}", pads=[1] * 4, strides=[2, 1], channels=4) for n in (1, 2)]  # fmt: skip
    network = net.network(net.conv(net.node("Concat", *halves, name="cat", axis=2, channels=4), "last", 4))
    found = offered(network, "merge", "merge-all", "merge-subset")
    assert not [c for c in found if c.region.exit in ("cat", "last") and c.recipe == "merge"]


def test_a_fire_module_merges_into_one_convolution() -> None:
    net = zoo.Net()
    squeezed = net.conv(net.input(shape=("N", 4, 9, 9)), "squeeze", 2, 1)
    wide = net.node(
        "Concat", net.conv(squeezed, "e1", 3, 1), net.conv(squeezed, "e3", 5, 3), name="cat", axis=1, channels=8
    )
    network = net.network(wide)
    merges = {(c.region.entry, c.region.exit): c.stage for c in offered(network, "merge")}
    assert (merges["squeeze", "cat"].channels_out, merges["squeeze", "cat"].geometry.kernel) == (8, (3, 3))
