"""What a training makes of a model that was taken apart, in one piece again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from onnx_layermerge.candidates import Candidate, enumerate_candidates
from onnx_layermerge.fit import series_of
from onnx_layermerge.graph import Network
from onnx_layermerge.recover import (
    Unmerged,
    assemble,
    merged_weights,
    moved_merges,
    normed_weights,
    unmerged,
    with_norms,
)
from onnx_layermerge.recover.training import put_back
from tests import zoo


def plan_of(network: Network, *keys: str) -> list[Candidate]:
    found = {each.key: each for each in enumerate_candidates(network, kinds=("drop", "merge-all", "merge-subset"))[0]}
    return [found[key] for key in keys]


def merged(network: Network, plan: list[Candidate]) -> ir.Model:
    return assemble(network, plan, lambda number, candidate, *_: series_of(network, candidate, None))[0]


def trained(found: Unmerged, *names: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Other values for float initializers of these names (all that are not a norm's statistics)."""
    rng, values = np.random.default_rng(seed), {}
    for name, held in found.model.graph.initializers.items():
        array = held.const_value.numpy()
        taught = not name.endswith((".mean", ".variance", ".var")) and array.dtype.kind == "f"
        if taught and (name in names or not names):
            values[str(name)] = array + 0.1 * rng.standard_normal(array.shape)
    return values


