"""A merge taken apart computes what the merge computes, everywhere, border included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_layermerge.candidates import Candidate, enumerate_candidates, separate
from onnx_layermerge.fit import series_of
from onnx_layermerge.graph import Network, extract
from onnx_layermerge.recover import assemble, unmerged
from tests import zoo

KINDS = ("merge-all", "merge-subset")


def offered(network: Network) -> list[Candidate]:
    """The merges: a block that is the identity has nothing to be taken apart."""
    return [each for each in enumerate_candidates(network, kinds=KINDS)[0] if each.recipe == "merge"]


def merged(network: Network, plan: Sequence[Candidate]) -> ir.Model:
    return assemble(network, plan, lambda number, candidate, *_: series_of(network, candidate, None))[0]


def apart(network: Network, candidate: Candidate, feeds: dict[str, np.ndarray]) -> float:
    """How far the exit of the block taken apart lies from the merged one's, over the largest value."""
    model = merged(network, [candidate])
    inputs, exit = [info.name for info in network.inputs], [candidate.region.exit]
    wanted = zoo.run(extract(model, inputs, exit), feeds)[exit[0]]
    got = zoo.run(extract(unmerged(network, [candidate], model).model, inputs, exit), feeds)[exit[0]]
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def asymmetric(dtype: Any, opset: int) -> tuple[zoo.Net, str]:
    """Strides behind and before branches, dilation, pads that differ by side, groups, a norm, an average."""
    net = zoo.Net(seed=5, dtype=dtype, opset=opset)
    start = net.conv(net.input(shape=("N", 4, 23, 17)), "c0", 6, 3, pads=[0, 1, 2, 1])
    left = net.conv(net.relu(start, "r0"), "c1", 6, 3, dilation=2, pads=[3, 2, 1, 2], groups=2)
    value = net.add(left, start, "skip")
    one = net.conv(value, "c2", 8, 5, stride=2, pads=[2, 1, 2, 3])
    two = net.conv(value, "c3", 8, 1, stride=2, pads=0, bias=False)
    value = net.relu(net.batch_norm(net.add(one, two, "down"), "norm"), "r1")
    value = net.node("AveragePool", value, name="pool", kernel_shape=[2, 2], pads=[1, 0, 0, 1], count_include_pad=1)
    value = net.conv(value, "c4", 8, 3, stride=2, pads=[0, 2, 1, 0])
    return net, net.depthwise(value, "c5", 3)


@pytest.mark.parametrize(("opset", "dtype", "most"), [(9, np.float32, 1e-5), (17, np.float64, 1e-14)])
def test_strides_dilations_groups_skips_and_pads_that_differ_by_side(opset: int, dtype: Any, most: float) -> None:
    """At opset 9 the operators that pad and cut still have attributes for it."""
    net, last = asymmetric(dtype, opset)
    network = net.network(last)
    found = offered(network)
    assert len(found) > 20 and max(len(candidate.region.convs) for candidate in found) == 6
    # The dilated convolution, or the depthwise one, is left out of blocks with strides in front of what is kept.
    assert {"merge 7x7 c0…down [1011]", "merge 13x13 c0…c4 [10111]"} <= {candidate.key for candidate in found}
    for candidate in found:
        assert apart(network, candidate, zoo.feeds_for(net, batch=1)) < most, candidate.key


@pytest.mark.parametrize("name", sorted(zoo.ALL))
def test_every_form_of_branch_in_single_precision(name: str) -> None:
    net, last = zoo.ALL[name]()
    network = net.network(last)
    for candidate in offered(network):
        assert apart(network, candidate, zoo.feeds_for(net)) < 1e-4, candidate.key


@st.composite
def networks(draw: st.DrawFn) -> zoo.Net:
    net = zoo.Net(seed=draw(st.integers(0, 1000)), dtype=np.float64)
    rank = draw(st.integers(1, 2))
    value = net.input(shape=("N", 4, *[draw(st.integers(31, 34)) for _ in range(rank)]))
    for number in range(draw(st.integers(2, 4))):
        name, kind = f"n{number}", draw(st.sampled_from(["plain", "plain", "skip", "branches", "concat", "average"]))
        pads = draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
        kernel, stride = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2, 3]))
        if kind == "plain":
            value = net.conv(value, name, 4, kernel, pads=pads, stride=stride, bias=draw(st.booleans()),
                             groups=draw(st.sampled_from([1, 2, 4])), dilation=draw(st.integers(1, 2)))  # fmt: skip
        elif kind == "skip":
            inner = net.relu(net.conv(value, f"{name}.c", 4, 5), f"{name}.r")
            value = net.add(net.conv(inner, f"{name}.d", 4, 3), value, name)
        elif kind == "branches":
            left = net.conv(value, f"{name}.l", 4, 3, stride=2)
            value = net.add(left, net.conv(value, f"{name}.r", 4, 1, stride=2, pads=0), name)
        elif kind == "concat":
            left = net.conv(value, f"{name}.l", 1, 3)
            value = net.node("Concat", left, net.conv(value, f"{name}.r", 3, 1), name=name, axis=1, channels=4)
        else:
            value = net.node("AveragePool", value, name=name, kernel_shape=[2] * rank, strides=[stride] * rank,
                             pads=[min(pad, 1) for pad in pads], count_include_pad=1)  # fmt: skip
        if draw(st.booleans()):
            value = net.relu(value, f"{name}.end")
    return net


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(networks(), st.integers(0, 2**16))
def test_whatever_is_merged(net: zoo.Net, pick: int) -> None:
    network = net.network(net.nodes[-1].name)
    found = offered(network)
    if not found:
        return
    candidate = found[pick % len(found)]
    assert apart(network, candidate, zoo.feeds_for(net, batch=1)) < 1e-11


def test_weights_have_the_names_of_the_network_and_what_is_left_out_is_gone() -> None:
    network = zoo.network("plain")
    plan = [each for each in offered(network) if each.key == "merge 5x5 c1…c2 [11]"]
    found = unmerged(network, plan, merged(network, plan))
    assert found.sources == {name: name for name in ("c1.w", "c1.b", "c2.w", "c2.b")}
    assert {node.op_type for node in found.model.graph} == {"Pad", "Conv", "Relu"}
    assert sum(node.op_type == "Relu" for node in found.model.graph) == 1
    assert set(found.sources) < set(found.model.graph.initializers)


def test_a_constant_of_the_same_name_and_other_numbers_is_left_alone() -> None:
    network = zoo.network("plain")
    plan = [each for each in offered(network) if each.key == "merge 5x5 c1…c2 [11]"]
    model = merged(network, plan)
    other = ir.tensor(np.ones((6, 4, 3, 3), np.float32), name="c1.w")
    held = ir.Value(name="c1.w", const_value=other, type=ir.TensorType(other.dtype), shape=ir.Shape(other.shape))
    model.graph.register_initializer(held)
    made = separate(network, plan[0], model.graph, model.graph.inputs[0], "apart")
    assert made.sources["c1.w'"] == "c1.w"
    assert (model.graph.initializers["c1.w"].const_value.numpy() == 1).all()


def test_only_a_merge_is_taken_apart() -> None:
    network = zoo.network("residual")
    (drop, *_) = enumerate_candidates(network, kinds=("drop",))[0]
    with pytest.raises(ValueError, match="no merge"):
        separate(network, drop, network.model.graph, network.model.graph.inputs[0], "x")


def test_a_model_without_the_merge_is_told_apart() -> None:
    network = zoo.network("plain")
    with pytest.raises(ValueError, match="not where it was"):
        unmerged(network, offered(network)[:1], network.model)
