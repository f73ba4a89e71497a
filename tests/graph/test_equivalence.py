"""The check behind the folding: it passes rounding, and names the step that does more than that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import _read, load, normalise, read
from onnx_layermerge.graph._equivalence import Uncheckable, Unrunnable, distance, reference, tolerance_of
from onnx_layermerge.graph._normalise import FOLDING, Step
from onnx_layermerge.graph._pack import Packed, pack
from tests import zoo


def model_of(dtype: Any = np.float32, gain: float = 1.0) -> tuple[zoo.Net, ir.Model]:
    net = zoo.Net(dtype=dtype)
    c = net.conv(net.input(), "c")
    gains = net.constant("k", np.full((1, 1, 1, 1), gain, dtype))
    return net, ir.from_proto(net.proto(net.relu(net.node("Mul", c, gains, name="m"), "r")))


def scaled(model: ir.Model, factor: float) -> ir.Model:
    """The same model with its bias multiplied."""
    other = model.clone()
    value = other.graph.initializers["c.b"]
    array = value.const_value.numpy()  # type: ignore[union-attr]
    value.const_value = ir.tensor((array.astype(np.float64) * factor).astype(array.dtype), name="c.b")
    return other


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float16, 2e-3), (np.float32, 1e-5), (np.float64, 1e-10)], ids=["f2", "f4", "f8"]
)
def test_the_tolerance_is_that_of_the_type(dtype: Any, tolerance: float) -> None:
    net, model = model_of(dtype)
    truth = reference(model, "m", [zoo.feeds_for(net)])
    assert truth.tolerance == tolerance == tolerance_of(model)
    assert truth.check(model.clone()) is None
    assert truth.check(scaled(model, 1 + tolerance / 4)) is None
    said = truth.check(scaled(model, 1 + 400 * tolerance))
    assert said is not None and said.startswith("output 'r' moved by")


def test_the_least_precise_type_inside_counts() -> None:
    net = zoo.Net()
    half = net.node("Cast", net.conv(net.input(), "c"), name="h", to=onnx.TensorProto.FLOAT16)
    model = ir.from_proto(net.proto(net.node("Cast", half, name="s", to=onnx.TensorProto.FLOAT)))
    assert tolerance_of(model) == 2e-3


@pytest.mark.parametrize(
    ("wanted", "got", "far"),
    [
        ([1.0, -4.0], [1.0, -4.1], 0.025),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([np.nan, 2.0, np.inf], [7.0, 2.0, 1.0], 0.0),
        ([1.0, 2.0], [np.nan, 2.0], np.inf),
        ([np.nan], [1.0], 0.0),
    ],
)
def test_distance_is_relative_to_the_largest_finite_value(wanted: list[float], got: list[float], far: float) -> None:
    assert distance(np.array(wanted), np.array(got)) == pytest.approx(far)


def test_distance_ignores_what_is_no_floating_number() -> None:
    assert distance(np.array([1, 2]), np.array([2, 1])) == 0.0


def test_another_shape_type_or_a_model_that_no_longer_runs_is_said() -> None:
    net, model = model_of()
    truth = reference(model, "m", [zoo.feeds_for(net)])
    flat = zoo.Net()
    flat.node("Flatten", flat.relu(flat.conv(flat.input(), "c"), "a"), name="r")
    assert truth.check(ir.from_proto(flat.proto("r"))) == "output 'r' changed its shape or type"
    broken = model.clone()
    broken.graph.node("c").attributes["group"] = ir.AttrInt64("group", 3)
    said = truth.check(broken)
    assert said is not None and said.startswith("it no longer runs (")


def test_inputs_shrink_until_the_outputs_are_finite() -> None:
    net = zoo.Net()
    net.node("Exp", net.node("Mul", net.input(), net.constant("k", np.array(1e3, "f4")), name="m"), name="e")
    truth = reference(ir.from_proto(net.proto("e")), "m", [zoo.feeds_for(net)])
    assert np.isfinite(truth.wanted["e"]).all()
    assert 0 < np.abs(truth.feeds["x"]).max() < 0.1


def test_nothing_but_nan_is_refused_and_some_nan_is_not() -> None:
    net = zoo.Net()
    nothing = net.node("Log", net.node("Neg", net.node("Exp", net.input(), name="e"), name="n"), name="l")
    with pytest.raises(ModelError, match="nothing but NaN and Inf on random inputs, whether around zero or positive"):
        reference(ir.from_proto(net.proto(nothing)), "m", [zoo.feeds_for(net)])
    some = zoo.Net()
    many = some.node("Mul", some.input(), some.constant("k", np.float32(1e9)), name="m")
    some.node("Log", some.node("Sin", many, name="s"), name="l")
    truth = reference(ir.from_proto(some.proto("l")), "m", [zoo.feeds_for(some)])
    assert 0 < np.isfinite(truth.wanted["l"]).mean() < 1 and truth.check(truth.original()) is None


@pytest.mark.parametrize("ops", [["Log"], ["Sqrt"], ["Neg", "Exp", "Neg", "Add", "Sqrt"], ["Log", "Neg", "Sqrt"]])
def test_a_model_of_positive_inputs_gets_some(ops: list[str], tmp_path: Path) -> None:
    """A logarithm; a root; √(1 − e⁻ˣ); √(−ln x), for 0…1 only.  They have answers, to the right inputs."""
    net = zoo.Net()
    value, one = net.input(), net.constant("one", np.float32(1))
    for op in ops:
        value = net.node(op, *([value, one] if op == "Add" else [value]), name=f"{op}{len(net.nodes)}")
    path = net.save(tmp_path / "m.onnx", net.relu(net.conv(value, "c"), "r"))
    truth = reference(ir.load(path), "m", [zoo.feeds_for(net)])
    assert np.isfinite(truth.wanted["r"]).all() and truth.feeds["x"].min() > 0
    assert truth.feeds["x"].dtype == np.float32
    assert read(path).convs


def test_a_model_that_amplifies_rounding_is_not_held_to_the_tolerance() -> None:
    """sin(1000 c) turns the last place of c into the fourth of its own."""
    net = zoo.Net()
    many = net.node("Mul", net.conv(net.input(), "c", bias=False), net.constant("k", np.array(1e3, "f4")), name="m")
    net.node("Sin", many, name="r")
    model = ir.from_proto(net.proto("r"))
    truth = reference(model, "m", [zoo.feeds_for(net)])

    def changed(by: float) -> ir.Model:
        other = model.clone()
        value = other.graph.initializers["c.w"]
        array = value.const_value.numpy()  # type: ignore[union-attr]
        value.const_value = ir.tensor(array * np.float32(1 + by), name="c.w")
        return other

    last_place = changed(2**-23)
    assert distance(truth.wanted["r"], zoo.run(last_place, dict(truth.feeds))["r"]) > truth.tolerance
    assert truth.check(last_place) is None
    assert truth.check(changed(1e-5)) is not None


def with_bad_step(place: str, change: Callable[[ir.Model], bool]) -> tuple[Step, ...]:
    steps = list(FOLDING)
    at = next(index for index, step in enumerate(steps) if step.name == place)
    return (*steps[:at], Step("do harm", change), *steps[at:])


def raise_bias(model: ir.Model) -> bool:
    value = model.graph.initializers["c.b"]
    value.const_value = ir.tensor(value.const_value.numpy() + np.float32(0.1), name="c.b")  # type: ignore[union-attr]
    return True


def fail(model: ir.Model) -> bool:
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("change", "said"),
    [(raise_bias, r"step 'do harm': output 'r' moved by"), (fail, r"step 'do harm' \(no luck\)")],
)
def test_the_step_that_breaks_a_model_is_named(
    change: Callable[[ir.Model], bool], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = zoo.Net()
    padded = net.node("Pad", net.input(), net.constant("p", np.array([0, 0, 1, 1, 0, 0, 1, 1])), name="pad")
    net.relu(net.batch_norm(net.conv(padded, "c", pads=0), "bn"), "r")
    path = net.save(tmp_path / "m.onnx", "r")
    for place in ("merge duplicates", "fold scales and shifts into Conv", "infer shapes again"):
        bad = partial(normalise, steps=with_bad_step(place, change))
        monkeypatch.setattr(_read, "normalise", bad)
        with pytest.raises(ModelError, match=said):
            read(path)


def custom(tmp_path: Path) -> Path:
    """A norm that could be folded, in a model with an operator of a domain that no runtime knows."""
    net = zoo.Net()
    bn = net.batch_norm(net.conv(net.input(), "c"), "bn")
    net.nodes.append(helper.make_node("Odd", [bn], ["y"], name="odd", domain="somewhere.else"))
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("x", net.type, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info("y", net.type, ["N", "C", "H", "W"])],
        [numpy_helper.from_array(array, name) for name, array in net.weights.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("somewhere.else", 1)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def test_what_cannot_be_checked_is_not_folded(tmp_path: Path) -> None:
    path = custom(tmp_path)
    network = read(path)
    assert [node.op_type for node in network.order] == ["Conv", "BatchNormalization", "Odd"]
    assert network.steps == () and list(network.convs) == [0]
    with pytest.raises(Unrunnable):
        reference(ir.load(path), "m", [{"x": np.zeros((1, 4, 8, 8), "f4")}])


def test_types_without_kernels_are_checked_by_the_reference_implementation(tmp_path: Path) -> None:
    net = zoo.Net(dtype=np.float64)
    path = net.save(tmp_path / "m.onnx", net.batch_norm(net.conv(net.input(), "c"), "bn"))
    network = read(path)
    assert [node.op_type for node in network.order] == ["Conv"]
    assert network.convs[0].weight.dtype == np.float64


def test_where_rounding_alone_makes_the_outputs_arbitrary_nothing_is_called_equal_or_wrong() -> None:
    """sin(10⁸ c): the last place of c turns it several times round."""
    net = zoo.Net()
    many = net.node("Mul", net.conv(net.input(), "c"), net.constant("k", np.array(1e8, "f4")), name="m")
    net.node("Sin", many, name="r")
    model = ir.from_proto(net.proto("r"))
    truth = reference(model, "m", [zoo.feeds_for(net)])
    assert truth.check(model.clone()) is None
    with pytest.raises(Uncheckable, match="rounding alone moves its outputs by"):
        truth.check(scaled(model, 1.5))


def test_many_nodes_are_computed_as_few_are() -> None:
    """Preparing may make a large graph a small one; that must not change the kernels it is judged by."""
    net = zoo.Net()
    value = net.input()
    for number in range(60):
        value = net.relu(net.conv(value, f"c{number}"), f"r{number}")
    model = ir.from_proto(net.proto(value))
    truth = reference(model, "m", [zoo.feeds_for(net)])
    longer = model.clone()
    for node in list(longer.graph)[:-1]:
        same = ir.node("Identity", [node.outputs[0]])
        node.outputs[0].replace_all_uses_with(same.outputs[0])
        same.replace_input_with(0, node.outputs[0])
        longer.graph.insert_after(node, same)
    again = reference(longer, "m", [truth.feeds])
    np.testing.assert_array_equal(again.wanted[value], truth.wanted[value])


def test_the_model_may_change_once_it_has_run_if_it_can_be_had_again() -> None:
    net, model = model_of()
    made = []

    def again() -> ir.Model:
        made.append(ir.from_proto(net.proto("r")))
        return made[-1]

    truth = reference(model, "m", [zoo.feeds_for(net)], again=again)
    assert not made and truth.check(model) is None and not made
    assert truth.check(scaled(model, 1.5)) is not None and len(made) == 1


def test_the_packed_form_is_what_runs_and_the_model_where_that_does_not() -> None:
    net, model = model_of()
    feeds = zoo.feeds_for(net)
    own, other = (reference(each, "m", [feeds]).wanted["r"] for each in (model, scaled(model, 1.5)))
    assert not np.array_equal(own, other)
    packed = reference(model, "m", [feeds], packed=pack(scaled(model, 1.5)))
    np.testing.assert_array_equal(packed.wanted["r"], other)
    broken = reference(model, "m", [feeds], packed=Packed(b"no model"))
    np.testing.assert_array_equal(broken.wanted["r"], own)


def test_a_prepared_model_is_held_against_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not against what loading made of it: where that computes something else, nothing is folded."""
    net, _ = model_of(gain=2.0)
    path = net.save(tmp_path / "m.onnx", "r")
    assert read(path).steps
    monkeypatch.setattr(_read, "load", lambda path: scaled(load(path), 1.5))
    assert not read(path).steps


@pytest.mark.parametrize("size", [_read._MOST_READ_BYTES, 10])
def test_a_large_file_is_not_held_twice(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, _ = model_of(gain=2.0)
    path = net.save(tmp_path / "m.onnx", "r")
    monkeypatch.setattr(_read, "_MOST_READ_BYTES", size)
    packed = _read._as_it_is(path, load(path))
    assert (packed is not None) == (size > 10)