def outputs(model: ir.Model, net: zoo.Net, weights: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    model = model.clone()
    put_back(model, dict(weights or {}))
    (found,) = zoo.run(model, zoo.feeds_for(net)).values()
    return found


def net_of() -> tuple[zoo.Net, Network]:
    """A strided convolution with a skip behind it, all without pads that match, in float64."""
    net = zoo.Net(seed=2, dtype=np.float64)
    start = net.relu(net.conv(net.input(shape=("N", 4, 11, 12)), "c0", 4), "r0")
    value = net.relu(net.conv(start, "c1", 6, stride=2, pads=[1, 0, 1, 2]), "r1")
    inner = net.relu(net.conv(value, "c2", 6), "r2")
    value = net.relu(net.add(net.conv(inner, "c3", 6), value, "skip"), "r3")
    return net, net.network(net.conv(value, "c4", 6, 1))


KEYS = ("merge 11x11 c1…skip [111]",)


def test_the_merge_is_made_again_of_what_was_learned() -> None:
    net, network = net_of()
    plan = plan_of(network, *KEYS)
    model = merged(network, plan)
    found = unmerged(network, plan, model)
    assert found.blocks == KEYS
    learned = trained(found)
    assert {"c0.w", "c1.w", "c2.b", "c4.w"} <= set(learned)
    wanted = outputs(found.model, net, learned)
    new = merged_weights(network, plan, model, found, learned)
    got = outputs(model, net, new)
    assert np.abs(got - outputs(model, net)).max() > 0.1
    assert np.abs(got - wanted).max() < 1e-12 * np.abs(wanted).max()
    assert set(new) == {"c0.w", "c0.b", "c4.w", "c4.b", "olm/0.weight", "olm/0.bias"}


def test_what_did_not_move_keeps_its_bits() -> None:
    _, network = net_of()
    plan = plan_of(network, *KEYS)
    model = merged(network, plan)
    found = unmerged(network, plan, model)
    assert merged_weights(network, plan, model, found, {}) == {}
    assert set(merged_weights(network, plan, model, found, trained(found, "c0.w"))) == {"c0.w"}
    assert set(merged_weights(network, plan, model, found, trained(found, "c2.w"))) == {"olm/0.weight", "olm/0.bias"}


def test_scales_and_shifts_inside_a_block_are_learned_too() -> None:
    net = zoo.Net(seed=3, dtype=np.float64)
    value = net.batch_norm(net.conv(net.input(), "c0", 4), "norm")
    network = net.network(net.relu(net.conv(value, "c1", 4), "r"))
    plan = plan_of(network, "merge 5x5 c0…c1 [11]")
    model = merged(network, plan)
    found = unmerged(network, plan, model)
    learned = trained(found, "norm.scale", "norm.shift", "c1.b")
    assert len(learned) == 3
    wanted = outputs(found.model, net, learned)
    got = outputs(model, net, merged_weights(network, plan, model, found, learned))
    assert np.abs(got - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_drops_beside_merges_stay_dropped() -> None:
    net, last = zoo.residual()
    network = net.network(last)
    plan = plan_of(network, "drop c1…r2")
    model = merged(network, plan)
    found = unmerged(network, plan, model)
    assert found.blocks == () and found.sources == {}
    assert np.array_equal(outputs(found.model, net), outputs(model, net))


def test_layers_left_out_beside_strides_and_blocks_of_nothing() -> None:
    """A subset with a stride in front of what it keeps, a skip that nothing is beside, and a chain that is gone."""
    net = zoo.Net(seed=12, dtype=np.float64)
    value = net.relu(net.conv(net.input(shape=("N", 4, 17, 18)), "c0", 6, pads=[0, 1, 1, 0]), "r0")
    value = net.relu(net.conv(value, "c1", 6, stride=2, pads=[1, 0, 1, 2]), "r1")
    value = net.relu(net.conv(value, "c2", 6, 5), "r2")
    value = net.relu(net.conv(value, "c3", 8), "r3")
    inner = net.relu(net.conv(value, "d0", 8), "r4")
    value = net.relu(net.add(net.conv(inner, "d1", 8), value, "skip"), "r5")
    value = net.relu(net.conv(net.relu(net.conv(value, "e0", 8), "r6"), "e1", 8), "r7")
    network = net.network(net.conv(value, "last", 5, 1))
    plan = plan_of(network, "merge 9x9 c0…c3 [1101]", "merge 1x1 d0…skip [00]", "identity e0…e1")
    model = merged(network, plan)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv", "Relu", "Relu", "Conv"]
    found = unmerged(network, plan, model)
    assert found.blocks == tuple(each.key for each in plan[:2])
    assert set(found.sources) == {f"{name}.{part}" for name in ("c0", "c1", "c3") for part in "wb"}
    before, exact = outputs(model, net), outputs(found.model, net)
    assert np.abs(before - exact).max() < 1e-12 * np.abs(before).max()
    learned = trained(found)
    assert set(learned) == {*found.sources, "last.w", "last.b"}
    wanted = outputs(found.model, net, learned)
    got = outputs(model, net, merged_weights(network, plan, model, found, learned))
    assert np.abs(got - before).max() > 0.1
    assert np.abs(got - wanted).max() < 1e-12 * np.abs(wanted).max()
    assert moved_merges(network, plan, model) == ()


# --- merges that were trained, weights that are shared ---------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "far"), [(np.float16, 3), (np.float32, 3), (np.float64, 2**20)])
def test_a_merge_that_was_trained_is_known(dtype: type, far: int) -> None:
    """The merge of the network's own weights is one whatever its last bit is; a small step further it is not."""
    net = zoo.Net(seed=6, dtype=dtype)
    start = net.relu(net.conv(net.input(shape=("N", 3, 6, 6)), "c0", 4), "r0")
    inner = net.relu(net.conv(start, "c1", 4), "r1")
    network = net.network(net.relu(net.add(net.conv(inner, "c2", 4), start, "skip"), "r2"))
    plan = plan_of(network, "merge 5x5 c1…skip [11]")
    model = merged(network, plan)
    assert moved_merges(network, plan, model) == ()
    for name in ("olm/0.weight", "olm/0.bias"):
        value = model.graph.initializers[name]
        given = value.const_value.numpy()
        place = np.unravel_index(np.abs(given).argmax(), given.shape)
        for places, moved in ((1, ()), (far, (plan[0].key,))):
            other = given.copy()
            other[place] += places * np.spacing(other[place])
            value.const_value = ir.tensor(other, name=name)
            assert moved_merges(network, plan, model) == moved, (name, places)
        value.const_value = ir.tensor(given, name=name)


def shared() -> tuple[zoo.Net, Network]:
    """Two blocks that read one weight, which a convolution behind them reads as well."""
    net = zoo.Net(seed=6, dtype=np.float64)
    value = net.relu(net.conv(net.input(shape=("N", 3, 8, 8)), "c0", 6), "r0")
    for name in "de":
        inner = net.relu(net.node("Conv", value, "w", name=f"{name}1", pads=[1] * 4), f"{name}r")
        value = net.relu(net.add(net.conv(inner, f"{name}2", 6), value, f"{name}s"), f"{name}t")
    net.weights["w"] = net.rng.standard_normal((6, 6, 3, 3)) / 8
    return net, net.network(net.node("Conv", value, "w", name="last", pads=[1] * 4))


@pytest.mark.parametrize("refitted", [False, True])
def test_what_merges_share_is_learned_once(refitted: bool) -> None:
    """Also where a kept convolution has other numbers under that name: those are its own then."""
    net, network = shared()
    plan = plan_of(network, "merge 5x5 d1…ds [11]", "merge 5x5 e1…es [11]")
    model = merged(network, plan)
    if refitted:
        value = model.graph.initializers["w"]
        value.const_value = ir.tensor(1.01 * value.const_value.numpy(), name="w")
    found = unmerged(network, plan, model)
    assert sum(source == "w" for source in found.sources.values()) == 1
    assert ("w'" in found.model.graph.initializers) is refitted
    learned = trained(found)
    wanted = outputs(found.model, net, learned)
    got = outputs(model, net, merged_weights(network, plan, model, found, learned))
    assert np.abs(got - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_a_name_of_the_networks_own_is_no_copy() -> None:
    """Two weights of one value, and of the names that a weight and its copy would have."""
    net, _ = net_of()
    same = net.weights["c2.w"]
    last = net.node("Conv", "r3", "c2.w'", name="c5", pads=[1] * 4)
    net.weights["c2.w'"] = same
    network = net.network(last)
    plan = plan_of(network, *KEYS)
    model = merged(network, plan)
    found = unmerged(network, plan, model)
    assert found.sources["c2.w"] == "c2.w" and "c2.w'" not in found.sources
    learned = trained(found, "c2.w'")
    assert set(merged_weights(network, plan, model, found, learned)) == {"c2.w'"}


# --- norms ------------------------------------------------------------------------------------------------------


class Exact:
    """onnxruntime has no convolution in double precision."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return zoo.run(self.model, feeds)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_layermerge.recover._unmerged.Session", Exact)


def normed(net: zoo.Net, network: Network, plan: list[Candidate]) -> tuple[ir.Model, Unmerged]:
    model = merged(network, plan)
    found = unmerged(network, plan, model)
    return model, with_norms(found, [zoo.feeds_for(net, 3, seed=seed) for seed in (5, 6)])


@pytest.mark.usefixtures("exact")
def test_norms_change_nothing_but_what_can_be_learned() -> None:
    net, network = net_of()
    plan = plan_of(network, *KEYS)
    model, found = normed(net, network, plan)
    assert len(found.norms) == 5
    before, after = outputs(model, net), outputs(found.model, net)
    assert np.abs(before - after).max() < 1e-12 * np.abs(before).max()
    names = [node.op_type for node in found.model.graph]
    assert names.count("BatchNormalization") == 5
    for norm in found.norms:
        scale, shift = (found.model.graph.initializers[name].const_value.numpy() for name in (norm.scale, norm.shift))
        np.testing.assert_allclose(scale**2, norm.variance + 2.0**-17, rtol=1e-12)
        np.testing.assert_array_equal(shift, norm.mean)


@pytest.mark.usefixtures("exact")
def test_statistics_are_those_of_the_samples() -> None:
    net, network = net_of()
    _, found = normed(net, network, plan_of(network, *KEYS))
    x = np.concatenate([zoo.feeds_for(net, 3, seed=seed)["x"] for seed in (5, 6)])
    exact = zoo.run(net.proto("c0"), {"x": x})["c0"]
    (norm,) = (each for each in found.norms if each.weight == "c0.w")
    np.testing.assert_allclose(norm.mean, exact.mean((0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(norm.variance, exact.var((0, 2, 3)), rtol=1e-10)


@pytest.mark.usefixtures("exact")
def test_norms_are_folded_into_the_convolutions_before_the_merge() -> None:
    net, network = net_of()
    plan = plan_of(network, *KEYS)
    model, found = normed(net, network, plan)
    learned = trained(found)
    assert sum(name.endswith(".norm.scale") for name in learned) == 5
    wanted = outputs(found.model, net, learned)
    new = merged_weights(network, plan, model, found, learned)
    assert set(new) == {"c0.w", "c0.b", "c4.w", "c4.b", "olm/0.weight", "olm/0.bias"}
    assert np.abs(outputs(model, net, new) - wanted).max() < 1e-11 * np.abs(wanted).max()
    (one,) = (norm for norm in found.norms if norm.weight == "c4.w")
    assert set(merged_weights(network, plan, model, found, trained(found, one.shift))) == {"c4.w", "c4.b"}


def test_only_what_had_a_norm_gets_one_where_the_file_shows_it() -> None:
    net = zoo.Net(seed=4)
    first = net.batch_norm(net.conv(net.input(), "c0", 4, bias=False), "n0")
    second = net.conv(net.relu(first, "r0"), "c1", 4)
    other = net.batch_norm(net.conv(net.relu(second, "r1"), "c2", 4), "n2")
    read_twice = net.add(other, net.conv(second, "c3", 4), "sum")
    assert normed_weights(ir.from_proto(net.proto(read_twice))) == {"c0.w", "c2.w"}
    network = net.network(read_twice)
    found = with_norms(unmerged(network, [], network.model), [zoo.feeds_for(net)], {"c1.w", "c0.w"})
    assert [norm.weight for norm in found.norms] == ["c1.w"]  # c0 has no bias that a folded norm would have left


def test_weights_that_two_share_get_no_norm() -> None:
    net = zoo.Net(seed=4)
    value = net.relu(net.conv(net.input(), "c0", 4), "r0")
    twice = net.node("Conv", value, "c0.w", "c0.b", name="c1", pads=[1, 1, 1, 1])
    network = net.network(twice)
    found = unmerged(network, [], network.model)
    assert with_norms(found, [zoo.feeds_for(net)]) is found


@pytest.mark.parametrize("name", ["residual", "downsample", "inverted"])
def test_shared_and_kept_weights_in_single_precision(name: str) -> None:
    net, last = zoo.ALL[name]()
    network = net.network(last)
    for candidate in enumerate_candidates(network, kinds=("merge-all",))[0]:
        model = merged(network, [candidate])
        found = unmerged(network, [candidate], model)
        learned = {name: array.astype(np.float32) for name, array in trained(found).items() if array.size > 1}
        wanted = outputs(found.model, net, learned)
        got = outputs(model, net, merged_weights(network, [candidate], model, found, learned))
        assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()
