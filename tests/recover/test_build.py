"""Blocks replaced one after another: names that moved on, weights fitted on what really arrives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_layermerge.candidates import Candidate, enumerate_candidates
from onnx_layermerge.data import InputSpec, load_calibration
from onnx_layermerge.fit import job_of, series_of
from onnx_layermerge.graph import Network, Session, splice, sweep, to_bytes
from onnx_layermerge.importance import collect, divergence
from onnx_layermerge.recover import _prefix, _refit, build, refit
from tests import zoo
from tests.samples import samples_for

KINDS = ("drop", "fit", "merge-all", "width")


def pick(network: Network, *keys: str) -> list[Candidate]:
    found = {candidate.key: candidate for candidate in enumerate_candidates(network, kinds=KINDS)[0]}
    return [found[key] for key in keys]


def deep(*, wide: int = 6) -> tuple[zoo.Net, Network]:
    """stem, three residual blocks, head; the widest thing between the blocks' convolutions is 16."""
    net = zoo.Net(seed=11)
    value = net.relu(net.conv(net.input(), "stem", wide), "r")
    for number in range(3):
        hidden = net.relu(net.conv(value, f"a{number}", 16), f"h{number}")
        value = net.relu(net.add(net.conv(hidden, f"b{number}", wide), value, f"s{number}"), f"r{number}")
    return net, net.network(net.classifier(value))


def run(model: object, net: zoo.Net) -> np.ndarray:
    return zoo.run(model, zoo.feeds_for(net, 4, seed=9))["scores"]  # type: ignore[arg-type]


def test_drops_in_a_row_pass_the_value_on() -> None:
    net, network = deep()
    plan = pick(network, "drop a0…r0", "drop a1…r1")
    built = build(network, plan, None, images=1, batch=4)
    assert built.aliases == {"r0": "r", "r1": "r"} and built.fits == {}
    assert [node.name for node in built.model.graph if node.op_type == "Conv"] == ["stem", "a2", "b2"]
    # By hand: a network of the same weights with the first two blocks left out.
    small, _ = deep()
    small.nodes = [node for node in small.nodes if not node.name.endswith(("0", "1"))]
    for node in small.nodes:
        for index, name in enumerate(node.input):
            if name == "r1":
                node.input[index] = "r"
    np.testing.assert_allclose(run(built.model, net), run(small.proto("scores"), net), rtol=1e-5, atol=1e-5)
    # The order in which the blocks are named does not matter.
    assert to_bytes(build(network, plan[::-1], None, images=1, batch=4).model) == to_bytes(built.model)


@pytest.mark.parametrize("name", [name for name in zoo.ALL if name not in ("line", "concat")])
def test_layers_outside_of_the_plan_stay_as_they_are_to_the_last_bit(name: str) -> None:
    net, output = zoo.ALL[name]()
    network = net.network(output)
    data = samples_for(net, network, 12)
    found = enumerate_candidates(network, kinds=("drop", "fit", "width"))[0]
    candidate = min(found, key=lambda c: (len(c.region.convs), c.recipe != "fit", c.key))
    built = build(network, [candidate], data, images=8, batch=4).model
    after = {str(node.name): node for node in built.graph}
    kept = [node for p, node in enumerate(network.order) if not candidate.region.start <= p < candidate.region.stop]
    assert kept
    for node in kept:
        same = after[str(node.name)]
        assert (same.op_type, dict(same.attributes).keys()) == (node.op_type, dict(node.attributes).keys())
        assert [(key, given.value) for key, given in same.attributes.items()] == [
            (key, given.value) for key, given in node.attributes.items()
        ]
        for old, new in zip(node.inputs, same.inputs, strict=True):
            if old is not None and old.const_value is not None:
                assert new is not None and new.const_value is not None
                assert old.const_value.tobytes() == new.const_value.tobytes()


def test_an_empty_plan_is_the_network_itself() -> None:
    net, network = deep()
    built = build(network, [], None, images=1, batch=4)
    np.testing.assert_array_equal(run(built.model, net), run(network.model, net))


@pytest.mark.parametrize(
    "keys",
    [
        ("drop a0…r0", "fit 3x3 a1…s1"),  # the fit's entry was dropped away
        ("drop a0…r0", "fit 3x3 a1…b1"),  # its skip as well
        ("drop a0…r0", "drop a1…r1", "width 8/16 a2…b2"),  # hidden value, entry and skip behind two drops
        ("fit 3x3 a0…s0", "fit 3x3 a1…s1", "drop a2…r2"),
        ("width 8/16 a0…b0", "drop a1…r1", "width 8/16 a2…b2"),
        ("fit 1x1 stem", "drop a0…r0"),
        ("merge 5x5 a0…s0 [11]", "fit 3x3 a1…s1"),
    ],
)
def test_mixed_plans_build_valid_models_without_the_old_blocks(keys: tuple[str, ...]) -> None:
    net, network = deep()
    data = samples_for(net, network, 24)
    plan = pick(network, *keys)
    built = build(network, plan, data, images=24, batch=8)
    onnx.checker.check_model(onnx.load_from_string(to_bytes(built.model)), full_check=True)
    left = {node.name for node in built.model.graph}
    for candidate in plan:
        inside = network.order[candidate.region.start : candidate.region.stop]
        assert not left & {node.name for node in inside}
    assert set(built.fits) == {key for key in keys if key.startswith(("fit", "width"))}
    assert np.isfinite(run(built.model, net)).all()


