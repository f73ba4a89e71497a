"""Pairs of convolutions: where they are offered, what a fit of low rank becomes, what is left untimed and unjudged."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from onnx_layermerge.candidates import Candidate, Stage, enumerate_candidates
from onnx_layermerge.candidates._lowrank import factors
from onnx_layermerge.fit import Fit, job_of, series_of
from onnx_layermerge.graph import Network, Session, splice, sweep, to_bytes
from onnx_layermerge.importance._score import _dominated
from onnx_layermerge.latency.blocks import placeholder
from onnx_layermerge.latency.bounds import speaks_for
from onnx_layermerge.merge import AffineConv
from onnx_layermerge.recover import build
from tests import zoo
from tests.samples import samples_for


def offered(network: Network) -> list[Candidate]:
    return list(enumerate_candidates(network, kinds=("low-rank",))[0])


def ranks(network: Network) -> list[int]:
    return [candidate.stage.channels_in for candidate in offered(network)]


def weights(candidate: Candidate) -> int:
    return sum(prod(stage.weight_shape) for stage in candidate.stages)


def low(rng: np.random.Generator, out: int, wide: int, kernel: tuple[int, ...], rank: int) -> np.ndarray:
    """Weights [out, wide, *kernel] of rank ``rank``."""
    inner = rng.standard_normal((rank, wide * prod(kernel))) / np.sqrt(wide * prod(kernel))
    return (rng.standard_normal((out, rank)) @ inner / np.sqrt(rank)).reshape(out, wide, *kernel)


def test_ranks_are_tiles_and_save_at_least_a_quarter() -> None:
    net = zoo.Net()
    network = net.network(net.conv(net.input(shape=("N", 64, 8, 8)), "c", 96, stride=2, pads=[0, 1, 1, 0]))
    found = offered(network)
    # 64 · 9 · 96 = 55,296 weights; each channel between costs 64 · 9 + 96 = 672.
    assert [candidate.key for candidate in found] == [f"low-rank 3x3 r{rank} c" for rank in (56, 40, 24)]
    assert all(weights(candidate) <= 0.75 * 55_296 for candidate in found)
    for candidate in found:
        first, second = candidate.stages
        assert (first.channels_in, second.channels_out, first.groups, second.groups) == (64, 96, 1, 1)
        assert (first.geometry.stride, first.geometry.pad_begin, first.geometry.pad_end) == ((2, 2), (0, 1), (1, 0))
        assert (second.geometry.kernel, second.geometry.stride) == ((1, 1), (1, 1))
        assert [stage.activation for stage in candidate.stages] == [None, None]


def test_a_pointwise_convolution_and_a_line_can_be_split_too() -> None:
    net = zoo.Net()
    network = net.network(net.conv(net.input(shape=("N", 64, 8, 8)), "c", 64, 1))
    assert ranks(network) == [24, 16, 8]
    net = zoo.Net()
    network = net.network(net.conv(net.input(shape=("N", 32, 40)), "c", 32, 5))
    assert ranks(network) == [16, 8] and offered(network)[0].stages[0].geometry.kernel == (5,)


@pytest.mark.parametrize(
    "options",
    [{"groups": 32}, {"groups": 2}, {"dilation": 2}, {"out": 8}, {"kernel": 1, "out": 12}, {"wide": 520, "out": 24}],
    ids=["depthwise", "grouped", "dilated", "thin", "thin-pointwise", "large"],
)
def test_what_cannot_be_split_or_has_no_pair_that_is_clearly_smaller(options: dict[str, int]) -> None:
    net = zoo.Net()
    wide = options.get("wide", 10 if "out" in options else 32)
    given = {"out": 32, **{name: value for name, value in options.items() if name != "wide"}}
    assert offered(net.network(net.conv(net.input(shape=("N", wide, 3, 3)), "c", **given))) == []


def test_a_stretch_of_two_dense_convolutions_becomes_a_pair_with_a_small_kernel() -> None:
    net = zoo.Net()
    value = net.input(shape=("N", 32, 8, 8))
    for number in range(3):
        value = net.relu(net.conv(value, f"c{number}", 32, 5 if number else 3), f"r{number}")
    found = {candidate.key: candidate for candidate in offered(net.network(net.depthwise(value, "d")))}
    # 9,216 weights of a dense 3×3 at 320 a channel; 25,600 at 832 for a 5×5 alone.
    assert set(found) == {
        *(f"low-rank 3x3 r{rank} {where}" for rank in (16, 8) for where in ("c0…c1", "c1…c2")),
        *(f"low-rank 3x3 r{rank} c0" for rank in (16, 8)),
        *(f"low-rank 5x5 r{rank} {name}" for rank in (16, 8) for name in ("c1", "c2")),
    }
    network = net.network("d")
    job = job_of(network, found["low-rank 3x3 r8 c1…c2"])
    assert job.prior is None and (job.entry, job.site.value, job.rank) == ("r0", "c2", 8)


def test_a_stretch_with_less_work_than_a_small_pair_has_none() -> None:
    net = zoo.Net()
    thin = net.conv(net.relu(net.conv(net.input(shape=("N", 64, 8, 8)), "c1", 8), "r"), "c2", 64)
    pairs = [candidate for candidate in offered(net.network(thin)) if len(candidate.region.convs) == 2]
    # Two times 4,608 weights; a pair costs 640 a channel, and a dense 3×3 would have 36,864.
    assert [candidate.stage.channels_in for candidate in pairs] == [8]
    assert all(weights(candidate) <= 0.75 * 9_216 for candidate in pairs)


@pytest.mark.parametrize("shape", [(9, 30), (30, 9), (12, 12)])
def test_the_two_sides_share_the_size_of_each_component(shape: tuple[int, int]) -> None:
    weight = 1e3 * low(np.random.default_rng(0), shape[0], shape[1], (), 4)
    outer, inner = factors(weight, 4)
    assert (outer.shape, inner.shape) == ((shape[0], 4), (4, shape[1]))
    np.testing.assert_allclose(outer @ inner, weight, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(outer, axis=0), np.linalg.norm(inner, axis=1), rtol=1e-9)
    more, padded = factors(weight, 6)  # two components too many
    assert np.isfinite(more).all() and np.isfinite(padded).all()
    np.testing.assert_allclose(more @ padded, weight, rtol=0, atol=1e-9)
    assert all(not np.any(part) for part in factors(np.zeros(shape), 4))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_fit_becomes_two_convolutions_that_make_the_same_map(dtype: type) -> None:
    net = zoo.Net(dtype=dtype)
    options = {"stride": 2, "pads": [0, 1, 2, 1]}
    network = net.network(net.conv(net.input(shape=("N", 16, 9, 11)), "c", 24, **options))
    candidate = offered(network)[0]
    rank, rng = candidate.stage.channels_in, np.random.default_rng(3)
    weight, bias = low(rng, 24, 16, (3, 3), rank), rng.standard_normal(24)
    fit = Fit(weight.reshape(24, -1), bias, 0.0, 1e-2, 20.0)
    series = series_of(network, candidate, fit)
    assert [(conv.weight.shape, conv.weight.dtype, activation) for conv, activation in series] == [
        ((rank, 16, 3, 3), dtype, None), ((24, rank, 1, 1), dtype, None),
    ]  # fmt: skip
    # A bias on both, as in the placeholder that was timed.
    assert all(conv.bias is not None for conv, _ in (*series, *placeholder(network, candidate)))
    model = network.model
    splice(model.graph, candidate.region.entry, candidate.region.exit, series, "olm/0")
    sweep(model)
    feeds = zoo.feeds_for(net, 2)
    one = AffineConv.from_conv(weight, bias, (2, 2), (1, 1), (0, 1, 2, 1), 1).apply(feeds["x"].astype(np.float64))
    got = Session(to_bytes(model)).run(feeds)["c"]
    np.testing.assert_allclose(got, one, rtol=0, atol=1e-5 if dtype is np.float32 else 2e-2)


def test_a_job_is_the_whole_convolution_near_its_own_weights() -> None:
    net = zoo.Net()
    hidden = net.relu(net.conv(net.input(shape=("N", 16, 8, 8)), "c1", 32), "r1")
    network = net.network(net.relu(net.conv(hidden, "c2", 24), "r2"))
    candidate = next(each for each in offered(network) if each.key.endswith(" c2"))
    job = job_of(network, candidate)
    assert (job.entry, job.site.value, job.site.low, job.rank) == ("r1", "c2", 0.0, candidate.stage.channels_in)
    assert job.stage == Stage(32, 24, candidate.stages[0].geometry) and job.width is None
    assert job.prior is not None
    np.testing.assert_array_equal(job.prior, net.weights["c2.w"].reshape(24, -1))


def test_a_convolution_that_has_a_low_rank_loses_nothing() -> None:
    """Through the whole build, behind another block: what is fitted is what is deployed."""
    net = zoo.Net(seed=5)
    value = net.relu(net.conv(net.input(shape=("N", 4, 8, 8)), "stem", 32), "r0")
    wanted = low(net.rng, 32, 32, (3, 3), 8)
    out = net.add(net.conv(value, "c", weight=wanted), value, "sum")
    network = net.network(net.classifier(net.relu(out, "r1")))
    candidate = next(each for each in offered(network) if each.key == "low-rank 3x3 r8 c")
    built = build(network, [candidate], samples_for(net, network, 48), images=48, batch=8)
    assert built.fits[candidate.key].error < 1e-6
    feeds = zoo.feeds_for(net, 4, seed=9)
    before, after = (zoo.run(model, feeds)["scores"] for model in (network.model, built.model))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-3 * np.abs(before).max())


def test_a_lower_rank_that_is_too_slow_speaks_for_a_higher_one() -> None:
    net = zoo.Net()
    network = net.network(net.conv(net.input(shape=("N", 64, 8, 8)), "c", 64))
    large, middle, small = offered(network)
    assert [each.stage.channels_in for each in (large, middle, small)] == [40, 32, 16]
    assert speaks_for(small, large) and not speaks_for(large, small)
    # 40 channels are padded to 64 by many a layout, 32 are not.
    assert speaks_for(middle, large) and not speaks_for(small, middle)
    single, _ = enumerate_candidates(network, kinds=("fit",))
    assert single and not any(speaks_for(one, large) or speaks_for(large, one) for one in single)


def test_a_pair_no_better_than_less_work_is_not_judged() -> None:
    net = zoo.Net()
    network = net.network(net.conv(net.input(shape=("N", 64, 8, 8)), "c", 64))
    pairs = {each.stage.channels_in: each for each in offered(network)}
    single = next(each for each in enumerate_candidates(network, kinds=("fit",))[0] if each.key == "fit 1x1 c")
    assert weights(single) < weights(pairs[16]) < weights(pairs[32])

    def left(**errors: float) -> set[str]:
        given = {"single": single, "low": pairs[16], "high": pairs[32]}
        named = {given[name].key: name for name in errors}
        fits = {given[name].key: Fit(np.zeros(0), np.zeros(0), error, 0, 0) for name, error in errors.items()}
        return {named[key] for key in _dominated([given[name] for name in errors], fits)}

    assert left(single=0.5, low=0.3, high=0.1) == set()
    assert left(single=0.2, low=0.3, high=0.1) == {"low"}
    assert left(low=0.1, high=0.1) == {"high"}
    # One convolution costs one launch: a pair with fewer weights need not be faster.
    wide = Candidate("fit 3x3 c", single.region, "fit", (Stage(64, 64, pairs[16].stages[0].geometry),))
    fits = {wide.key: Fit(np.zeros(0), np.zeros(0), 0.1, 0, 0), pairs[16].key: Fit(np.zeros(0), np.zeros(0), 0.1, 0, 0)}
    assert _dominated([wide, pairs[16]], fits) == set()
