"""New values for a file's own initializers; torch is not needed for any of this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_layermerge.graph import load, write
from onnx_layermerge.recover.training import learned, put_back
from tests import zoo


def bits(path: Path) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    net, output = zoo.residual()
    return net.save(tmp_path / "in.onnx", output)


def test_what_did_not_change_keeps_its_bits(saved: Path, tmp_path: Path) -> None:
    model = load(saved)
    weights = {name: np.array(value.const_value.numpy()) for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    assert put_back(model, weights) == ()
    weights["c1.w"][0, 0, 0, 0] += 1
    assert put_back(model, weights) == ("c1.w",)
    write(model, tmp_path / "out.onnx")
    before, after = bits(saved), bits(tmp_path / "out.onnx")
    assert {name for name in before if before[name] != after[name]} == {"c1.w"}
    assert before.keys() == after.keys()
    assert [node.name for node in onnx.load(saved).graph.node] == [
        node.name for node in onnx.load(tmp_path / "out.onnx").graph.node
    ]


@pytest.mark.parametrize("code", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_values_are_rounded_to_the_type_of_the_file(code: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(code)
    held = np.array([1.0, -0.0, 3.14159274], np.float32).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", code, [3])],
        [helper.make_tensor_value_info("y", code, [3])],
        [numpy_helper.from_array(held, "w")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert put_back(model, {"w": held.astype(np.float32)}) == ()
    new = np.array([1 / 3, 1e6, -2.7], np.float32)
    assert put_back(model, {"w": new}) == ("w",)
    found = model.graph.initializers["w"].const_value
    assert found is not None and found.dtype == ir.DataType(code)
    wanted = np.clip(new, -65504, 65504).astype(dtype) if code == TensorProto.FLOAT16 else new.astype(dtype)
    assert np.ascontiguousarray(found.numpy()).tobytes() == wanted.tobytes()


def test_sizes_are_nothing_to_put_floats_into() -> None:
    net = zoo.Net()
    net.node("Reshape", net.input(), net.constant("shape", np.array([0, -1])), name="flat")
    model = ir.from_proto(net.proto("flat"))
    with pytest.raises(ValueError, match="shape"):
        put_back(model, {"shape": np.zeros(2, np.float32)})


# --- which of them are weights -------------------------------------------------------------------------------------


def weights_of(net: zoo.Net, *outputs: str) -> set[str]:
    return set(learned(ir.from_proto(net.proto(*outputs))))


def test_weights_of_layers_are_learned_and_bounds_are_not() -> None:
    net = zoo.Net()
    value = net.batch_norm(net.relu6(net.conv(net.input(), "c"), "six"), "norm")
    assert weights_of(net, net.classifier(value)) == {"c.w", "c.b", "norm.scale", "norm.shift", "scores.w"}


def test_spelled_out_biases_are_learned_behind_a_layer_but_not_in_front() -> None:
    net = zoo.Net()
    mean = net.constant("mean", np.full((4, 1, 1), 0.5, np.float32))
    value = net.node("Sub", net.input(), mean, name="centred")
    value = net.conv(value, "c", bias=False)
    value = net.node("Add", value, net.constant("bias", np.ones((4, 1, 1), np.float32)), name="biased")
    half = net.constant("half", np.array(0.5, np.float32))
    value = net.node("Mul", value, half, name="halved")
    assert weights_of(net, value) == {"c.w", "bias"}


def test_a_weight_behind_a_transpose_is_learned() -> None:
    net = zoo.Net()
    flat = net.node("Flatten", net.node("GlobalAveragePool", net.input(), name="pool"), name="flat")
    turned = net.node("Transpose", net.constant("w", np.ones((3, 4), np.float32)), name="turned", perm=[1, 0])
    assert weights_of(net, net.node("MatMul", flat, turned, name="y")) == {"w"}


def test_a_constant_that_is_a_weight_here_and_a_bound_there_is_left_alone() -> None:
    net = zoo.Net()
    one = net.constant("one", np.array([1], np.float32))
    value = net.conv(net.input(), "c", 4, bias=False)
    value = net.node("PRelu", value, one, name="p")
    value = net.node("Pow", value, one, name="y")
    assert weights_of(net, value) == {"c.w"}


def test_a_mask_of_infinities_is_no_weight() -> None:
    net = zoo.Net()
    value = net.conv(net.input(shape=("N", 4, 2, 2)), "c", bias=False)
    mask = net.constant("mask", np.array([[0, -np.inf], [0, 0]], np.float32))
    assert weights_of(net, net.node("Add", value, mask, name="y")) == {"c.w"}
