"""Which replacements are offered, and that each of them fits where it goes, whatever the input's size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_layermerge.candidates import METHODS, Candidate, Stage, cost_macs, enumerate_candidates, site_of, space_of
from onnx_layermerge.fit import Fit, job_of, series_of
from onnx_layermerge.graph import Network, Session, extract, regions, splice, sweep, to_bytes
from onnx_layermerge.latency.blocks import placeholder
from onnx_layermerge.merge import Geometry
from tests import zoo


def offered(network: Network, *kinds: str) -> dict[str, Candidate]:
    found, _ = enumerate_candidates(network, kinds=kinds)
    return {candidate.key: candidate for candidate in found}


def ends(candidate: Candidate) -> tuple[str, str]:
    return candidate.region.entry, candidate.region.exit


def replaced(network: Network, candidate: Candidate) -> ir.Model:
    """The network with the candidate in it, random weights where they would be fitted."""
    model = extract(network.model, [info.name for info in network.inputs], list(network.outputs))
    splice(model.graph, candidate.region.entry, candidate.region.exit, placeholder(network, candidate), "olm/0")
    sweep(model)
    return model


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # A convolution behind a Relu takes along the Relu behind itself.
        ("plain", {("r1", "r2"), ("r2", "c3"), ("r1", "c3")}),
        # The whole residual block, a branch's convolution; but no branch beside its skip.
        ("residual", {("r0", "r1"), ("r0", "r2"), ("r0", "c3"), ("r1", "c2"), ("r2", "c3")}),
        # Only these keep both the width and the grid.
        ("downsample", {("x", "c0"), ("r1", "c2")}),
        ("inverted", {("expand6", "dw6"), ("stem6", "add")}),
        # The branch of three convolutions ends beside its skip: (c0, c3) must not be dropped alone.
        ("nested", {("x", "c0"), ("x", "outer"), ("c0", "c1"), ("c0", "inner"), ("c0", "outer"), ("c1", "c2"),
                    ("inner", "c3")}),
        ("preactivation", {("x", "c0"), ("x", "add"), ("r0", "r1"), ("c0", "c1"), ("c0", "add"), ("r0", "c2"),
                           ("r1", "c2")}),
        ("parallel", {("x", "c0"), ("x", "add"), ("r0", "c3x3"), ("r0", "c1x1"), ("r0", "r1")}),
    ],
)  # fmt: skip
def test_what_may_be_dropped(name: str, wanted: set[tuple[str, str]]) -> None:
    found = offered(zoo.network(name), "drop")
    assert {ends(candidate) for candidate in found.values()} == wanted
    assert all(candidate.stages == () and candidate.recipe == "drop" for candidate in found.values())


def test_a_dropped_block_takes_the_repeated_activation_along() -> None:
    network = zoo.network("residual")
    block = next(c for c in offered(network, "drop").values() if ends(c) == ("r0", "r2"))
    assert network.order[block.region.stop - 1].name == "r2"
    kept = replaced(network, block)
    assert [node.op_type for node in kept.graph] == ["Conv", "Relu", "Conv"]


def test_strides_and_paddings_that_change_the_grid_are_never_dropped() -> None:
    for options in ({"stride": 2}, {"pads": 0}, {"pads": [1, 1, 2, 2]}):
        net = zoo.Net()
        network = net.network(net.conv(net.input(), "c1", **options))
        assert offered(network, "drop") == {}
    net = zoo.Net()
    assert len(offered(net.network(net.conv(net.input(), "c1", pads=[0, 2, 2, 0])), "drop")) == 1


def test_kernels_offered_to_a_fit() -> None:
    network = zoo.network("plain")
    kernels = [(ends(c), c.stage.geometry.kernel, c.stage.groups) for c in offered(network, "fit").values()]
    assert [k for e, k, g in kernels if e == ("x", "c3")] == [(1, 1), (3, 3), (5, 5), (7, 7)]
    # 6 → 6 channels: depthwise beside dense; one convolution alone is only worth a smaller one.
    assert [(k, g) for e, k, g in kernels if e == ("r1", "c3")] == [
        (kernel, groups) for kernel in ((1, 1), (3, 3), (5, 5)) for groups in (1, 6)
    ]
    assert [(k, g) for e, k, g in kernels if e == ("r1", "c2")] == [((1, 1), 1), ((1, 1), 6), ((3, 3), 6)]


def test_channelwise_regions_stay_channelwise() -> None:
    net = zoo.Net()
    network = net.network(net.depthwise(net.relu(net.depthwise(net.input(), "d1"), "r"), "d2"))
    both = [c for c in offered(network, "fit").values() if len(c.region.convs) == 2]
    assert [(c.stage.geometry.kernel, c.stage.groups) for c in both] == [((1, 1), 4), ((3, 3), 4), ((5, 5), 4)]


def test_systems_too_large_to_fit_are_not_offered() -> None:
    net = zoo.Net()
    x = net.input(shape=("N", 600, 3, 3))
    network = net.network(net.conv(net.conv(x, "c1", 600), "c2", 8))
    sizes = [c.stage.geometry.kernel for c in offered(network, "fit").values() if ends(c) == ("x", "c2")]
    assert sizes == [(1, 1)]  # 600 · 9 = 5400 unknowns are too many


@pytest.mark.parametrize("name", ["plain", "line", "downsample", "inverted", "nested", "preactivation", "parallel"])
def test_every_candidate_keeps_the_size_of_every_output(name: str) -> None:
    net, output = zoo.ALL[name]()
    for key, dims in net.inputs.items():
        net.inputs[key] = (*dims[:2], *"HW"[: len(dims) - 2])
    network = net.network(output)
    candidates = offered(network, *METHODS["olm"], "merge-all", "merge-subset").values()
    assert {candidate.recipe for candidate in candidates} >= {"drop", "fit", "merge"}
    sizes = (7, 8, 11)
    feeds = {
        size: {key: np.ones((1, dims[1], *(size + axis for axis in range(len(dims) - 2))), "f")
               for key, dims in net.inputs.items()}
        for size in sizes
    }  # fmt: skip
    original = Session(network.model)
    wanted = {size: original.run(feeds[size])[output].shape for size in sizes}
    for candidate in candidates:
        session = Session(to_bytes(replaced(network, candidate)))
        for size in sizes:
            assert session.run(feeds[size])[output].shape == wanted[size], candidate.key


def test_widths_thin_out_what_lies_between_two_dense_convolutions() -> None:
    net = zoo.Net()
    c1 = net.relu6(net.conv(net.input(), "c1", 32, 1), "a1")
    c2 = net.relu6(net.depthwise(c1, "dw"), "a2")
    network = net.network(net.conv(c2, "c3", 5, 1))
    found = offered(network, "width")
    assert [candidate.stages[-1].channels_in for candidate in found.values()] == [24, 16, 8]
    assert set(found) == {f"width {width}/32 c1…c3" for width in (24, 16, 8)}
    slim = found["width 8/32 c1…c3"]
    assert slim.hidden == "a2"
    assert [(s.channels_in, s.channels_out, s.groups) for s in slim.stages] == [(4, 8, 1), (8, 8, 8), (8, 5, 1)]
    assert [network.order[s.activation].name if s.activation is not None else None for s in slim.stages] == [
        "a1",
        "a2",
        None,
    ]


def grouped(*groups: int, wide: int = 32) -> zoo.Net:
    """1×1 to ``wide`` channels, a 3×3 in each number of ``groups``, 1×1 to 5 as "last"."""
    net = zoo.Net(seed=2)
    value = net.relu(net.conv(net.input(), "first", wide, 1), "r")
    for number, count in enumerate(groups):
        value = net.relu(net.conv(value, f"g{number}", groups=count), f"r{number}")
    net.conv(value, "last", 5, 1)
    return net


@pytest.mark.parametrize(
    ("net", "wanted"),
    [
        (grouped(8), {24: (6,), 16: (4,), 8: (2,)}),
        (grouped(2), {16: (1,)}),
        # 4 and 2 to a group: what goes, goes by the four.
        (grouped(8, 16), {24: (6, 12), 16: (4, 8), 8: (2, 4)}),
        # 2 and 3 to a group: by the six, and in tiles of eight.
        (grouped(24, 16, wide=48), {24: (12, 8)}),
        (grouped(2, wide=12), {}),
    ],
)
def test_of_a_convolution_in_groups_whole_groups_go(net: zoo.Net, wanted: dict[int, tuple[int, ...]]) -> None:
    found = offered(net.network("last"), "width").values()
    assert {each.stage.channels_in: tuple(s.groups for s in each.stages[1:-1]) for each in found} == wanted


@pytest.mark.parametrize("groups", [(8,), (8, 16), (32, 8)])
def test_without_groups_that_nothing_reads_the_function_is_the_same(groups: tuple[int, ...]) -> None:
    net = grouped(*groups)
    kept = np.array([8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25, 26, 27])
    net.weights["last.w"][:, np.setdiff1d(np.arange(32), kept)] = 0
    network = net.network("last")
    (candidate,) = (each for each in offered(network, "width").values() if each.stage.channels_in == 16)
    weight, bias = net.weights["last.w"].reshape(5, 32), net.weights["last.b"]
    wanted = zoo.run(net.proto("last"), zoo.feeds_for(net))["last"]
    fit = Fit(weight[:, kept].astype(np.float64), bias.astype(np.float64), 0.0, 1.0, 1.0, kept=kept)
    model = extract(network.model, ["x"], ["last"])
    splice(model.graph, candidate.region.entry, candidate.region.exit, series_of(network, candidate, fit), "olm/0")
    sweep(model)
    np.testing.assert_allclose(zoo.run(model, zoo.feeds_for(net))["last"], wanted, rtol=1e-4, atol=1e-5)


def test_groups_of_other_widths_in_and_out_are_left_alone() -> None:
    net = zoo.Net()
    value = net.relu(net.conv(net.input(), "first", 32, 1), "r")
    net.conv(net.relu(net.conv(value, "g", 64, groups=8), "rg"), "last", 5, 1)
    assert not offered(net.network("last"), "width")


def test_no_width_where_someone_else_reads_or_a_convolution_is_grouped() -> None:
    net = zoo.Net()
    hidden = net.relu(net.conv(net.input(), "c1", 32), "r1")
    out = net.conv(hidden, "c2", 4)
    assert offered(net.network(out), "width") and not offered(net.network(out, "r1"), "width")
    net = zoo.Net()
    out = net.conv(net.relu(net.conv(net.input(), "c1", 32), "r1"), "c2", 4, groups=2)
    assert not offered(net.network(out), "width")
    net = zoo.Net()
    slope = net.constant("slope", np.ones((32, 1, 1), "f"))
    bent = net.node("PRelu", net.conv(net.input(), "c1", 32), slope, name="p")
    assert not offered(net.network(net.conv(bent, "c2", 4)), "width")


def test_a_convolution_in_no_block_is_named_with_the_reason() -> None:
    net = zoo.Net()
    x = net.input(shape=("N", 4, 9, 9))
    stem = net.conv(x, "stem", 8, 3, stride=2, pads=0)  # without padding no smaller kernel has its output size
    up = net.node("Resize", stem, "", net.constant("s", np.array([1, 1, 2, 2], "f")), name="up")
    (found, refusals) = enumerate_candidates(net.network(net.conv(up, "last", 5, 1)), kinds=METHODS["olm"])
    assert not found
    assert [(refusal.node, refusal.op_type, refusal.reason) for refusal in refusals] == [
        (name, "Conv", "nothing with fewer weights keeps its channels and the size of its output")
        for name in ("stem", "last")
    ]
    net = zoo.Net()
    row = net.input("row", (1, 4, 1, 8))
    c0 = net.conv(net.input(), "c0", 4, 1)
    out = net.conv(net.add(c0, row, "sum"), "c1", 5, 1)
    _, refusals = enumerate_candidates(net.network(out, "c0"), kinds=("fit",))
    assert [refusal.node for refusal in refusals] == ["c1"]


def test_branches_on_different_grids_are_no_block() -> None:
    net = zoo.Net()
    c0 = net.conv(net.input(shape=("N", 4, 1, 1)), "c0")
    network = net.network(net.add(net.conv(c0, "a", 4, 1, stride=2), net.conv(c0, "b", 4, 1), "sum"))
    reasons = {region.exit: space_of(network, region) for region in regions(network)}
    assert reasons["sum"] == "adds branches that lie on different grids"


def test_candidates_of_one_shape_share_a_structure() -> None:
    network = zoo.network("plain")
    merged = offered(network, "merge-all")["merge 5x5 c1…c2 [11]"]
    fitted = offered(network, "fit")["fit 5x5 c1…c2"]
    assert merged.structure == fitted.structure != offered(network, "fit")["fit 3x3 c1…c2"].structure


def test_arithmetic_of_a_replacement() -> None:
    first = Stage(4, 8, Geometry((3, 3), (2, 2), (1, 1), (1, 1)))
    second = Stage(8, 8, Geometry((3, 3), (1, 1), (1, 1), (1, 1)), groups=8)
    region = next(iter(offered(zoo.network("plain"), "fit").values())).region
    candidate = Candidate("k", region, "width", (first, second))
    assert (first.unknowns, second.unknowns) == (36, 9)
    assert cost_macs(candidate, (2, 4, 8, 8)) == 2 * 16 * (8 * 36 + 8 * 9)


def test_a_site_lies_behind_the_skip_and_in_front_of_the_activation() -> None:
    network = zoo.network("residual")
    found = {ends(candidate): site_of(network, candidate) for candidate in offered(network, "fit").values()}
    branch = found["r0", "c2"]
    assert (branch.value, branch.skip, branch.low, branch.high) == ("add", "r0", 0.0, np.inf)
    block = found["r0", "add"]
    assert (block.value, block.skip, block.low, block.high) == ("add", None, 0.0, np.inf)
    end = found["r2", "c3"]
    assert (end.value, end.skip, end.low, end.high) == ("c3", None, -np.inf, np.inf)
    network = zoo.network("inverted")
    found = {ends(candidate): site_of(network, candidate) for candidate in offered(network, "fit").values()}
    assert (found["x", "stem"].low, found["x", "stem"].high) == (0.0, 6.0)


def test_a_fit_becomes_the_convolution_of_its_stage() -> None:
    network = zoo.network("inverted")
    candidate = next(c for c in offered(network, "fit").values() if c.stage.groups > 1)
    stage = candidate.stage
    weight = np.arange(np.prod(stage.weight_shape), dtype=float).reshape(stage.channels_out, -1)
    ((conv, activation),) = series_of(network, candidate, Fit(weight, np.zeros(stage.channels_out), 0, 0, 1))
    assert activation is None and conv.weight.shape == stage.weight_shape and conv.weight.dtype == np.float32
    assert job_of(network, candidate).width is None
    with pytest.raises(ValueError, match="needs a fit"):
        series_of(network, candidate, None)
