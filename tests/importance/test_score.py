"""Scores of single replacements: harmless ones cost nothing, and shortcuts change no number."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.candidates import Candidate, enumerate_candidates
from onnx_layermerge.fit import series_of
from onnx_layermerge.graph import Network, Session, extract, splice, sweep
from onnx_layermerge.importance import collect, divergence, part_runner, score
from onnx_layermerge.recover import build
from tests import zoo
from tests.samples import samples_for


def offered(network: Network, *kinds: str) -> list[Candidate]:
    return list(enumerate_candidates(network, kinds=kinds)[0])


def with_classes(name: str) -> tuple[zoo.Net, Network]:
    net, output = zoo.ALL[name]()
    return net, net.network(net.classifier(output))


@pytest.mark.parametrize("name", ["plain", "residual", "downsample", "inverted", "nested", "preactivation", "parallel"])
def test_the_score_of_a_drop_or_merge_is_that_of_the_whole_built_model(name: str) -> None:
    net, network = with_classes(name)
    data = samples_for(net, network, 6)
    candidates = offered(network, "drop", "merge-all", "merge-subset")
    assert candidates
    scores = score(network, candidates, None, data, images=1, batch=4).by_key
    assert set(scores) == {candidate.key for candidate in candidates}
    wanted = collect(Session(network.model).run, data.batches(4))
    for candidate in candidates:
        built = build(network, [candidate], None, images=1, batch=4)
        whole = divergence(wanted, collect(Session(built.model).run, data.batches(4)))
        found = scores[candidate.key].divergence
        assert found.kl == pytest.approx(whole.kl, rel=1e-4, abs=1e-6), candidate.key
        assert found.relative == pytest.approx(whole.relative, rel=1e-4, abs=1e-6)
        assert scores[candidate.key].fit_error is None


def test_a_harmless_drop_scores_nothing_and_a_harmful_one_much() -> None:
    net = zoo.Net()
    weight = np.zeros((4, 4, 3, 3))
    weight[range(4), range(4), 1, 1] = 1  # the identity
    c1 = net.conv(net.relu(net.conv(net.input(), "c0"), "r0"), "c1", weight=weight, bias=False)
    c2 = net.conv(net.relu(c1, "r1"), "c2")
    network = net.network(net.classifier(net.relu(c2, "r2")))
    scores = score(network, offered(network, "drop"), None, samples_for(net, network), images=1, batch=8).by_key
    assert scores["drop c1…r1"].divergence.kl == pytest.approx(0, abs=1e-9)
    assert scores["drop c1…r1"].divergence.agreement == 1.0
    assert scores["drop c2…r2"].divergence.relative > 0.1


def test_fits_report_how_they_went_and_improve_on_the_drop() -> None:
    net, network = with_classes("residual")
    data = samples_for(net, network, 32)
    candidates = offered(network, "drop", "fit")
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int, what: str) -> None:
        seen.append((done, total))

    scores = score(network, candidates, data, data, images=32, batch=8, progress=note).by_key
    fitted, dropped = scores["fit 3x3 c1…add"], scores["drop c1…r2"]
    assert fitted.fit_error is not None and 0 < fitted.fit_error < 1
    assert fitted.alpha is not None and fitted.rows_per_unknown is not None
    assert fitted.divergence.relative < dropped.divergence.relative
    totals = {total for _, total in seen}
    assert len(totals) == 1 and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_a_fit_that_explains_nothing_is_not_judged() -> None:
    net = zoo.Net()
    # sin-like folding of large values: no 1×1 convolution of x resembles it.
    c0 = net.conv(net.input(), "c0", weight=net.rng.standard_normal((4, 4, 3, 3)) * 3)
    a = net.node("Abs", c0, name="a")
    network = net.network(net.classifier(net.conv(a, "c1", bias=False)))
    data = samples_for(net, network, 24)
    candidates = [c for c in offered(network, "fit") if c.key == "fit 1x1 c0…c1"]
    (found,) = score(network, candidates, data, data, images=24, batch=8).by_key.values()
    assert found.fit_error is not None and found.fit_error > 0.9
    assert found.divergence.kl == np.inf


def test_fitted_candidates_need_data() -> None:
    net, network = with_classes("plain")
    with pytest.raises(ValueError, match="need data"):
        score(network, offered(network, "fit")[:1], None, samples_for(net, network, 4), images=1, batch=4)


def test_blocks_beside_a_second_output_are_judged_on_both() -> None:
    """A block in front of one output, behind another: only what it reaches may change."""
    net, output = zoo.plain()
    scores_out = net.classifier(output)
    network = net.network(scores_out, "r1")
    data = samples_for(net, network, 6)
    candidates = offered(network, "drop")
    found = score(network, candidates, None, data, images=1, batch=3).by_key
    wanted = collect(Session(network.model).run, data.batches(3))
    for candidate in candidates:
        built = build(network, [candidate], None, images=1, batch=3)
        got = collect(Session(built.model).run, data.batches(3))
        np.testing.assert_array_equal(got["r1"], wanted["r1"])
        assert found[candidate.key].divergence.kl == pytest.approx(divergence(wanted, got).kl, rel=1e-4, abs=1e-6)


def test_a_block_that_ends_the_network_is_judged_too() -> None:
    net, output = zoo.plain()
    network = net.network(output)
    data = samples_for(net, network, 6)
    candidates = offered(network, "drop", "merge-all")
    found = score(network, candidates, None, data, images=1, batch=3).by_key
    wanted = collect(Session(network.model).run, data.batches(3))
    assert {c.region.exit for c in candidates} >= {output}
    for candidate in candidates:
        changed = extract(network.model, ["x"], [output])
        splice(changed.graph, candidate.region.entry, candidate.region.exit, series_of(network, candidate, None), "o")
        sweep(changed)
        whole = divergence(wanted, collect(Session(changed).run, data.batches(3)))
        assert found[candidate.key].divergence.kl == pytest.approx(whole.kl, rel=1e-4, abs=1e-6)


def test_inputs_are_handed_through_where_they_are_asked_for() -> None:
    net, output = zoo.plain()
    network = net.network(output)
    feeds = zoo.feeds_for(net)
    both = part_runner(network.model, ["x"], ["r1", "x"])(feeds)
    assert set(both) == {"r1", "x"} and both["x"] is feeds["x"]
    assert set(part_runner(network.model, ["x"], ["x"])(feeds)) == {"x"}


@pytest.mark.parametrize("count", [8, 6])
def test_samples_on_a_later_axis_are_judged_as_samples(count: int) -> None:
    """8 features first and batches of 8: what counts samples shows on smaller batches only; of 6 the last is short."""
    net = zoo.Net()
    c1 = net.conv(net.relu(net.conv(net.input(), "c0"), "r0"), "c1")
    c2 = net.relu(net.conv(net.relu(c1, "r1"), "c2"), "r2")
    usual = net.node("ReduceMean", c2, name="usual", axes=[3], keepdims=0)
    turned = net.node("Transpose", usual, name="turned", perm=[2, 0, 1])
    found, outputs = {}, {}
    for name in (usual, turned):
        network = net.network(name)
        data = samples_for(net, network, 20 if count == 6 else 16)
        found[name] = score(network, offered(network, "drop"), None, data, images=1, batch=count).by_key
        outputs[name] = collect(Session(network.model).run, data.batches(count))[name]
    np.testing.assert_array_equal(outputs[turned], outputs[usual].transpose(0, 2, 1))
    assert found[usual]
    for key, each in found[usual].items():
        assert found[turned][key].divergence.relative == pytest.approx(each.divergence.relative, rel=1e-4)