def test_a_fit_behind_a_drop_repairs_what_the_drop_broke() -> None:
    """The same fit, solved on the original's activations and on what really arrives."""
    net, network = deep()
    data, unseen = samples_for(net, network, 64), samples_for(net, network, 32, seed=5)
    wanted = collect(Session(network.model).run, unseen.batches(8))
    drop, fit = pick(network, "drop a0…r0", "fit 3x3 a1…s1")

    def relative(model: object) -> float:
        return divergence(wanted, collect(Session(model).run, unseen.batches(8))).relative  # type: ignore[arg-type]

    built = build(network, [drop, fit], data, images=64, batch=8)
    alone = build(network, [fit], data, images=64, batch=8)
    unaware = build(network, [drop], None, images=1, batch=8).model
    splice(unaware.graph, "r", "s1", series_of(network, fit, alone.fits[fit.key]), "olm/1")
    sweep(unaware)
    assert relative(built.model) < 0.9 * relative(unaware)


def test_the_target_is_the_originals_value() -> None:
    """A linear block in front of a linear one: the second fit can undo the first one's scale exactly."""
    net = zoo.Net(seed=3)
    c1 = net.conv(net.input(), "c1", 4, 1)
    network = net.network(net.conv(net.conv(c1, "c2", 4, 1), "c3", 4, 1))
    data = samples_for(net, network, 48)
    built = build(network, pick(network, "fit 1x1 c1…c2"), data, images=48, batch=8)
    feeds = zoo.feeds_for(net, seed=3)
    wanted, got = zoo.run(network.model, feeds)["c3"], zoo.run(built.model, feeds)["c3"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=0.01 * np.abs(wanted).max())


def test_without_data_nothing_is_fitted() -> None:
    _, network = deep()
    with pytest.raises(ValueError, match="need data"):
        build(network, pick(network, "fit 3x3 a1…s1"), None, images=1, batch=4)


