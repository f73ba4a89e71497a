"""Merges without an activation inside are exact everywhere but the ring that their certificate names."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_layermerge.candidates import METHODS, Candidate, enumerate_candidates, merge_of, space_of
from onnx_layermerge.candidates._compose import geometry_through
from onnx_layermerge.candidates._merged import MAX_KERNEL
from onnx_layermerge.fit import series_of
from onnx_layermerge.graph import Network, Region, extract, regions, splice, sweep
from onnx_layermerge.recover import assemble
from tests import zoo


def offered(network: Network, *kinds: str) -> list[Candidate]:
    return list(enumerate_candidates(network, kinds=kinds)[0])


def batch_norm(net: zoo.Net, value: str, name: str) -> str:
    return net.batch_norm(value, name, epsilon=0.01)


def scale(net: zoo.Net, value: str, name: str) -> str:
    factors = net.constant(f"{name}.a", net.rng.uniform(0.5, 2, (4, *(1,) * net.rank)))
    shifted = net.node("Sub", net.constant(f"{name}.c", np.array(0.3)), value, name=f"{name}.s")
    net.channels[shifted] = 4
    return net.node("Mul", shifted, factors, name=name)


def stride_of(draw: st.DrawFn) -> int:
    return draw(st.sampled_from([1, 2]))


@st.composite
def linear_nets(draw: st.DrawFn) -> zoo.Net:
    """Convolutions of every kind in a row, some with a branch around them; float64, no activation."""
    net = zoo.Net(seed=draw(st.integers(0, 1000)), dtype=np.float64)
    rank = draw(st.integers(1, 2))
    # Four strides of 2 behind dilated kernels of 5 leave one position of 61.
    value = net.input(shape=("N", 4, *(61,) * rank))
    for number in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["plain", "plain", "depthwise", "skip", "branches", "concat", "norm", "average"]))
        name, bias = f"n{number}", draw(st.booleans())
        pads = draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
        kernel = draw(st.sampled_from([1, 2, 3]))
        if kind == "plain":
            groups, stride = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 1, 2]))
            value = net.conv(value, name, 4, kernel, pads=pads, groups=groups, stride=stride, bias=bias,
                             dilation=draw(st.sampled_from([1, 1, 2])))  # fmt: skip
        elif kind == "depthwise":
            value = net.depthwise(value, name, kernel, pads=pads, bias=bias)
        elif kind == "skip":
            value = net.add(net.conv(value, f"{name}.c", 4, 3, bias=bias), value, name)
        elif kind == "concat":
            left = net.conv(value, f"{name}.l", 1, 3, bias=bias)
            value = net.node(
                "Concat", left, net.conv(value, f"{name}.r", 3, 1, bias=bias), name=name, axis=1, channels=4
            )
        elif kind == "norm":
            value = draw(st.sampled_from([batch_norm, scale]))(net, value, name)
        elif kind == "average":
            value = net.node("AveragePool", value, name=name, kernel_shape=[2] * rank, strides=[stride_of(draw)] * rank,
                             pads=pads, count_include_pad=1) if max(pads) < 2 else net.node(
                             "AveragePool", value, name=name, kernel_shape=[2] * rank)  # fmt: skip
        else:
            left = net.conv(value, f"{name}.l", 4, 3, stride=2, bias=bias)
            value = net.add(left, net.conv(value, f"{name}.r", 4, 1, stride=2, pads=0), name)
    return net


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(linear_nets(), st.randoms(use_true_random=False))
def test_sets_of_merges_equal_their_regions_outside_the_rings(net: zoo.Net, random: Random) -> None:
    network = net.network(net.nodes[-1].name)
    feeds = zoo.feeds_for(net, batch=1)
    plan: list[Candidate] = []
    found = offered(network, "merge")
    random.shuffle(found)
    for candidate in found:
        taken = [other.region for other in plan]
        if all(candidate.region.stop <= region.start or region.stop <= candidate.region.start for region in taken):
            plan.append(candidate)
    plan.sort(key=lambda candidate: candidate.region.start)
    if not plan:
        return
    exits = list(dict.fromkeys([*(candidate.region.exit for candidate in plan), net.nodes[-1].name]))
    model, _ = assemble(network, plan, lambda number, candidate, *_: series_of(network, candidate, None))
    wanted = zoo.run(extract(network.model, list(net.inputs), exits), feeds)
    got = zoo.run(extract(model, list(net.inputs), exits), feeds)
    for candidate in plan:
        certificate = merge_of(network, candidate).certificate
        assert certificate.kind in ("exact", "border")
        name = candidate.region.exit
        assert got[name].dtype == np.float64 and got[name].shape == wanted[name].shape
        inside = (slice(None), slice(None), *certificate.interior(wanted[name].shape[2:]))
        np.testing.assert_allclose(
            got[name][inside], wanted[name][inside], rtol=0, atol=1e-11 * np.abs(wanted[name]).max()
        )
        if certificate.kind == "border":
            return  # what follows reads a border that may differ
    last = exits[-1]
    np.testing.assert_allclose(got[last], wanted[last], rtol=0, atol=1e-11 * np.abs(wanted[last]).max())


def test_only_regions_without_an_activation_are_lossless() -> None:
    assert offered(zoo.network("plain"), "merge") == []
    found = offered(zoo.network("parallel"), "merge")
    ends = [(candidate.region.entry, candidate.region.exit) for candidate in found]
    assert ends == [("r0", "sides"), ("r0", "add")]
    network = zoo.network("parallel")
    assert {merge_of(network, candidate).certificate.kind for candidate in found} == {"exact"}


def test_a_merge_over_an_activation_says_that_it_is_lossy() -> None:
    network = zoo.network("plain")
    found = {candidate.key: candidate for candidate in offered(network, "merge-all")}
    assert set(found) == {"merge 5x5 c1…c2 [11]", "merge 7x7 c1…c3 [111]", "merge 5x5 c2…c3 [11]"}
    certificate = merge_of(network, found["merge 7x7 c1…c3 [111]"]).certificate
    assert certificate.kind == "lossy" and "activation" in certificate.reason


def test_depthwise_merges_stay_depthwise() -> None:
    net = zoo.Net()
    network = net.network(net.depthwise(net.depthwise(net.input(), "d1"), "d2"))
    (candidate,) = offered(network, "merge")
    ((conv, _),) = series_of(network, candidate, None)
    assert conv.groups == 4 and conv.weight.shape == (4, 1, 5, 5)


def test_the_papers_subsets_keep_the_largest_norms() -> None:
    net = zoo.Net()
    value = net.input()
    for number, scale in enumerate((1.0, 3.0, 2.0), start=1):
        value = net.conv(value, f"c{number}", weight=scale * net.rng.standard_normal((4, 4, 3, 3)), pads=1)
    network = net.network(value)
    keys = {c.key for c in offered(network, "merge-subset") if len(c.region.convs) == 3}
    # Kernel 3 keeps the one, kernel 5 the two convolutions of largest L1 norm, kernel 1 none.
    assert keys == {"identity c1…c3", "merge 3x3 c1…c3 [010]", "merge 5x5 c1…c3 [011]"}
    for candidate in offered(network, "merge-subset"):
        if candidate.recipe == "identity":
            assert not candidate.stages and series_of(network, candidate, None) == ()
            continue
        assert merge_of(network, candidate).certificate.kind == "lossy"
        assert candidate.stage.geometry.same_grid(candidate.stage.geometry.with_kernel((1, 1)))  # type: ignore[arg-type]


def test_a_subset_computes_the_region_with_the_others_left_out() -> None:
    net = zoo.Net(dtype=np.float64)
    value = net.input()
    for number in range(1, 4):
        value = net.conv(value, f"c{number}", bias=False)
    network, feeds = net.network(value), zoo.feeds_for(net)
    found = offered(network, "merge-subset")
    assert sum(candidate.recipe == "identity" for candidate in found) == 6
    for candidate in found:
        keep = candidate.keep or (False,) * len(candidate.region.convs)
        left_out = [
            network.order[position].name
            for position, kept in zip(candidate.region.convs, keep, strict=True)
            if not kept
        ]
        original = extract(network.model, ["x"], ["c3"])
        for name in left_out:
            node = next(node for node in original.graph if node.name == name)
            splice(original.graph, str(node.inputs[0].name), name, (), "gone")  # type: ignore[union-attr]
        changed = extract(network.model, ["x"], ["c3"])
        splice(changed.graph, candidate.region.entry, candidate.region.exit, series_of(network, candidate, None), "o")
        for model in (original, changed):
            sweep(model)
        wanted, got = (zoo.run(model, feeds)["c3"] for model in (original, changed))
        inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
        np.testing.assert_allclose(got[inside], wanted[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("wide", [True, False])
def test_a_convolution_that_changes_the_width_is_always_kept(wide: bool) -> None:
    net = zoo.Net()
    first = net.conv(net.input(), "c1", 6 if wide else 4, weight=None)
    network = net.network(net.conv(first, "c2", 4, weight=None))
    keeps = {candidate.keep for candidate in offered(network, "merge-subset") if len(candidate.region.convs) == 2}
    larger = (True, False) if abs_sum(net, "c1") > abs_sum(net, "c2") else (False, True)
    assert keeps == (set() if wide else {larger, ()})


def abs_sum(net: zoo.Net, name: str) -> float:
    return float(np.abs(net.weights[f"{name}.w"]).sum())


def test_strides_before_a_convolution_multiply_what_it_adds_to_the_kernel() -> None:
    """k = 1 + Σ (k_l − 1)·Π strides before; a stride is never left out."""
    net = zoo.Net(seed=4)
    value = net.conv(net.input(shape=("N", 4, 24, 24)), "c1", 4, 5, pads=2)
    value = net.conv(value, "c2", 4, stride=2)
    value = net.conv(value, "c3", 4)
    network = net.network(net.conv(value, "c4", 4, 1, stride=2, pads=0))
    found = offered(network, "merge-subset")
    keys = {candidate.key for candidate in found if len(candidate.region.convs) == 4}
    assert keys == {"merge 3x3 c1…c4 [0101]", "merge 7x7 c1…c4 " + ("[1101]", "[0111]")[abs_sum(net, "c3") > abs_sum(
        net, "c1")]}  # fmt: skip
    assert "merge 3x3 c2…c3 [10]" in {candidate.key for candidate in found}


def test_blocks_that_keep_no_convolution() -> None:
    """Nothing is left of a chain; of a skip inside there is what adds the entry to itself."""
    network = zoo.network("residual")
    found = {candidate.key: candidate for candidate in offered(network, "merge-subset")}
    assert {"identity c1", "identity c2", "identity c1…c2", "merge 1x1 c1…add [00]"} <= set(found)
    assert not any(key.startswith("identity c0") for key in found)  # it changes the width
    candidate = found["merge 1x1 c1…add [00]"]
    ((conv, _),) = series_of(network, candidate, None)
    assert conv.groups == 6 and conv.weight.shape == (6, 1, 1, 1)
    assert (conv.weight == 2).all() and conv.bias is not None and not conv.bias.any()
    assert "convolution" in merge_of(network, candidate).certificate.reason


def test_subsets_of_depthwise_convolutions_stay_depthwise() -> None:
    net = zoo.Net(seed=2)
    value = net.conv(net.depthwise(net.input(), "d1", 5), "c", 4)
    network = net.network(net.relu(value, "r"))
    found = {candidate.keep: candidate for candidate in offered(network, "merge-subset")}
    assert {keep: found[keep].stage.groups for keep in found if any(keep)} == {(True, False): 4, (False, True): 1}
    ((conv, _),) = series_of(network, found[(True, False)], None)
    assert conv.weight.shape == (4, 1, 5, 5)


def best_subsets(network: Network, region: Region) -> set[tuple[bool, ...]]:
    """By trying all: of those that come to one kernel, the one of the largest ΣL1 norm."""
    space = space_of(network, region)
    assert not isinstance(space, str)
    convs = [network.convs[position] for position in region.convs]
    fixed = [conv.channels_in != conv.channels_out or max(conv.stride) > 1 for conv in convs]
    best: dict[tuple[int, ...], tuple[float, tuple[bool, ...]]] = {}
    for keep in product((False, True), repeat=len(convs)):
        if any(stays and not flag for stays, flag in zip(fixed, keep, strict=True)):
            continue
        geometry = geometry_through(network, region, keep, space)
        if geometry is not None:
            norm = sum(float(np.abs(conv.weight).sum()) for conv, flag in zip(convs, keep, strict=True) if flag)
            best[geometry.kernel] = max(best.get(geometry.kernel, (-1.0, ())), (norm, keep))
    return {keep for kernel, (_, keep) in best.items() if max(kernel) <= MAX_KERNEL and not all(keep)}


def strided_blocks() -> tuple[zoo.Net, str]:
    """Residual blocks, each second one with a stride and a parallel 1×1; kernels of 1 × 3 and 3 × 1."""
    net = zoo.Net(seed=8)
    value = net.relu(net.conv(net.input(shape=("N", 4, 32, 32)), "stem", 4), "r")
    for number in range(4):
        stride, wide = 1 + number % 2, 4 + 2 * (number // 2)
        inner = net.relu(net.conv(value, f"a{number}", wide, stride=stride), f"b{number}")
        inner = net.conv(inner, f"c{number}", wide, 5 if number % 2 else 3)
        changes = stride > 1 or net.channels[value] != wide
        side = net.conv(value, f"d{number}", wide, 1, stride=stride, pads=0) if changes else value
        value = net.relu(net.add(inner, side, f"s{number}"), f"t{number}")
    value = net.conv(net.conv(value, "flat", 6, (1, 3), pads=[0, 1, 0, 1]), "tall", 6, (3, 1), pads=[1, 0, 1, 0])
    return net, value


@pytest.mark.parametrize("name", ["blocks", *sorted(zoo.ALL)])
def test_each_kernel_size_has_its_best_subset(name: str) -> None:
    net, last = strided_blocks() if name == "blocks" else zoo.ALL[name]()
    network = net.network(last)
    found: dict[Region, set[tuple[bool, ...]]] = {}
    for candidate in offered(network, "merge-subset"):
        keep = candidate.keep or (False,) * len(candidate.region.convs)
        found.setdefault(candidate.region, set()).add(keep)
    several = [region for region in regions(network) if len(region.convs) > 1 and not isinstance(
        space_of(network, region), str)]  # fmt: skip
    assert several
    for region in several:
        if name != "concat":
            assert found.get(region, set()) == best_subsets(network, region), region
            continue
        # Branches with kernels of their own do not add up: each size is there once, with some subset.
        space = space_of(network, region)
        assert not isinstance(space, str)
        sizes = [geometry_through(network, region, keep, space) for keep in found.get(region, ())]
        assert len({geometry.kernel for geometry in sizes if geometry is not None}) == len(sizes)


@pytest.mark.parametrize("name", ["blocks", *sorted(zoo.ALL)])
def test_the_papers_baselines_choose_from_what_the_paper_chooses_from(name: str) -> None:
    net, last = strided_blocks() if name == "blocks" else zoo.ALL[name]()
    network = net.network(last)
    whole = {candidate.key: candidate for candidate in offered(network, *METHODS["layermerge"])}
    for method in ("depth", "layeronly"):
        part = offered(network, *METHODS[method])
        assert all(whole.get(candidate.key) == candidate for candidate in part), method
    assert len(whole) >= len(offered(network, *METHODS["depth"], *METHODS["layeronly"])) > 0
