"""Blocks tuned in a model: which weights move, that it helps, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_layermerge.candidates import enumerate_candidates
from onnx_layermerge.data import Calibration, InputSpec, load_calibration
from onnx_layermerge.graph import Network, Session, extract, to_bytes
from onnx_layermerge.importance import collect, divergence
from onnx_layermerge.recover import Built, build, refit, tuned
from tests import zoo
from tests.recover.test_build import pick
from tests.samples import samples_for


def bottlenecks(*, dtype: type = np.float32, batch: int | str = "N") -> tuple[zoo.Net, Network]:
    """stem, three inverted bottlenecks with skips, head."""
    net = zoo.Net(seed=4, dtype=dtype)
    value = net.relu6(net.conv(net.input(shape=(batch, 3, 20, 20)), "stem", 8, stride=2), "r")
    for number in range(3):
        inner = net.relu6(net.conv(value, f"a{number}", 24, 1), f"f{number}")
        inner = net.relu6(net.depthwise(inner, f"d{number}", 3), f"g{number}")
        branch = net.conv(inner, f"b{number}", 8, 1)
        net.weights[f"b{number}.w"] *= dtype(0.5)
        value = net.add(branch, value, f"s{number}")
    return net, net.network(net.classifier(net.relu(net.conv(value, "head", 12, 1), "h")))


def convs(model: object) -> dict[str, bytes]:
    """Bytes of the weights of each convolution, by the name of its output."""
    proto = onnx.load_from_string(to_bytes(model))  # type: ignore[arg-type]
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {
        node.output[0]: b"".join(held[name].tobytes() for name in node.input[1:])
        for node in proto.graph.node
        if node.op_type == "Conv"
    }


def loss(network: Network, built: Built, data: Calibration, at: str) -> float:
    """Relative error of the value ``at`` a skip's end; what follows would average most of it away."""
    models = (extract(model, ["x"], [at]) for model in (network.model, built.model))
    wanted, got = (collect(Session(model).run, data.batches(8)) for model in models)
    return divergence(wanted, got).relative


@pytest.fixture(scope="module")
def case() -> tuple[zoo.Net, Network, Calibration, list, Built]:
    net, network = bottlenecks()
    data = samples_for(net, network, 64)
    plan = pick(network, "width 8/24 a0…b0")
    return net, network, data, plan, build(network, plan, data, images=64, batch=8)


def test_thinned_blocks_get_closer_to_the_original_and_nothing_else_moves(case) -> None:
    net, network, data, plan, built = case
    before = convs(built.model)
    found = tuned(network, plan, built, data, kept=False, batch=8)
    after = convs(found.model)
    moved = {name for name in before if before[name] != after[name]}
    assert found.refitted == () and len(moved) == 3 and moved.isdisjoint(network.values.keys() - {"b0"})
    assert convs(built.model) == before  # a copy was tuned
    fresh = samples_for(net, network, 64, seed=5)
    assert loss(network, found, fresh, "s0") < 0.9 * loss(network, built, fresh, "s0")
    names = {value.name for value in found.model.graph.initializers.values()}
    read = {value.name for node in found.model.graph for value in node.inputs if value is not None}
    assert names <= read  # nothing is left behind
    again = tuned(network, plan, built, data, kept=False, batch=8)
    assert to_bytes(again.model) == to_bytes(found.model)


def test_kept_blocks_behind_it_follow_and_are_named(case) -> None:
    net, network, data, plan, built = case
    found = tuned(network, plan, built, data, kept=True, batch=8)
    inner = {f"{part}{number}" for part in "adb" for number in (1, 2)}
    before, after = convs(built.model), convs(found.model)
    moved = {name for name in before if name in network.values and before[name] != after[name]} - {"b0"}
    assert moved and moved == set(found.refitted) <= inner  # the stem lies in front, the head is no block
    fresh = samples_for(net, network, 64, seed=5)
    alone = tuned(network, plan, built, data, kept=False, batch=8)
    assert loss(network, found, fresh, "s2") < loss(network, alone, fresh, "s2")


def test_a_model_that_was_tuned_before_can_be_tuned_again(case) -> None:
    net, network, data, plan, built = case
    once = tuned(network, plan, refit(network, plan, built, data, images=64, batch=8), data, kept=True, batch=8)
    proto = onnx.load_from_string(to_bytes(once.model))
    again = zoo.lay_out(proto)
    (block,) = (c for c in enumerate_candidates(again, kinds=("width",))[0] if c.key.startswith("width 8/24 a1"))
    second = build(again, [block], data, images=64, batch=8)
    third = tuned(again, [block], refit(again, [block], second, data, images=64, batch=8), data, kept=True, batch=8)
    assert third.refitted and len(convs(third.model)) == len(convs(once.model))
    onnx.checker.check_model(to_bytes(third.model))


def test_a_drop_in_front_hands_its_entry_on(case) -> None:
    net, network, data, _, _ = case
    plan = pick(network, "drop a0…s0", "width 8/24 a1…b1")
    built = build(network, plan, data, images=64, batch=8)
    assert built.aliases == {"s0": "r"}
    found = tuned(network, plan, built, data, kept=False, batch=8)
    fresh = samples_for(net, network, 64, seed=5)
    assert loss(network, found, fresh, "s1") < 0.95 * loss(network, built, fresh, "s1")


def test_too_few_samples_or_nothing_to_tune_changes_nothing(case) -> None:
    net, network, data, plan, built = case
    few = data.take(15)
    assert to_bytes(tuned(network, plan, built, few, kept=True, batch=8).model) == to_bytes(built.model)
    drop = pick(network, "drop a1…s1")
    dropped = build(network, drop, None, images=1, batch=8)
    found = tuned(network, drop, dropped, data, kept=False, batch=8)
    assert to_bytes(found.model) == to_bytes(dropped.model) and found.refitted == ()


def test_weights_keep_the_type_of_the_model() -> None:
    net, network = bottlenecks(dtype=np.float16)
    data = samples_for(net, network, 32)
    plan = pick(network, "width 8/24 a1…b1")
    built = build(network, plan, data, images=32, batch=8)
    found = tuned(network, plan, built, data, kept=False, batch=8)
    assert to_bytes(found.model) != to_bytes(built.model)
    types = {tensor.const_value.numpy().dtype for tensor in found.model.graph.initializers.values()}
    assert types == {np.dtype(np.float16)}
    assert loss(network, found, data, "s1") < loss(network, built, data, "s1")


@pytest.mark.parametrize(("batch", "changed"), ((6, True), (12, False)))
def test_a_fixed_batch_size_is_kept_to(batch: int, changed: bool) -> None:
    """Of 32 samples 4 are held out, which mirror images and mixtures make 11."""
    net, network = bottlenecks(batch=batch)
    arrays = {"x": net.rng.standard_normal((32, 3, 20, 20)).astype("f")}
    data = load_calibration(arrays, [InputSpec("x", (batch, 3, 20, 20), np.dtype("f4"))])
    plan = pick(network, "width 8/24 a0…b0")
    built = build(network, plan, data, images=32, batch=batch)
    found = tuned(network, plan, built, data, kept=True, batch=batch)
    assert (to_bytes(found.model) != to_bytes(built.model)) == changed


def test_one_sample_again_and_again_tunes_nothing(case) -> None:
    net, network, _, plan, built = case
    one = {"x": np.repeat(zoo.feeds_for(net, 1)["x"], 32, axis=0)}
    data = load_calibration(one, [InputSpec("x", ("N", 3, 20, 20), np.dtype("f4"))])
    assert to_bytes(tuned(network, plan, built, data, kept=True, batch=8).model) == to_bytes(built.model)
