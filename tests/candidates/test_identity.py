"""A layer that is left out: its activation stays, and no other layer is touched."""

from __future__ import annotations

import numpy as np

from onnx_layermerge.candidates import KINDS, METHODS, Candidate, enumerate_candidates
from onnx_layermerge.fit import series_of
from onnx_layermerge.graph import Network
from onnx_layermerge.recover import assemble
from tests import zoo


def offered(network: Network) -> dict[str, Candidate]:
    return {each.key: each for each in enumerate_candidates(network, kinds=("identity",))[0]}


def test_single_convolutions_of_equal_width_and_grid() -> None:
    assert set(offered(zoo.network("plain"))) == {"identity c2", "identity c3"}
    assert set(offered(zoo.network("downsample"))) == {"identity c0", "identity c2"}
    network = zoo.network("inverted")
    assert set(offered(network)) == {"identity dw"}  # dw2 has a stride
    assert all(len(each.region.convs) == 1 and not each.stages for each in offered(network).values())


def test_pads_that_move_the_image_by_no_more_than_they_keep_its_size() -> None:
    net = zoo.Net(seed=1)
    value = net.conv(net.input(), "valid", 4, 3, pads=0)
    value = net.conv(value, "aside", 4, 3, pads=[2, 2, 0, 0])
    assert set(offered(net.network(net.conv(value, "grown", 4, 3, pads=2)))) == {"identity aside"}


def test_beside_a_skip_too_as_the_paper_has_it() -> None:
    net = zoo.Net(seed=2)
    start = net.relu(net.conv(net.input(), "c0", 4), "r0")
    network = net.network(net.relu(net.add(net.conv(start, "c1", 4), start, "sum"), "r1"))
    (candidate,) = (each for key, each in offered(network).items() if key == "identity c1")
    model, _ = assemble(network, [candidate], lambda number, each, *_: series_of(network, each, None))
    feeds = zoo.feeds_for(net)
    wanted = 2 * zoo.run(net.proto("r0"), feeds)["r0"]
    np.testing.assert_allclose(zoo.run(model, feeds)["r1"], wanted, rtol=1e-6)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Add", "Relu"]


def test_the_papers_methods_are_restrictions_of_it() -> None:
    assert METHODS["depth"] == ("merge-all",) and METHODS["layeronly"] == ("identity",)
    assert set(METHODS["depth"]) < set(METHODS["layermerge"])
    assert all(kind in KINDS for kinds in METHODS.values() for kind in kinds)
