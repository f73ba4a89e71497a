"""A chain on arrays computes what onnxruntime does, on whole maps and on windows; its gradient is the slope of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from onnx_layermerge.candidates import Site
from onnx_layermerge.fit import Chain, Windows, _tune, chain_of, cut_windows, tune
from onnx_layermerge.fit._slope import elementwise
from onnx_layermerge.fit._tune import error_of
from onnx_layermerge.graph import Conv, Network, Session, activation_of, append_series, model_of
from tests import zoo

# Channels from the entry on; kernel, stride, pads (begin, then end) and whether it is depthwise of each convolution.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[tuple[tuple[int, int], int, tuple[int, int, int, int], bool], ...]]] = {
    "inverted bottleneck": (
        (4, 10, 10, 5),
        (((1, 1), 1, (0,) * 4, False), ((5, 5), 1, (2,) * 4, True), ((1, 1), 1, (0,) * 4, False)),
    ),
    "strided, uneven pads": (
        (3, 7, 7, 4),
        (((3, 3), 1, (1,) * 4, False), ((3, 3), 2, (0, 1, 1, 0), True), ((1, 1), 1, (0,) * 4, False)),
    ),
    "two dense": ((4, 6, 5), (((3, 3), 2, (1,) * 4, False), ((3, 5), 1, (1, 2, 1, 2), False))),
    "one": ((3, 4), (((3, 3), 1, (1,) * 4, False),)),
    "no pads": ((3, 5, 4), (((3, 3), 1, (0,) * 4, False), ((2, 2), 2, (0,) * 4, False))),
}  # fmt: skip
ACTIVATIONS = ("relu", "relu6", "silu", "hardswish", "leaky")


def network(op: str, dtype: type = np.float32) -> Network:
    """Convolution, activation, convolution."""
    net = zoo.Net(seed=3, dtype=dtype)
    value = net.conv(net.input(), "first", 4)
    if op == "hardswish":
        value = net.node("HardSwish", value, name="f")
    elif op == "leaky":
        value = net.node("LeakyRelu", value, name="f", alpha=0.1)
    elif op == "silu":
        value = net.node("Mul", value, net.node("Sigmoid", value, name="gate"), name="f")
    else:
        value = net.relu(value, "f") if op == "relu" else net.relu6(value, "f")
    return net.network(net.classifier(net.conv(value, "second", 5)))


def series_of(name: str, net: Network, *, biased: bool = True):
    """Convolutions of the named shapes with the network's activation between them."""
    rng = np.random.default_rng(5)
    widths, layers = SHAPES[name]
    activation = activation_of(net, 1)
    assert activation is not None
    found = []
    for number, (kernel, stride, pads, depthwise) in enumerate(layers):
        wide, out = widths[number : number + 2]
        groups = wide if depthwise else 1
        weight = rng.standard_normal((out, wide // groups, *kernel)) / np.sqrt(wide // groups * np.prod(kernel))
        bias = rng.standard_normal(out).astype(np.float32) if biased else None
        conv = Conv(weight.astype(np.float32), bias, (stride, stride), (1, 1), pads, groups)
        found.append((conv, activation if number < len(layers) - 1 else None))
    return found


def by_runtime(net: Network, series, x: np.ndarray) -> np.ndarray:
    entry = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(list(x.shape)))
    graph = ir.Graph([entry], [], nodes=[], name="chain", opset_imports=dict(net.model.graph.opset_imports))
    nodes, value = append_series(graph, entry, series, "c")
    value.name, value.type, value.shape = "y", entry.type, ir.Shape([None] * 4)
    graph.extend(nodes)
    graph.outputs.append(value)
    return Session(model_of(graph, net.model)).run({"x": x})["y"]


def case(name: str, op: str = "relu6", size: Sequence[int] = (23, 19), count: int = 3):
    net = network(op)
    series = series_of(name, net)
    x = np.random.default_rng(1).standard_normal((count, SHAPES[name][0][0], *size)).astype(np.float32) * 3
    chain = chain_of(net, series)
    assert chain is not None
    return net, series, x, chain


def last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("op", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_whole_maps_are_what_the_runtime_computes(name: str, op: str) -> None:
    net, series, x, chain = case(name, op)
    np.testing.assert_allclose(chain.forward(last(x)).y, last(by_runtime(net, series, x)), rtol=1e-4, atol=1e-4)


def windows(chain: Chain, x: np.ndarray, y: np.ndarray, *, skip: np.ndarray | None = None, **bounds: float) -> Windows:
    site = Site("x", "y", "y", None if skip is None else "s", bounds.get("low", -np.inf), bounds.get("high", np.inf))
    met = {"x": x} if skip is None else {"x": x, "s": skip}
    name = None if skip is None else "s"
    found = cut_windows(chain, site, [({"y": y}, met)], entry="x", skip=name, samples=len(x), seed=0)
    assert found is not None
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_windows_are_cut_out_of_what_the_runtime_computes(name: str) -> None:
    """Borders of every layer included: many windows, each compared in full."""
    net, series, x, chain = case(name, "silu", size=(41, 37), count=12)
    y = by_runtime(net, series, x)
    cut = windows(chain, x, y)
    assert cut.target.shape[1:3] == (14, 14) and len(cut) > len(x) and cut.valid is not None
    np.testing.assert_allclose(chain.forward(cut.entry, cut.valid).y, cut.target, rtol=1e-4, atol=1e-4)
    if any(any(layer.pads) for layer in chain.layers[1:]):
        assert any(mask is not None for mask in cut.valid)  # some window lies at a border
    assert error_of(chain, cut) < 1e-9
    small = windows(chain, x[..., :15, :15], by_runtime(net, series, x[..., :15, :15]))
    assert small.valid is None or small.target.shape[1:3] == (14, 14)
    assert error_of(chain, small) < 1e-9


# Across a kink a difference is no slope, so steps are small where there are kinks.
@pytest.mark.parametrize(("op", "step"), (("relu6", 1e-4), ("silu", 1e-3)))
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("size", ((9, 8), (31, 33)), ids=("whole", "windows"))
def test_the_gradient_is_the_slope_of_the_error(name: str, op: str, step: float, size: tuple[int, int]) -> None:
    net, series, x, chain = case(name, op, size)
    y = by_runtime(net, series, x)
    target = y + np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)
    cut = windows(chain, x, target)
    run = chain.forward(cut.entry, cut.valid)
    out = 2 * cut.error(run.y)
    found = chain.backward(run, out, cut.valid)
    rng = np.random.default_rng(3)

    def loss(moved: Chain) -> float:
        return float(np.square(cut.error(moved.forward(cut.entry, cut.valid).y), dtype=np.float64).sum())

    for number, pair in enumerate(found):
        for which, gradient in enumerate(pair):
            way = rng.standard_normal(gradient.shape).astype(np.float32)
            ends = []
            for signed in (step, -step):
                weights = [list(each) for each in chain.weights]
                weights[number][which] = weights[number][which] + np.float32(signed) * way
                ends.append(loss(Chain(chain.layers, tuple((a, b) for a, b in weights))))
            slope = (ends[0] - ends[1]) / (2 * step)
            scale = float(np.linalg.norm(gradient) * np.linalg.norm(way))
            assert float((gradient * way).sum()) == pytest.approx(slope, abs=0.01 * scale)


def test_an_error_that_the_activation_cannot_see_is_none() -> None:
    _, _, x, chain = case("one", count=1)
    y = np.full((1, 4, 23, 19), -1.0, np.float32)
    y[:, 0], y[:, 1] = 9.0, 2.0
    skip = np.full_like(y, 0.5)
    cut = windows(chain, x, y, skip=skip, low=0.0, high=6.0)
    got = np.full_like(cut.target, -3.0)
    got[..., 0], got[..., 1] = 7.0, 3.0
    error = cut.error(got)
    assert np.all(error[..., 0] == 0) and np.all(error[..., 2:] == 0)  # both above 6, both below 0
    assert np.all(error[..., 1] == 1.5)  # 3 and the skip, against 2
    got[..., 0], got[..., 2] = 4.0, 1.0
    error = cut.error(got)
    assert np.all(error[..., 0] == -1.5) and np.all(error[..., 2] == 1.5)  # against the bound, not what lies beyond


@pytest.mark.parametrize("size", ((8, 8), (20, 20)))
def test_what_a_skip_broadcasts_gives_no_windows(size: tuple[int, int]) -> None:
    net, series, x, chain = case("inverted bottleneck", size=(1, 1), count=4)
    site = Site("x", "y", "y", "s", -np.inf, np.inf)
    skip = np.zeros((4, 5, *size), np.float32)
    runs = [({"y": by_runtime(net, series, x) + skip}, {"x": x, "s": skip})]
    assert cut_windows(chain, site, runs, entry="x", skip="s", samples=4) is None


def test_steps_undo_a_change_of_the_hidden_weights_that_the_last_convolution_cannot() -> None:
    net, series, x, chain = case("inverted bottleneck", "relu6", size=(20, 20), count=40)
    cut = windows(chain, x, by_runtime(net, series, x))
    rng = np.random.default_rng(0)
    off = [(w * rng.uniform(0.8, 1.25, w.shape).astype(np.float32), b + np.float32(0.1)) for w, b in chain.weights[:2]]
    broken = Chain(chain.layers, (*off, chain.weights[2]))
    held = cut.at(slice(0, 16))
    found = tune(broken, cut.at(slice(16, None)), held, seed=0)
    assert found.before == error_of(broken, held) > 0.01
    assert found.after == error_of(found.chain, held) < 0.3 * found.before
    again = tune(broken, cut.at(slice(16, None)), held, seed=0)
    for one, other in zip(found.chain.weights, again.chain.weights, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert tune(broken, cut, held, steps=0).after == found.before


def test_work_is_counted_and_bounds_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    net, series, x, chain = case("strided, uneven pads", count=12, size=(9, 8))
    # 3×3×3→7 on 9×8, then depthwise 3×3 at stride 2 to 4×4, then 7→4.
    assert chain.macs(9, 8, padded=True) == 7 * 27 * 72 + 63 * 16 + 28 * 16
    cut = windows(chain, x, by_runtime(net, series, x) + 1)
    seen: list[int] = []
    forward = Chain.forward
    monkeypatch.setattr(Chain, "forward", lambda self, x, valid=None: (seen.append(len(x)), forward(self, x, valid))[1])
    tune(chain, cut, cut, steps=3)
    assert seen[:3] == [12, 12, 12]
    seen.clear()
    monkeypatch.setattr(_tune, "MACS", 6 * chain.macs(9, 8, padded=True))
    tune(chain, cut, cut, steps=3)
    assert seen[:3] == [6, 6, 6]
    monkeypatch.setattr(_tune, "MACS", 1)
    seen.clear()
    tune(chain, cut, cut, steps=3)
    assert seen[:3] == [4, 4, 4]


def test_what_is_no_such_chain_is_none() -> None:
    net = network("relu")
    series = series_of("two dense", net)
    conv = series[0][0]
    wide = np.zeros((6, 2, 3, 3), np.float32)
    for other in (
        Conv(wide, None, (1, 1), (1, 1), (0,) * 4, 2),  # neither dense nor depthwise
        Conv(conv.weight, None, (1, 1), (2, 2), (0,) * 4, 1),  # dilated
        Conv(np.zeros((6, 4, 3), np.float32), None, (1,), (1,), (0, 0), 1),  # on a line
    ):
        assert chain_of(net, [(other, series[0][1]), series[1]]) is None
    assert chain_of(net, [(conv, None), series[1]]) is None
    assert chain_of(net, [(conv, series[0][1])]) is None
    plain = chain_of(net, series_of("two dense", net, biased=False))
    assert plain is not None and not any(bias.any() for _, bias in plain.weights)


@pytest.mark.parametrize("dtype", (np.float16, np.float64))
def test_activations_of_other_types_are_computed_in_single_precision(dtype: type) -> None:
    net = network("leaky", dtype)
    activation = activation_of(net, 1)
    assert activation is not None
    function = elementwise(net, activation)
    x = np.array([[-2.0, 3.0]], np.float32)
    np.testing.assert_allclose(function.value(x), [[-0.2, 3.0]], rtol=1e-6)
    np.testing.assert_allclose(function.slope(x), [[0.1, 1.0]], rtol=1e-3)