def test_progress_ends_at_its_total() -> None:
    _, network = deep()
    seen: list[tuple[int, int]] = []
    build(
        network,
        pick(network, "drop a0…r0"),
        None,
        images=1,
        batch=4,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert seen == [(0, 1), (1, 1)]


def test_refitting_what_was_not_compressed_changes_next_to_nothing() -> None:
    """With the harmless drop of an identity in front, every kept convolution is solved to its own weights."""
    net = zoo.Net(seed=4)
    weight = np.zeros((4, 4, 3, 3))
    weight[range(4), range(4), 1, 1] = 1
    value = net.relu(net.conv(net.relu(net.conv(net.input(), "c0"), "r0"), "same", weight=weight, bias=False), "r1")
    value = net.relu(net.conv(net.relu(net.depthwise(value, "dw"), "r2"), "c2"), "r3")
    network = net.network(net.classifier(value))
    data = samples_for(net, network, 32)
    plan = pick(network, "drop same…r1")
    built = build(network, plan, data, images=32, batch=8)
    again = refit(network, plan, built, data, images=32, batch=8)
    before, after = ({n.name: n for n in model.graph} for model in (built.model, again.model))
    for name in ("dw", "c2"):
        old, new = before[name].inputs[1].const_value.numpy(), after[name].inputs[1].const_value.numpy()  # type: ignore[union-attr]
        assert old.shape == new.shape and old.dtype == new.dtype
        np.testing.assert_allclose(new, old, rtol=0, atol=5e-3)
    np.testing.assert_allclose(run(again.model, net), run(built.model, net), rtol=0, atol=1e-2)
    np.testing.assert_array_equal(before["c0"].inputs[1].const_value.numpy(), after["c0"].inputs[1].const_value.numpy())  # type: ignore[union-attr]


def test_refitting_helps_behind_a_harmful_block_on_the_data_it_saw() -> None:
    net, network = deep()
    data = samples_for(net, network, 64)
    plan = pick(network, "drop a0…r0")
    built = build(network, plan, data, images=64, batch=8)
    again = refit(network, plan, built, data, alphas=(1e-3,), images=64, batch=8)
    wanted = collect(Session(network.model).run, data.batches(8))
    outputs = [collect(Session(model).run, data.batches(8)) for model in (built.model, again.model)]
    losses = [divergence(wanted, found).relative for found in outputs]
    assert losses[1] < losses[0]
    onnx.checker.check_model(onnx.load_from_string(to_bytes(again.model)), full_check=True)


def test_a_refit_that_memory_gives_too_few_rows_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net, network = deep()
    data = samples_for(net, network, 16)
    plan = pick(network, "drop a0…r0")
    built = build(network, plan, data, images=16, batch=8)
    assert set(refit(network, plan, built, data, images=16, batch=8).refitted) == {"a1", "b1", "a2", "b2"}
    # Enough for the 54 unknowns of a 3×3 on 6 channels, not for the 144 on 16.
    monkeypatch.setattr(_refit, "rows_for", lambda job: 600)
    assert set(refit(network, plan, built, data, images=16, batch=8).refitted) == {"a1", "a2"}


def test_activations_that_do_not_fit_in_memory_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net, network = deep()
    data = samples_for(net, network, 24)
    plan = pick(network, "drop a0…r0", "fit 3x3 a1…b1", "width 8/16 a2…b2")
    kept = build(network, plan, data, images=20, batch=8)
    monkeypatch.setattr(_prefix, "BYTES", 0)
    again = build(network, plan, data, images=20, batch=8)
    for key, fit in kept.fits.items():
        np.testing.assert_allclose(again.fits[key].weight, fit.weight, rtol=0, atol=1e-4)
        np.testing.assert_allclose(again.fits[key].bias, fit.bias, rtol=0, atol=1e-4)
    np.testing.assert_allclose(run(again.model, net), run(kept.model, net), rtol=0, atol=1e-3)


def test_a_fixed_batch_size_is_kept_to() -> None:
    net = zoo.Net(seed=2)
    hidden = net.relu(net.conv(net.input(shape=(4, 3, 6, 6)), "a", 16), "r")
    network = net.network(net.classifier(net.relu(net.conv(hidden, "b", 6), "s")))
    data = load_calibration(
        {"x": net.rng.standard_normal((16, 3, 6, 6)).astype("f")}, [InputSpec("x", (4, 3, 6, 6), np.dtype("f4"))]
    )
    built = build(network, pick(network, "width 8/16 a…b"), data, images=10, batch=4)
    assert set(built.fits) == {"width 8/16 a…b"}


def test_groups_that_nothing_reads_are_those_that_go() -> None:
    """Of eight groups of four between 1×1 convolutions: which ones is seen from the samples."""
    net = zoo.Net(seed=4)
    value = net.relu(net.conv(net.input(shape=("N", 6, 8, 8)), "first", 32, 1), "r")
    net.conv(net.relu(net.conv(value, "middle", groups=8), "rm"), "last", 6, 1)
    unread = net.weights["last.w"].reshape(6, 8, 4)
    unread[:, [1, 2, 5, 7]] = 0
    network = net.network("last")
    (candidate,) = pick(network, "width 16/32 first…last")
    built = build(network, [candidate], samples_for(net, network, 24), images=24, batch=4)
    kept = built.fits[candidate.key].kept
    assert kept is not None and kept.tolist() == [c for g in (0, 3, 4, 6) for c in range(4 * g, 4 * g + 4)]
    middle = next(node for node in built.model.graph if node.attributes.get("group", None) is not None
                  and node.attributes["group"].as_int() > 1)  # fmt: skip
    assert middle.attributes["group"].as_int() == 4
    feeds = zoo.feeds_for(net, 4, seed=9)
    wanted = zoo.run(network.model, feeds)["last"]
    np.testing.assert_allclose(zoo.run(built.model, feeds)["last"], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("pooled", [False, True])
def test_what_is_broadcast_over_a_sum_is_fitted_where_it_is_made(pooled: bool) -> None:
    """Behind the sum is a Relu, which hides some channels and places of it and not others."""
    net = zoo.Net(seed=4)
    trunk = net.conv(net.input(), "stem", 6)
    source = net.node("GlobalAveragePool", trunk, name="pool") if pooled else trunk
    branch = net.conv(net.conv(source, "a", 12, 1), "b", 6 if pooled else 1, 1)
    shifted = net.node("Sub", trunk, net.constant("down", np.full(1, 4, np.float32)), name="shifted")
    net.relu(net.node("Add", branch, shifted, name="sum", channels=6), "out")
    network = net.network("out")
    # Linear between its ends, so one convolution does it all.
    plan = pick(network, "fit 1x1 a…b")
    assert (site := job_of(network, plan[0]).site).value == "b" and site.skip is None and site.low == -np.inf
    built = build(network, plan, samples_for(net, network, 200), images=200, batch=20)
    feeds = zoo.feeds_for(net, 8, seed=9)
    wanted, got = (zoo.run(model, feeds)["out"] for model in (network.model, built.model))
    assert ((got - wanted) ** 2).sum() < 1e-3 * ((wanted - wanted.mean()) ** 2).sum()
